"""The augmentation of outdoor scenes: turn and mirror about the vertical, scale, jitter, drop."""

import copy
import math

import torch
from torch import Generator
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pyg_peft.datasets.transforms import select_points
from pyg_peft.errors import check_number, check_pos


class OutdoorAugment(BaseTransform):
    """Augment a block of an outdoor scene, whose up axis is z.

    In this order: turn it by a random angle about z, mirror x with probability 1/2, scale all axes
    by one factor, move each point by normal noise, and drop some points. Heights change only by
    factor and noise, since they tell classes apart.

    Args:
        scale: The factor is drawn from ``[1 - scale, 1 + scale]``.
        jitter: Standard deviation of the noise, in the unit of ``pos``. It is cut at three of them.
        dropout: Up to this share of the points is dropped; the share is drawn for each block. At
            least one point stays.

    Shapes: pos (n, 3) to pos (m, 3), m <= n; all attributes with a row per point are kept in line.

    Raises:
        TypeError, ValueError: If a number is out of its range.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_peft.datasets import OutdoorAugment, keyed_generator
        >>> block = Data(pos=torch.rand(50, 3), y=torch.arange(50))
        >>> new = OutdoorAugment(dropout=0.5)(block, keyed_generator(0))
        >>> new.num_nodes == new.y.numel() < 50
        True
    """

    def __init__(self, scale: float = 0.1, jitter: float = 0.002, dropout: float = 0.1) -> None:
        self.scale = check_number(scale, "scale", least=0, below=1)
        self.jitter = check_number(jitter, "jitter", least=0)
        self.dropout = check_number(dropout, "dropout", least=0, below=1)

    def __call__(self, data: Data, generator: Generator | None = None) -> Data:
        return self.forward(copy.copy(data), generator)

    def forward(self, data: Data, generator: Generator | None = None) -> Data:
        pos = data.pos
        check_pos(pos)  # pyright: ignore[reportArgumentType]
        assert pos is not None  # for the type checker: checked above
        angle, mirror, size, share = torch.rand(
            4, generator=generator, dtype=torch.float64
        ).tolist()
        turn = pos.new_tensor(
            [
                [math.cos(2 * math.pi * angle), math.sin(2 * math.pi * angle), 0.0],
                [-math.sin(2 * math.pi * angle), math.cos(2 * math.pi * angle), 0.0],
                [0.0, 0.0, 1.0],
            ]
        )
        if mirror < 0.5:
            turn[:, 0] = -turn[:, 0]
        pos = pos @ turn * (1 + self.scale * (2 * size - 1))
        noise = torch.randn(pos.shape, generator=generator).clamp(-3, 3).to(pos)
        data.pos = pos + self.jitter * noise
        count = pos.size(0)
        kept = max(min(count, 1), count - int(share * self.dropout * count))
        order = torch.randperm(count, generator=generator)[:kept]
        return select_points(data, order.sort().values)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(scale={self.scale}, jitter={self.jitter}, "
            f"dropout={self.dropout})"
        )


__all__ = ["OutdoorAugment"]
