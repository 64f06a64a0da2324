"""Blocks of tiles as data sets: drawn at random for training, and a cover for evaluation."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch_geometric.data import Data, Dataset
from torch_geometric.transforms import BaseTransform

from pyg_peft.datasets import SceneSettings
from pyg_peft.datasets.preprocessing import Preprocessing
from pyg_peft.geometry import scene_columns
from pyg_peft.training.data.scene_tiles import BlockFrame, GridTile, cut_block


class TrainBlocks(Dataset):
    """Places where training blocks are drawn; an item names one, :class:`DrawBlock` draws there.

    A place is a square of half the side of a block that has a point with a class. One epoch
    therefore has blocks around every part of every tile.

    Args:
        tiles: Tiles for training.
        settings: The settings of the scene.
    """

    def __init__(self, tiles: Sequence[GridTile], settings: SceneSettings) -> None:
        super().__init__(None)
        self.settings = settings
        self.class_names = settings.class_names
        #: Arguments with which other tiles are read in the same way; saved with an adapter.
        self.read_args = settings.to_dict()
        self.squares = [Squares(tile, settings.block_size / 2) for tile in tiles]
        self.places = [
            (number, place)
            for number, squares in enumerate(self.squares)
            for place in range(len(squares.labeled))
        ]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def labels(self) -> Tensor:
        """A category for each place; there is only one, 0."""
        return torch.zeros(len(self), dtype=torch.long)

    def len(self) -> int:
        return len(self.places)

    def get(self, idx: int) -> Data:
        # The points are drawn by DrawBlock, from the generator of the epoch and the sample.
        empty = torch.zeros(0, dtype=torch.long)
        return Data(pos=torch.zeros(0, 3), y=empty, sample_id=torch.tensor([idx]))


class Squares:
    """A tile whose points are sorted by square, so that a block is found without a full search."""

    def __init__(self, tile: GridTile, side: float) -> None:
        plane = tile.pos[:, :2].double()
        self.low = plane.amin(dim=0)
        place = ((plane - self.low) / side).floor().long()
        self.side = side
        self.span = (place.amax(dim=0) + 1).tolist()
        key = place[:, 0] * self.span[1] + place[:, 1]
        self.key, order = key.sort(stable=True)
        self.tile = tile.select(order)
        known = (self.tile.y >= 0).nonzero().flatten()
        number, counts = self.key[known].unique_consecutive(return_counts=True)
        self._known, self._end = known, counts.cumsum(0)
        #: Number of labeled points of each square that has any.
        self.labeled = counts
        self._number = number

    def draw_center(self, place: int, generator: Generator | None) -> Tensor:
        """Return x and y of a random labeled point of a square."""
        count = int(self.labeled[place])
        start = int(self._end[place]) - count
        row = self._known[start + int(torch.randint(count, (), generator=generator))]
        return self.tile.pos[row, :2].double()

    def inside(self, center: Tensor, reach: float) -> Tensor:
        """Return the points with x and y within ``reach`` of ``center``."""
        low, high = (
            ((center + sign * reach - self.low) / self.side).floor().long().tolist()
            for sign in (-1, 1)
        )
        first, last = max(0, low[1]), min(self.span[1] - 1, high[1])
        rows = torch.arange(max(0, low[0]), min(self.span[0] - 1, high[0]) + 1) * self.span[1]
        begin = torch.searchsorted(self.key, rows + first)
        end = torch.searchsorted(self.key, rows + last, right=True)
        near = torch.cat(
            [torch.arange(a, b) for a, b in zip(begin.tolist(), end.tolist(), strict=True)]
        )
        away = (self.tile.pos[near, :2].double() - center).abs().amax(dim=1)
        return near[away <= reach]


class DrawBlock(BaseTransform):
    """Draw the block of an item of :class:`TrainBlocks`; other items already have their points.

    Args:
        blocks: The data set.
        preprocessing: Number of points and unit of a block.
    """

    def __init__(self, blocks: TrainBlocks, preprocessing: Preprocessing) -> None:
        self.blocks = blocks
        self.num_points = preprocessing.num_points
        self.frame = BlockFrame(blocks.settings, preprocessing)

    def __call__(self, data: Data, generator: Generator | None = None) -> Data:
        return self.forward(copy.copy(data), generator)

    def forward(self, data: Data, generator: Generator | None = None) -> Data:
        sample: Any = data.sample_id
        if data.get("voxel") is not None:
            return data
        number, place = self.blocks.places[int(sample)]
        squares = self.blocks.squares[number]
        center = squares.draw_center(place, generator)
        rows = squares.inside(center, self.blocks.settings.block_size / 2)
        if self.num_points is not None and rows.numel() > self.num_points:
            order = torch.randperm(rows.numel(), generator=generator)[: self.num_points]
            rows = rows[order.sort().values]
        block = cut_block(squares.tile, rows, self.frame)
        block.sample_id = sample
        return block


class EvalBlocks(Dataset):
    """Overlapping blocks that cover every point of tiles, in the order of the tiles.

    Items also have ``tile`` long ``[1]``, ``num_voxels`` long ``[1]``, ``is_last`` Boolean ``[1]``
    (whether the tile has no more blocks), ``voxel`` long ``[n]`` (the points' rows in their tile)
    and ``counts`` ``[n, K]``, see ``GridTile``.

    Args:
        tiles: The tiles.
        settings: The settings of the scene.
        preprocessing: Number of points and unit of a block.
    """

    def __init__(
        self, tiles: Sequence[GridTile], settings: SceneSettings, preprocessing: Preprocessing
    ) -> None:
        super().__init__(None)
        self.class_names = settings.class_names
        self.tiles = list(tiles)
        self.frame = BlockFrame(settings, preprocessing)
        self.blocks: list[tuple[int, Tensor, bool]] = []
        for number, tile in enumerate(self.tiles):
            cut = list(
                scene_columns(
                    tile.pos,
                    settings.block_size,
                    stride=settings.stride,
                    max_points=preprocessing.num_points or max(1, tile.pos.size(0)),
                )
            )
            last = len(cut) - 1
            self.blocks += [(number, rows, place == last) for place, rows in enumerate(cut)]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def labels(self) -> Tensor:
        """A category for each block; there is only one, 0."""
        return torch.zeros(len(self), dtype=torch.long)

    def len(self) -> int:
        return len(self.blocks)

    def get(self, idx: int) -> Data:
        number, rows, is_last = self.blocks[idx]
        tile = self.tiles[number]
        data = cut_block(tile, rows, self.frame)
        data.sample_id = torch.tensor([idx])
        data.tile = torch.tensor([number])
        data.num_voxels = torch.tensor([tile.pos.size(0)])
        data.is_last = torch.tensor([is_last])
        data.voxel = rows
        data.counts = tile.counts[rows]
        return data


__all__ = ["DrawBlock", "EvalBlocks", "TrainBlocks"]
