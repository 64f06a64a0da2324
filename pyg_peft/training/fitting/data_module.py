"""Provide the splits, views and loaders of a training run as a Lightning data module."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from pyg_peft.datasets import Augmented, SampleIds, train_val_split
from pyg_peft.datasets.checks import check_dataset
from pyg_peft.datasets.folders.shape_folder import read_args_of
from pyg_peft.datasets.preprocessing import Preprocessing
from pyg_peft.datasets.sample_ids import class_names_of, labels_of
from pyg_peft.errors import check_count, check_number
from pyg_peft.geometry import pyg_ops_enabled, pyg_ops_worker_init
from pyg_peft.training.data.batches import EvenBatches, batch_sizes
from pyg_peft.training.data.checks import check_kind
from pyg_peft.training.data.sampler import KeyedSampler
from pyg_peft.training.data.sources import Splits, open_source
from pyg_peft.training.tasks.classification import ClassificationTask
from pyg_peft.training.tasks.contract import Task


class ShapeDataModule(LightningDataModule):
    """Splits labeled clouds into training and validation; all randomness is keyed by the seed.

    The validation set is taken from the training set, class by class, unless one is given. Each
    process of a distributed run trains on its share and evaluates on the whole validation set. So
    the metric that selects the best epoch does not depend on the number of processes.

    Every training cloud is used in every epoch. If the clouds do not divide into full batches, all
    batches are a little smaller (92 clouds with a batch size of 32: 31, 31 and 30). The shares of
    several processes have the same length, see
    :class:`~pyg_peft.training.data.sampler.KeyedSampler`.

    Args:
        train: Any PyG data set with one label per item. Items without ``sample_id`` get one.
        val: Validation set, or ``None`` to take one from ``train``.
        test: Test set. Only ``test_dataloader`` reads it.
        predict: Clouds to predict. Labels are not needed.
        class_names: Names in label order; by default those of ``train``.
        preprocessing: Preprocessing of all splits.
        augmentation: Random transform of training samples, or ``None``.
        batch_size: Largest number of clouds per batch and process.
        val_fraction: Share of ``train`` that is used for validation. 0 trains on everything, and
            then no best epoch is chosen.
        groups: One number per training sample. Samples of one group stay in one split.
        num_views: Number of different versions of each training sample, so that features of the
            frozen backbone can be cached.
        num_workers: Number of worker processes of the training loader.
        seed: Key of split, order and views.

    Raises:
        TypeError: If an argument has another type.
        ValueError: If a number is out of its range, or the split, the sampler or the preprocessing
            raises it.

    Example:
        >>> from pyg_peft.datasets import ProceduralShapes
        >>> data = ShapeDataModule(ProceduralShapes(num_shapes=40), batch_size=8)
        >>> len(data.train_set) + len(data.val_set)
        40
    """

    def __init__(
        self,
        train: Any,
        val: Any = None,
        test: Any = None,
        predict: Any = None,
        *,
        class_names: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
        augmentation: Callable[..., Any] | None = None,
        batch_size: int = 32,
        val_fraction: float = 0.15,
        groups: Tensor | None = None,
        num_views: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_dataset(train, "train")
        for name, split in (("val", val), ("test", test), ("predict", predict)):
            if split is not None:
                check_dataset(split, name)
        check_kind(preprocessing, "preprocessing", Preprocessing, optional=True)
        if augmentation is not None and not callable(augmentation):
            raise TypeError(
                f"Expected 'augmentation' to be a transform (got {type(augmentation).__name__})"
            )
        check_count(batch_size, "batch_size")
        if num_views is not None:
            check_count(num_views, "num_views", least=1)
        check_count(num_workers, "num_workers", least=0)
        check_count(seed, "seed", least=None)
        check_number(val_fraction, "val_fraction")
        if not 0 <= val_fraction < 1:
            raise ValueError(
                "Expected 'val_fraction' to lie between 0 and 1, or to be 0 to train on everything "
                f"(got {val_fraction})"
            )
        self.class_names = tuple(class_names if class_names is not None else class_names_of(train))
        self.preprocessing = preprocessing or Preprocessing()
        self.augmentation = augmentation
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.val_fraction = val_fraction
        #: Whether to leave out a last batch that is not full, as earlier versions did. Runs that
        #: were started that way are resumed that way.
        self.drop_last = False
        self._are_checked = False
        #: Arguments that read the files of ``train``, if it is a ``ShapeFolder``; saved with an
        #: adapter.
        self.read_args = read_args_of(train)
        train = with_sample_ids(train)
        if val is None and val_fraction == 0:
            val = train[torch.zeros(0, dtype=torch.long)]
        elif val is None:
            rows, val_rows = train_val_split(labels_of(train), val_fraction, seed, groups=groups)
            train, val = train[rows], train[val_rows]
        self.plain_train_set = train
        transform = self.training_transform(augmentation)
        self.train_set = Augmented(train, transform, seed, num_views=num_views)
        self.val_set = self._fixed(with_sample_ids(val))
        self.test_set = None if test is None else self._fixed(with_sample_ids(test))
        self.predict_set = None if predict is None else self._fixed(with_sample_ids(predict))

    @classmethod
    def open_splits(cls, spec: str, **data_args: Any) -> Splits:
        """Open a source with the labels that the task needs; see ``open_source``."""
        return open_source(spec, **data_args)

    @classmethod
    def from_source(cls, spec: str | Splits, *, data_args: dict[str, Any], **options: Any) -> Self:
        """Open ``spec`` with :meth:`open_splits`, unless it is open, and wrap it."""
        splits = spec if isinstance(spec, Splits) else cls.open_splits(spec, **data_args)
        splits.check_train()
        return cls(splits.train, splits.val, splits.test, class_names=splits.class_names, **options)

    def training_transform(self, augmentation: Callable[..., Any] | None) -> Any:
        """Return the transform of training samples, which ends with ``augmentation``."""
        return self.preprocessing.training(augmentation)

    def evaluation_transform(self) -> Any:
        """Return the transform of all other samples, and of those for a memory bank."""
        return self.preprocessing.evaluation()

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def task(self) -> Task:
        """The task that the labels are for; here, classification."""
        return ClassificationTask(self.num_classes)

    @property
    def validates(self) -> bool:
        """Whether there are validation clouds to choose the best epoch with."""
        return len(self.val_set) > 0

    def smallest_batch(self, world_size: int = 1) -> int:
        """Return the size of an epoch's smallest training batch over all processes.

        Args:
            world_size: Number of processes.
        """
        share = -(-len(self.train_set) // world_size)
        return min(batch_sizes(share, self.batch_size, drop_last=self.drop_last))

    def setup(self, stage: str) -> None:
        if stage != "predict":
            self.check_labels()

    def check_labels(self) -> None:
        """Raise unless the task can learn every label; all are read once.

        Raises:
            TypeError, ValueError: If it cannot. The message names the split.
        """
        if self._are_checked:
            return
        sets = {"train": self.train_set, "val": self.val_set, "test": self.test_set}
        for split, dataset in sets.items():
            if dataset is not None:
                self.task.check_labels(dataset.dataset, split)
        self._are_checked = True

    def check_trainable(self) -> None:
        """Raise unless a model can be trained on the data, and its best epoch chosen.

        Raises:
            ValueError: If there is a single class, a label without a class, nothing to train on, or
                nothing to validate on although ``val_fraction`` is not 0.
        """
        if self.num_classes < 2:
            raise ValueError(
                f"Expected the data to have two classes or more (got {self.class_names})"
            )
        if len(self.train_set) == 0:
            raise ValueError("Expected the data to have clouds to train on (got none)")
        if not self.validates and self.val_fraction > 0:
            raise ValueError(
                "Expected the data to have clouds to validate on, or a class of two clouds or more "
                f"to take some from (got none, and {len(self.train_set)} to train on); "
                "a 'val_fraction' of 0 trains on everything and keeps the last epoch"
            )
        self.check_labels()

    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        sampler = KeyedSampler(
            self.train_set,
            self.seed,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )
        return LateLoader(
            self.train_set,  # pyright: ignore[reportArgumentType]
            batch_sampler=EvenBatches(sampler, self.batch_size, self.drop_last),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            worker_init_fn=pyg_ops_worker_init if pyg_ops_enabled() else None,
        )

    def bank_dataloader(self) -> DataLoader:
        """Return a loader for a memory bank: training samples, preprocessed as for evaluation."""
        return self._loader(self._fixed(self.plain_train_set))

    def val_dataloader(self) -> DataLoader:
        if not self.validates:
            raise ValueError(
                "Expected the data to have clouds to validate on (got none: 'val_fraction' is "
                f"{self.val_fraction})"
            )
        return self._loader(self.val_set)

    def test_dataloader(self) -> DataLoader:
        if self.test_set is None:
            raise ValueError("Expected the data to have a test split (got none)")
        return self._loader(self.test_set)

    def predict_dataloader(self) -> DataLoader:
        if self.predict_set is None:
            raise ValueError("Expected 'predict' to be a data set (got None)")
        return self._loader(self.predict_set)

    def _fixed(self, dataset: Any) -> Augmented:
        return Augmented(dataset, self.evaluation_transform(), num_views=1)

    def _loader(self, dataset: Augmented) -> DataLoader:
        return DataLoader(
            dataset,  # pyright: ignore[reportArgumentType]
            batch_size=self.batch_size,
            worker_init_fn=pyg_ops_worker_init if pyg_ops_enabled() else None,
        )

    def transfer_batch_to_device(
        self, batch: Data, device: torch.device, dataloader_idx: int
    ) -> Data:
        # Positions stay in float32 whatever the precision of the run; neighbor search needs it.
        return batch.to(device)


class LateLoader(DataLoader):
    """A loader that starts to fetch only when its first batch is needed.

    Lightning creates a loader's iterator before it restores a run's epoch and sets it in the
    sampler. By then, workers would have fetched batches of epoch 0.
    """

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        yield from super().__iter__()


def with_sample_ids(dataset: Any) -> Any:
    """Return ``dataset`` if its items have ``sample_id``, and otherwise a wrapper that adds it."""
    if len(dataset) > 0 and dataset[0].get("sample_id") is not None:
        return dataset
    return SampleIds(dataset)


__all__ = ["LateLoader", "ShapeDataModule", "with_sample_ids"]
