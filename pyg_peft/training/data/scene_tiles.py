"""Tiles of a scene after grid sampling, and the division of tiles into contiguous parts."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_peft.datasets import SceneSettings, keyed_generator
from pyg_peft.datasets.preprocessing import Preprocessing
from pyg_peft.geometry import grid_sample

#: A tile is divided into at least this many squares, of which whole ones are held out.
_LEAST_SQUARES = 16


@dataclass(frozen=True)
class GridTile:
    """Points of one tile, one for each cube of the grid.

    Args:
        pos: Positions ``[V, 3]``.
        x: Features ``[V, C]``, or ``None``.
        y: Class of the kept points ``[V]``, -1 for ignored ones.
        counts: Number of original points of each class in the cube of each point ``[V, K]``.
    """

    pos: Tensor
    x: Tensor | None
    y: Tensor
    counts: Tensor

    def select(self, rows: Tensor) -> "GridTile":
        """Return the tile with some of its points."""
        x = None if self.x is None else self.x[rows]
        return GridTile(self.pos[rows], x, self.y[rows], self.counts[rows])


def grid_tile(cloud: Data, settings: SceneSettings) -> GridTile:
    """Sample a tile that ``read_tile`` read with labels.

    Args:
        cloud: The tile.
        settings: The settings with which it was read.
    """
    index, inverse = sample_cloud(cloud, settings)
    y: Any = cloud.y
    size = len(settings.class_names)
    known = y >= 0
    cells = inverse[known] * size + y[known]
    counts = cells.bincount(minlength=index.numel() * size).view(-1, size)
    pos: Any = cloud.pos
    x: Any = cloud.x
    return GridTile(pos[index], None if x is None else x[index], y[index], counts.int())


def sample_cloud(cloud: Data, settings: SceneSettings) -> tuple[Tensor, Tensor]:
    """Return the points of a cloud that the grid keeps, and the kept point for every point."""
    pos: Any = cloud.pos
    if settings.grid_size is None:
        rows = torch.arange(pos.size(0))
        return rows, rows
    return grid_sample(pos, settings.grid_size)


def load_tiles(folder: Iterable[Any], settings: SceneSettings) -> list[GridTile]:
    """Read and sample all tiles of a ``SceneFolder``, one after another."""
    return [grid_tile(cloud, settings) for cloud in folder]


def hold_out(
    tiles: Sequence[GridTile], fraction: float, side: float, seed: int
) -> tuple[list[GridTile], list[GridTile]]:
    """Divide tiles into a rest and a held-out part that consists of contiguous squares.

    Whole squares are held out, so that points of one place are on one side. They are chosen so that
    each class has about ``fraction`` of its points among them, as far as squares allow. Squares
    have the side of a block, or less if a tile would have fewer than 16.

    Args:
        tiles: The tiles.
        fraction: Share of the held-out points.
        side: Side of a block.
        seed: Random seed.

    Raises:
        ValueError: If there are too few squares to hold any out.
    """
    squares: list[Tensor] = []
    first = 0
    for tile in tiles:
        square = _squares(tile.pos, side) + first
        first = int(square.max()) + 1 if square.numel() else first
        squares.append(square)
    labels, square = torch.cat([tile.y for tile in tiles]), torch.cat(squares)
    is_held = _pick(labels, square, fraction, keyed_generator("hold_out", seed))[square]
    masks = is_held.split([tile.y.numel() for tile in tiles])
    rest = [tile.select(~mask) for tile, mask in zip(tiles, masks, strict=True)]
    out = [tile.select(mask) for tile, mask in zip(tiles, masks, strict=True)]
    if not is_held.any() or is_held.all():
        raise ValueError(
            "Expected the tiles to have several squares, of which some are held out (got "
            f"{first}): give folders train/, val/ and test/, or a fraction of 0"
        )
    return [t for t in rest if t.y.numel()], [t for t in out if t.y.numel()]


def _pick(labels: Tensor, square: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Return which squares are held out: in random order, those that bring shares closer."""
    size = int(labels.max()) + 2  # with one for points without a class
    cells = square * size + labels + 1
    table = cells.bincount(minlength=(int(square.max()) + 1) * size).view(-1, size).double()
    # As shares of each class, so that a rare class counts as much as a frequent one.
    table = table / table.sum(dim=0).clamp(min=1)
    missing = fraction * (table.sum(dim=0) > 0)
    picked = torch.zeros(len(table), dtype=torch.bool)
    for row in torch.randperm(len(table), generator=generator).tolist():
        after = missing - table[row]
        if after.abs().sum() < missing.abs().sum():
            picked[row], missing = True, after
    return picked


def _squares(pos: Tensor, side: float) -> Tensor:
    """Return the number of the square of each point."""
    plane = pos[:, :2].double()
    plane = plane - plane.amin(dim=0)
    width, depth = (float(value) for value in plane.amax(dim=0))
    longest = max(width, depth)
    if longest == 0:
        return torch.zeros(pos.size(0), dtype=torch.long)
    side = min(side, longest / 4, math.sqrt(width * depth / _LEAST_SQUARES) or longest)
    place = (plane / side).floor().long()
    number = place[:, 0] * (int(place[:, 1].max()) + 1) + place[:, 1]
    return number.unique(return_inverse=True)[1]


class BlockFrame:
    """Transform of a block: the origin of z and the unit, as the settings say.

    A block's x and y are relative to its middle. With ``height="none"``, z is made relative to the
    mean of the block. If ``preprocessing.normalize`` is set, all coordinates are divided by half of
    the side of a block, the same for all blocks; otherwise they stay in the unit of the files.

    Args:
        settings: The settings of the scene.
        preprocessing: The preprocessing of the run.
    """

    def __init__(self, settings: SceneSettings, preprocessing: Preprocessing) -> None:
        if preprocessing.up_axis != "z":
            raise ValueError(
                f"Expected 'preprocessing.up_axis' to be 'z' for scenes "
                f"(got {preprocessing.up_axis!r})"
            )
        self.centers = settings.height == "none"
        self.unit = settings.block_size / 2 if preprocessing.normalize else 1.0

    def __call__(self, data: Data) -> Data:
        pos: Any = data.pos
        if self.centers:
            pos = torch.cat([pos[:, :2], pos[:, 2:] - pos[:, 2:].double().mean().float()], dim=1)
        data.pos = pos / self.unit
        return data


def cut_block(tile: GridTile, rows: Tensor, frame: BlockFrame) -> Data:
    """Return the points ``rows`` of a tile as a block, with classes and a category."""
    local = tile.pos[rows].double()
    low, high = local.amin(dim=0), local.amax(dim=0)
    origin = (low + high) / 2
    origin[2] = 0
    x = None if tile.x is None else tile.x[rows]
    data = Data(pos=(local - origin).float(), x=x, y=tile.y[rows])
    data.category = torch.zeros(1, dtype=torch.long)
    return frame(data)


__all__ = [
    "BlockFrame",
    "GridTile",
    "cut_block",
    "grid_tile",
    "hold_out",
    "load_tiles",
    "sample_cloud",
]
