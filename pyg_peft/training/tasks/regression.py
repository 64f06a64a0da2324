"""Estimate numbers: one or several continuous targets per cloud."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pyg_peft.datasets.targets import targets_of
from pyg_peft.errors import check_count, check_number
from pyg_peft.training.data.cache import FeatureCache
from pyg_peft.training.data.labels import target_rows
from pyg_peft.training.tasks.class_settings import set_settings
from pyg_peft.training.tasks.classification import check_clouds, score_clouds
from pyg_peft.training.tasks.contract import Scored, Task

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

LOSSES = ("mse", "huber")
_NEAR_ZERO = 1e-4  # below it torchmetrics takes a sum of squares of standardized values for zero


@dataclass(frozen=True)
class RegressionEvaluation(Scored):
    """Sums over the clouds of an evaluation, and the metrics computed from them.

    ``mae``, ``rmse`` and ``r2`` are means over the targets. ``mae`` and ``rmse`` are in the units
    of the targets, so that targets of different units should be learned by separate adapters, or be
    put into comparable units.

    Args:
        count: Number of clouds.
        absolute: Sum of the absolute errors of each target ``[T]``. This and all other sums are of
            standardized values.
        squared: Sum of their squares ``[T]``.
        total: Sum of each target ``[T]``.
        total_squared: Sum of the squares of each target ``[T]``.
        sd: Standard deviation with which each target was standardized ``[T]``.
    """

    count: int
    absolute: Tensor
    squared: Tensor
    total: Tensor
    total_squared: Tensor
    sd: Tensor

    @property
    def target_mae(self) -> Tensor:
        """Mean absolute error of each target ``[T]``."""
        return self.absolute / self.count * self.sd

    @property
    def target_rmse(self) -> Tensor:
        """Root mean squared error of each target ``[T]``."""
        return (self.squared / self.count).sqrt() * self.sd

    @property
    def target_r2(self) -> Tensor:
        """R² of each target ``[T]``: 0 for a target that is constant here, unless it is exact."""
        if self.count < 2:
            return torch.full_like(self.squared, torch.nan)
        spread = self.total_squared - self.total.square() / self.count
        varies, differs = spread.abs() > _NEAR_ZERO, self.squared > _NEAR_ZERO
        ratio = torch.where(varies, 1 - self.squared / spread, 0.0)
        return torch.where(differs, ratio, 1.0)

    @property
    def mae(self) -> float:
        """Mean absolute error."""
        return float(self.target_mae.mean())

    @property
    def rmse(self) -> float:
        """Root mean squared error."""
        return float(self.target_rmse.mean())

    @property
    def r2(self) -> float:
        """R², the share of the variance that is explained; NaN for less than two clouds."""
        return float(self.target_r2.mean())

    def numbers(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in ("mae", "rmse", "r2", "count")}

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.count + other.count,
            self.absolute + other.absolute,
            self.squared + other.squared,
            self.total + other.total,
            self.total_squared + other.total_squared,
            self.sd,
        )

    def __str__(self) -> str:
        return f"MAE {self.mae:.4g}, RMSE {self.rmse:.4g}, R2 {self.r2:.3f} ({self.count:,} clouds)"


class RegressionTask(Task):
    """Learns one or several numbers for each cloud; the best epoch has the smallest error.

    The model's scores are standardized targets. Predictions and errors are in the units of the
    targets. A data module computes ``mean`` and ``sd`` from its training clouds, and an adapter
    records them.

    Args:
        num_targets: Number of targets.
        mean: Mean of each target in training; 0 by default.
        sd: Standard deviation of each target in training; 1 by default.
        loss: ``"mse"``, the mean squared error, or ``"huber"``, which outliers affect less. Both
            are of standardized targets.
        delta: Error above which the Huber loss is linear, in standard deviations.

    Raises:
        TypeError: If a setting has another type.
        ValueError: If there is no target, or a setting is out of its range.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Batch, Data
        >>> from pyg_peft.backbones import PointNet
        >>> heights = torch.tensor([[1.0], [3.0]])
        >>> clouds = [Data(pos=torch.rand(20, 3), y=height[None]) for height in heights]
        >>> task = RegressionTask(mean=[2.0], sd=[1.0])
        >>> task.evaluate(PointNet(1), [Batch.from_data_list(clouds)]).count
        2
    """

    name: ClassVar[str] = "regression"
    head: ClassVar[str] = "classification"
    monitor: ClassVar[str] = "mae"
    monitor_mode: ClassVar[Literal["max", "min"]] = "min"
    least_outputs: ClassVar[int] = 1
    output_word: ClassVar[str] = "targets"

    def __init__(
        self,
        num_targets: int = 1,
        *,
        mean: Sequence[float] | None = None,
        sd: Sequence[float] | None = None,
        loss: str = "mse",
        delta: float = 1.0,
    ) -> None:
        check_count(num_targets, "num_targets")
        if loss not in LOSSES:
            raise ValueError(f"Expected 'loss' to be one of {', '.join(LOSSES)} (got {loss!r})")
        if (mean is None) != (sd is None):
            raise ValueError("Expected 'mean' and 'sd' to be given together (got one of them)")
        self.num_outputs = num_targets
        self.mean = _per_target(mean, "mean", num_targets, 0.0)
        self.sd = _per_target(sd, "sd", num_targets, 1.0)
        if not bool((self.sd > 0).all()):
            raise ValueError(f"Expected 'sd' to be above 0 (got {self.sd.tolist()})")
        self.kind = loss
        self.delta = float(check_number(delta, "delta", above=0))

    def to_dict(self) -> dict[str, Any]:
        return set_settings(
            mean=self.mean.tolist(),
            sd=self.sd.tolist(),
            loss=None if self.kind == LOSSES[0] else self.kind,
            delta=None if self.delta == 1 else self.delta,
        )

    def score(
        self,
        model: nn.Module,
        data: Any,
        *,
        sample_id: Tensor | None = None,
        cache: FeatureCache | None = None,
    ) -> Tensor:
        return score_clouds(model, data, sample_id, cache)

    def labels(self, data: Any, rows: int) -> Tensor:
        """Return the standardized targets of a batch ``[rows, T]``."""
        check_clouds(data, rows)
        y = target_rows(data.y, rows, self.num_outputs)
        return (y - self.mean.to(y)) / self.sd.to(y)

    def check_labels(self, dataset: Any, split: str) -> None:
        found = targets_of(dataset).size(1)
        if found != self.num_outputs:
            raise ValueError(
                f"Expected '{split}.y' to hold {self.num_outputs} targets for each cloud "
                f"(got {found})"
            )

    def loss(self, scores: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean loss; there is nothing to smooth."""
        if self.kind == "huber":
            return F.huber_loss(scores, labels, delta=self.delta)
        return F.mse_loss(scores, labels)

    def progress(self, scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"mae": ((scores - labels).abs() * self.sd.to(scores)).mean()}

    def metrics(self, prefix: str = "") -> "MetricCollection":
        from pyg_peft.training.evaluation.regression_metrics import regression_metrics

        return regression_metrics(self.sd, prefix)

    def update(self, metrics: Any, scores: Tensor, labels: Tensor, data: Any) -> None:
        metrics.update(scores, labels)

    def predictions(self, scores: Tensor, data: Any) -> Tensor:
        """Return the targets in their own units."""
        return scores * self.sd.to(scores) + self.mean.to(scores)

    def summary(self, row: Tensor, names: Sequence[str], top: int = 3) -> str:
        return "   ".join(
            f"{name} {value:.6g}" for name, value in self.describe(row, names).items()
        )

    def measure(self, scores: Tensor, data: Any) -> RegressionEvaluation:
        labels = self.labels(data, scores.size(0)).cpu().double()
        error = scores.cpu().double() - labels
        return RegressionEvaluation(
            len(labels),
            error.abs().sum(dim=0),
            error.square().sum(dim=0),
            labels.sum(dim=0),
            labels.square().sum(dim=0),
            self.sd,
        )


def scale_of(targets: Tensor, names: Sequence[str]) -> dict[str, list[float]]:
    """Return ``mean`` and ``sd`` of training targets ``[N, T]``.

    Raises:
        ValueError: If a target is the same for all clouds, so that there is nothing to learn.
    """
    mean, sd = targets.double().mean(dim=0), targets.double().std(dim=0, correction=0)
    for name, value, spread in zip(names, mean.tolist(), sd.tolist(), strict=True):
        if not spread > 0:
            raise ValueError(
                f"Expected the target {name!r} to differ between training clouds "
                f"(got {value:g} for all {len(targets)})"
            )
    return {"mean": mean.tolist(), "sd": sd.tolist()}


def _per_target(values: Any, name: str, count: int, default: float) -> Tensor:
    if values is None:
        return torch.full((count,), default, dtype=torch.float64)
    if isinstance(values, Tensor):
        values = values.tolist()
    if isinstance(values, str | Mapping) or not isinstance(values, Sequence):
        raise TypeError(f"Expected '{name}' to be a number for each target (got {values!r})")
    if len(values) != count:
        raise ValueError(f"Expected '{name}' to hold {count} numbers (got {len(values)})")
    return torch.tensor([check_number(value, name) for value in values], dtype=torch.float64)


__all__ = ["RegressionEvaluation", "RegressionTask", "scale_of"]
