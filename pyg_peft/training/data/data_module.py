"""Splits, views and loaders of a training run as a Lightning data module."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from pyg_peft.datasets import Augmented, SampleIds, train_val_split
from pyg_peft.datasets.checks import check_dataset
from pyg_peft.datasets.sample_ids import class_names_of, labels_of
from pyg_peft.datasets.shape_folder import read_args_of
from pyg_peft.errors import check_count, check_number
from pyg_peft.geometry import pyg_ops_enabled, pyg_ops_worker_init
from pyg_peft.training.data.batches import EvenBatches, batch_sizes
from pyg_peft.training.data.checks import check_kind
from pyg_peft.training.data.labels import check_range
from pyg_peft.training.data.preprocessing import Preprocessing
from pyg_peft.training.data.sampler import KeyedSampler
from pyg_peft.training.data.sources import Splits, open_source


class ShapeDataModule(LightningDataModule):
    """Labelled clouds, cut into training and validation, with everything random keyed by the seed.

    The validation set is carved out of the training set, class by class, unless one is given. Each
    process of a distributed run trains on its share and evaluates on all of the validation set, so
    the number that selects the best epoch does not depend on how many processes there are.

    Every training cloud is used in every epoch: where they do not divide into full batches, all
    batches are made a little smaller (of 92 clouds at 32: 31, 31 and 30). The shares of several
    processes are equally long; see :class:`~pyg_peft.training.data.sampler.KeyedSampler`.

    Args:
        train: any PyG data set with one label per item. Items without ``sample_id`` get one.
        val: validation set, or ``None`` to carve one out of ``train``.
        test: test set; nothing but :meth:`test_dataloader` reads it.
        predict: clouds to predict, labels are not needed.
        class_names: names in label order; by default those of ``train``.
        preprocessing: the same for all splits.
        augmentation: random transform of training samples, or ``None``.
        batch_size: largest number of clouds per batch and process.
        val_fraction: share of ``train`` that validates; 0 trains on everything, and no epoch is
            chosen then.
        groups: a number per training sample; samples of one group stay on one side.
        num_views: let each training sample have only this many versions, so that features of the
            frozen backbone can be cached.
        num_workers: worker processes of the training loader.
        seed: key of split, order and views.

    Raises:
        TypeError: an argument is of another type.
        ValueError: a number out of its range; from the split, the sampler or the preprocessing.

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
        #: Leave out a last batch that is not full, as versions before did: a run that was begun so
        #: is resumed so.
        self.drop_last = False
        self._are_checked = False
        #: How the files of ``train`` were read, if it is a ``ShapeFolder``; saved with an adapter.
        self.read_args = read_args_of(train)
        train = with_sample_ids(train)
        if val is None and val_fraction == 0:
            val = train[torch.zeros(0, dtype=torch.long)]
        elif val is None:
            rows, val_rows = train_val_split(labels_of(train), val_fraction, seed, groups=groups)
            train, val = train[rows], train[val_rows]
        self.plain_train_set = train
        transform = self.preprocessing.training(augmentation)
        self.train_set = Augmented(train, transform, seed, num_views=num_views)
        self.val_set = self._fixed(with_sample_ids(val))
        self.test_set = None if test is None else self._fixed(with_sample_ids(test))
        self.predict_set = None if predict is None else self._fixed(with_sample_ids(predict))

    @classmethod
    def from_source(cls, spec: str | Splits, *, data_args: dict[str, Any], **options: Any) -> Self:
        """Open ``spec`` by :func:`~pyg_peft.training.data.sources.open_source`, wrap its splits."""
        splits = spec if isinstance(spec, Splits) else open_source(spec, **data_args)
        splits.check_train()
        return cls(splits.train, splits.val, splits.test, class_names=splits.class_names, **options)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def validates(self) -> bool:
        """Whether there are clouds to choose the best epoch on."""
        return len(self.val_set) > 0

    def smallest_batch(self, world_size: int = 1) -> int:
        """Clouds of the smallest training batch of an epoch, over all of ``world_size`` processes.

        Args:
            world_size: number of processes.
        """
        share = -(-len(self.train_set) // world_size)
        return min(batch_sizes(share, self.batch_size, drop_last=self.drop_last))

    def setup(self, stage: str) -> None:
        if stage != "predict":
            self.check_labels()

    def check_labels(self) -> None:
        """Raise unless all labels are of classes that have a name.

        Raises:
            ValueError: one is not; the message names the split.
        """
        if self._are_checked:
            return
        for split, dataset in self._labelled().items():
            check_range(dataset.labels, self.num_classes, f"{split}.y")
        self._are_checked = True

    def _labelled(self) -> dict[str, Augmented]:
        sets = {"train": self.train_set, "val": self.val_set, "test": self.test_set}
        return {name: dataset for name, dataset in sets.items() if dataset is not None}

    def check_trainable(self) -> None:
        """Raise unless a model can be trained on the data, and its best epoch chosen.

        Raises:
            ValueError: a single class, a label without a class, nothing to train on, or nothing to
                validate on although ``val_fraction`` is not 0.
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
        """Training samples only, as evaluation sees them: what a memory bank may be built of."""
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
        return Augmented(dataset, self.preprocessing.evaluation(), num_views=1)

    def _loader(self, dataset: Augmented) -> DataLoader:
        return DataLoader(
            dataset,  # pyright: ignore[reportArgumentType]
            batch_size=self.batch_size,
            worker_init_fn=pyg_ops_worker_init if pyg_ops_enabled() else None,
        )

    def transfer_batch_to_device(
        self, batch: Data, device: torch.device, dataloader_idx: int
    ) -> Data:
        # Positions stay in float32 whatever the precision of the run: neighbours need it.
        return batch.to(device)


class LateLoader(DataLoader):
    """A loader that starts to fetch only when its first batch is asked for.

    Lightning makes a loader's iterator before it restores a run's epoch and hands it to the
    sampler; workers would by then have fetched batches of epoch 0.
    """

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        yield from super().__iter__()


def with_sample_ids(dataset: Any) -> Any:
    """``dataset`` itself if its items carry ``sample_id``, else wrapped so that they do."""
    if len(dataset) > 0 and dataset[0].get("sample_id") is not None:
        return dataset
    return SampleIds(dataset)


__all__ = ["LateLoader", "ShapeDataModule", "with_sample_ids"]
