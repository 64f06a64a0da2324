"""Train with tiles of scenes: the data module that cuts them into blocks."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch_geometric.transforms import Compose

from pyg_peft.datasets import SceneFolder, keyed_seed
from pyg_peft.datasets.preprocessing import FixedDraw, Preprocessing
from pyg_peft.errors import check_count, check_number
from pyg_peft.training.data.checks import check_kind
from pyg_peft.training.data.scene_blocks import DrawBlock, EvalBlocks, TrainBlocks
from pyg_peft.training.data.scene_tiles import GridTile, hold_out, load_tiles
from pyg_peft.training.data.sources import Splits, open_parts
from pyg_peft.training.fitting.data_module import ShapeDataModule
from pyg_peft.training.tasks.contract import Task
from pyg_peft.training.tasks.scene import SceneTask

logger = logging.getLogger(__name__)


class SceneDataModule(ShapeDataModule):
    """Cuts tiles into blocks: at random for training, overlapping and complete for evaluation.

    Every tile is sampled by the grid of the settings and kept in memory. A training block is a
    square around a random labeled point, with at most ``preprocessing.num_points`` of its points.
    An epoch has one around each square of half that side. Evaluation blocks cover every point.

    Without a test or validation split, contiguous squares of the training tiles are held out. They
    are chosen by the seed, so that all classes occur on both sides as far as possible.

    Args:
        train: Tiles for training and, without ``val`` and ``test``, for these.
        val, test: Further tiles; they have the settings of ``train``.
        class_names: Not needed; the names are those of ``train``.
        preprocessing: Number of points of a block, and whether coordinates are divided by half of
            its side. z must be the up axis.
        augmentation: Random transform of training blocks, for example
            :class:`~pyg_peft.datasets.OutdoorAugment`, or ``None``.
        val_fraction: Share of the training points that is held out for validation; 0 for none.
        test_fraction: Share that is held out for a test; by default that of ``train``.
        test_seed: Key of the held-out test, which does not depend on ``seed``.
        groups: Not possible, since squares are the groups.
        seed: Key of the split, the order and the blocks.
        options: Further arguments of :class:`ShapeDataModule`.

    Raises:
        TypeError, ValueError: If an argument has another type, or there is too little to divide.
    """

    def __init__(
        self,
        train: SceneFolder,
        val: SceneFolder | None = None,
        test: SceneFolder | None = None,
        *,
        class_names: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
        augmentation: Callable[..., Any] | None = None,
        val_fraction: float = 0.15,
        test_fraction: float | None = None,
        test_seed: int = 0,
        groups: Any = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        check_kind(train, "train", SceneFolder)
        check_kind(val, "val", SceneFolder, optional=True)
        check_kind(test, "test", SceneFolder, optional=True)
        check_kind(preprocessing, "preprocessing", Preprocessing, optional=True)
        check_count(seed, "seed", least=None)
        check_number(val_fraction, "val_fraction", least=0, below=1)
        share = train.test_fraction if test_fraction is None else test_fraction
        check_number(share, "test_fraction", least=0, below=1)
        if groups is not None:
            raise ValueError("Expected 'groups' to be None for scenes (got groups)")
        self.settings = settings = train.settings
        own = preprocessing or Preprocessing()
        loaded: dict[int, list[GridTile]] = {}
        for folder in (train, val, test):
            if folder is not None and id(folder) not in loaded:
                loaded[id(folder)] = load_tiles(folder, settings)
        tiles = loaded[id(train)]
        held: dict[str, list[GridTile]] = {}
        for name, folder, fraction in (("test", test, share), ("val", val, val_fraction)):
            if folder is not None:
                held[name] = loaded[id(folder)]
            elif fraction > 0 and not (name == "test" and train.splits):
                key = keyed_seed("scene", name, test_seed if name == "test" else seed)
                tiles, held[name] = hold_out(tiles, fraction, settings.block_size, key)
        sets = {name: EvalBlocks(some, settings, own) for name, some in held.items()}
        self._draw = DrawBlock(TrainBlocks(tiles, settings), own)
        super().__init__(
            self._draw.blocks,
            sets.get("val"),
            sets.get("test"),
            class_names=settings.class_names,
            preprocessing=own,
            augmentation=augmentation,
            val_fraction=val_fraction,
            seed=seed,
            **options,
        )
        counts = [
            f"{name} {sum(int((tile.y >= 0).sum()) for tile in some):,}"
            for name, some in (("train", tiles), *held.items())
        ]
        logger.info("points after grid sampling: %s", ", ".join(counts))

    @classmethod
    def open_splits(cls, spec: str, **data_args: Any) -> Splits:
        """Open tiles; see ``open_parts``."""
        return open_parts(spec, **data_args)

    @classmethod
    def from_source(cls, spec: str | Splits, *, data_args: dict[str, Any], **options: Any) -> Self:
        """Open ``spec`` with :meth:`open_splits`, unless it is open, and wrap it."""
        splits = spec if isinstance(spec, Splits) else cls.open_splits(spec, **data_args)
        splits.check_train()
        return cls(splits.train, splits.val, splits.test, **options)

    @property
    def task(self) -> Task:
        """The task that the labels are for; here, segmentation of scenes."""
        return SceneTask(self.class_names)

    @property
    def num_features(self) -> int:
        """Number of columns of ``x``, for ``in_channels`` of a backbone."""
        return self.settings.num_features

    def training_transform(self, augmentation: Callable[..., Any] | None) -> Compose:
        return Compose([self._draw, *([] if augmentation is None else [augmentation])])

    def evaluation_transform(self) -> FixedDraw:
        return FixedDraw(self._draw)

    def check_trainable(self) -> None:
        super().check_trainable()
        seen = torch.zeros(self.num_classes, dtype=torch.bool)
        for squares in self._draw.blocks.squares:
            seen[squares.tile.y[squares.tile.y >= 0]] = True
        missing = [name for name, there in zip(self.class_names, seen, strict=True) if not there]
        if missing:
            logger.warning("classes without a point to train on: %s", ", ".join(missing))


__all__ = ["SceneDataModule"]
