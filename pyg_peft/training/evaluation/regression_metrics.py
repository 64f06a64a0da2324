"""Metrics of a regression: mean absolute error, root mean squared error and R²."""

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection, R2Score


class MeanError(MeanAbsoluteError):
    """Mean absolute error in the units of the targets, the mean over the targets.

    Args:
        sd: Standard deviation of each target ``[T]``, with which predictions and targets are
            standardized.
    """

    sd: Tensor

    def __init__(self, sd: Tensor) -> None:
        super().__init__()
        self.register_buffer("sd", sd.float(), persistent=False)

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds * self.sd, target * self.sd)


class RootMeanError(MeanSquaredError):
    """Root mean squared error in the units of the targets, the mean over the targets.

    Args:
        sd: See :class:`MeanError`.
    """

    sd: Tensor

    def __init__(self, sd: Tensor) -> None:
        super().__init__(squared=False, num_outputs=len(sd))
        self.register_buffer("sd", sd.float(), persistent=False)

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds * self.sd, target * self.sd)

    def compute(self) -> Tensor:
        return super().compute().mean()


class R2(R2Score):
    """R², the mean over the targets; NaN for less than two clouds.

    R² does not depend on the units of the targets, and is computed from standardized ones.
    """

    def compute(self) -> Tensor:
        if int(self.total) < 2:
            return torch.full_like(self.residual.mean(), torch.nan)
        return super().compute()


def regression_metrics(sd: Tensor, prefix: str = "") -> MetricCollection:
    """Return the metrics ``mae``, ``rmse`` and ``r2``, to be updated with standardized values.

    Args:
        sd: Standard deviation of each target ``[T]``.
        prefix: Prefix of the names, for example ``"val_"``.
    """
    return MetricCollection(
        {"mae": MeanError(sd), "rmse": RootMeanError(sd), "r2": R2()},
        prefix=prefix or None,
        compute_groups=False,
    )


__all__ = ["R2", "MeanError", "RootMeanError", "regression_metrics"]
