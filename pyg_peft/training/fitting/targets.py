"""Train on numbers per cloud: the data modules for regression and for several labels a cloud."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from pyg_peft.datasets import CloudTargets
from pyg_peft.datasets.targets import targets_of
from pyg_peft.training.data.sources import Splits
from pyg_peft.training.data.target_sources import open_targets
from pyg_peft.training.fitting.data_module import ShapeDataModule
from pyg_peft.training.tasks.contract import Task
from pyg_peft.training.tasks.multi_label import MultiLabelTask, rarest_label
from pyg_peft.training.tasks.regression import RegressionTask, scale_of

_MOST_BINS = 10


class TargetDataModule(ShapeDataModule):
    """Splits clouds with targets; otherwise like :class:`ShapeDataModule`.

    Each split is wrapped in :class:`~pyg_peft.datasets.CloudTargets`, unless it is one.

    Args:
        train, val, test: Data sets that ``CloudTargets`` takes.
        predict: Clouds to predict.
        class_names: Names of the targets; by default those of ``train``.
        options: Further arguments of :class:`ShapeDataModule`.

    Raises:
        ValueError: If items have no targets, or splits have different ones.
    """

    least_classes: ClassVar[int] = 1

    def __init__(
        self,
        train: Any,
        val: Any = None,
        test: Any = None,
        predict: Any = None,
        *,
        class_names: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        first = _wrapped(train, class_names)
        rest = [
            None if some is None else _wrapped(some, first.target_names) for some in (val, test)
        ]
        super().__init__(
            first, rest[0], rest[1], predict, class_names=first.target_names, **options
        )

    @classmethod
    def open_splits(cls, spec: str, **data_args: Any) -> Splits:
        """Open a source with targets; see ``open_targets``."""
        return open_targets(spec, **data_args)


class RegressionDataModule(TargetDataModule):
    """Splits clouds with numbers to estimate; see :class:`TargetDataModule`.

    A validation set that is taken from ``train`` has its share of each quantile of the first
    target. Targets are standardized by the mean and the standard deviation of the clouds that are
    trained on.

    Args:
        train, val, test, predict, class_names, options: See :class:`TargetDataModule`.
            ``task_args`` are settings of :class:`RegressionTask`.

    Raises:
        ValueError: If a target is the same for all training clouds, or ``balanced_sampling`` is
            on, since there are no classes.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> clouds = [Data(pos=torch.rand(9, 3), y=torch.tensor([float(n)])) for n in range(40)]
        >>> data = RegressionDataModule(clouds, class_names=["height"], batch_size=8)
        >>> data.task.num_outputs, len(data.val_set)
        (1, 6)
    """

    def __init__(self, *splits: Any, **options: Any) -> None:
        if options.get("balanced_sampling"):
            raise ValueError(
                "Expected 'balanced_sampling' to be off for a regression, which has no classes "
                "(got True)"
            )
        super().__init__(*splits, **options)
        self._scale: dict[str, list[float]] | None = None

    @property
    def task(self) -> Task:
        """The task that the targets are for; here, regression."""
        settings = self.task_settings
        if not {"mean", "sd"} & set(settings):
            if self._scale is None:
                self._scale = scale_of(targets_of(self.plain_train_set), self.class_names)
            settings = {**self._scale, **settings}
        return RegressionTask.from_dict(settings, self.class_names)

    @classmethod
    def strata(cls, dataset: Any, fraction: float, ignore_index: int | None = None) -> Tensor:
        """Return the quantile of the first target of each item, of ten or of fewer."""
        first = targets_of(dataset)[:, 0]
        bins = max(1, min(_MOST_BINS, int(len(first) * fraction)))
        rank = first.argsort(stable=True).argsort()
        return rank * bins // max(1, len(first))


class MultiLabelDataModule(TargetDataModule):
    """Splits clouds with any number of labels; see :class:`TargetDataModule`.

    A validation set that is taken from ``train``, and ``balanced_sampling``, treat each cloud as
    one of its rarest label.

    Args:
        train, val, test, predict, class_names, options: See :class:`TargetDataModule`.
            ``task_args`` are settings of :class:`MultiLabelTask`.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> rows = [[n % 2, n % 3 == 0] for n in range(40)]
        >>> clouds = [Data(pos=torch.rand(9, 3), y=torch.tensor([row])) for row in rows]
        >>> data = MultiLabelDataModule(clouds, class_names=["round", "hollow"], batch_size=8)
        >>> data.task.num_outputs
        2
    """

    @property
    def task(self) -> Task:
        """The task that the labels are for; here, multi-label classification."""
        return MultiLabelTask.from_dict(self.task_settings, self.class_names)

    def class_counts(self) -> Tensor:
        """Return how many training clouds have each label ``[num_classes]``."""
        return (targets_of(self.plain_train_set) > 0).sum(dim=0)

    def sampled_classes(self) -> Tensor:
        """Return the rarest label of each training cloud, -1 for none."""
        rarest = rarest_label(targets_of(self.plain_train_set))
        return rarest.where(rarest < self.num_classes, -1)

    @classmethod
    def strata(cls, dataset: Any, fraction: float, ignore_index: int | None = None) -> Tensor:
        """Return the rarest label of each item."""
        return rarest_label(targets_of(dataset))


def _wrapped(dataset: Any, names: Sequence[str] | None) -> CloudTargets:
    if not isinstance(dataset, CloudTargets):
        return CloudTargets(dataset, names)
    if names is not None and dataset.target_names != tuple(names):
        raise ValueError(
            f"Expected every split to have the targets {list(names)} "
            f"(got {list(dataset.target_names)})"
        )
    return dataset


__all__ = ["MultiLabelDataModule", "RegressionDataModule", "TargetDataModule"]
