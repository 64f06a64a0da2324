"""Transforms of one cloud: normalization, resampling and the two published augmentations.

Each is a PyG ``BaseTransform``. The random ones also accept a ``generator``. Without one, they use
torch's global generator, as PyG's transforms do. :class:`~pyg_peft.datasets.Augmented` passes a
generator that is keyed by seed, epoch and sample.
"""

import copy
import math
from typing import Any

import torch
from torch import Generator, Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pyg_peft.errors import (
    check_count,
    check_index,
    check_number,
    check_pos,
    check_reach,
    check_tensor,
    described,
)

# One value per cloud, even if a cloud has one point, so that the sizes are equal.
_CLOUD_KEYS = frozenset({"sample_id", "view_id", "category", "origin", "ptr", "batch"})
_POINT_KEYS = ("pos", "x", "normal", "seg")
_AXES = {"x": 0, "y": 1, "z": 2}


def point_keys(data: Data) -> list[str]:
    """Return the names of the attributes of ``data`` with one row per point.

    Args:
        data: An item with ``pos``. ``y`` is per point if it has as many rows as ``pos``, and more
            than one.
    """
    num_points = checked_pos(data).size(0)
    keys = []
    for key, value in data.to_dict().items():
        if not isinstance(value, Tensor) or value.dim() == 0 or value.size(0) != num_points:
            continue
        if key in _POINT_KEYS or (num_points != 1 and key not in _CLOUD_KEYS):
            keys.append(key)
    return keys


def select_points(data: Data, index: Tensor) -> Data:
    """Keep the rows ``index`` of all attributes with one row per point, in place.

    Args:
        data: An item with ``pos``.
        index: Rows, ``[m]`` long. Repetition is allowed.
    """
    keys = point_keys(data)
    index = check_index(index, "index", checked_pos(data).size(0), shape=("m",), of="points")
    for key in keys:
        data[key] = data[key][index]
    return data


class Normalize(BaseTransform):
    """Move the mean to the origin and scale the farthest point to distance 1.

    Shapes: pos (n, 3) to pos (n, 3). Coincident points are moved to the origin and not scaled.

    Raises:
        TypeError: If positions are integers.
        ValueError: If a position is NaN or infinite, which would affect every point of the cloud,
            or if squares of positions are not finite.

    Symmetries: permutation equivariant; invariant under translation and uniform scaling of the
        input; rotation equivariant.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_peft.datasets import Normalize
        >>> Normalize()(Data(pos=torch.tensor([[1.0, 0, 0], [5.0, 0, 0]]))).pos[:, 0].tolist()
        [-1.0, 1.0]
    """

    def forward(self, data: Data) -> Data:
        pos = checked_pos(data)
        if pos.size(0) > 0:
            # float64 keeps millimeters in the mean of coordinates of many kilometers.
            wide = pos.double()
            check_reach(wide)
            # The mean of coincident points may differ from them by rounding.
            middle = wide.mean(dim=0) if bool((wide != wide[0]).any()) else wide[0]
            wide = wide - middle
            radius = wide.norm(dim=1).max()
            data.pos = (wide / radius.where(radius > 0, 1.0)).to(pos.dtype)
        return data


class Resample(BaseTransform):
    """Resample a cloud to ``num_points``: a random subset, or all points with random repetitions.

    The order of the result is always random, also if no point is dropped.

    Args:
        num_points: Number of points to return, at least 1.

    Shapes: pos (n, 3), n >= 1, to pos (num_points, 3); other rows per point are resampled alike.

    Raises:
        ValueError: If ``num_points < 1``, or the cloud is empty.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_peft.datasets import Resample, keyed_generator
        >>> data = Data(pos=torch.rand(10, 3))
        >>> Resample(4)(data, keyed_generator(0)).pos.shape, Resample(16)(data).pos.shape
        (torch.Size([4, 3]), torch.Size([16, 3]))
    """

    def __init__(self, num_points: int) -> None:
        self.num_points = check_count(num_points, "num_points")

    def __call__(self, data: Data, generator: Generator | None = None) -> Data:
        return self.forward(copy.copy(data), generator)

    def forward(self, data: Data, generator: Generator | None = None) -> Data:
        size = checked_pos(data).size(0)
        _check_generator(generator)
        if size == 0:
            raise ValueError("Expected 'data' to have points to resample (got an empty cloud)")
        index = torch.randperm(size, generator=generator)[: self.num_points]
        if size < self.num_points:
            more = torch.randint(size, (self.num_points - size,), generator=generator)
            index = torch.cat([index, more])
        return select_points(data, index)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_points})"


class ScaleTranslate(BaseTransform):
    """Apply the scale and translate protocol: one factor per axis, then one offset per axis.

    Args:
        scale: Interval of the factors. The published protocol uses 2/3 to 3/2.
        translate: Offsets are drawn from ``[-translate, translate]``. The published protocol uses
            0.2.

    Shapes: pos (n, 3) to pos (n, 3). Unit normals in ``data.normal`` stay normal to the surface;
        ``x`` is unchanged, so do not put normals into it if you augment.

    Raises:
        ValueError: If the interval is empty or not positive, or ``translate`` is negative.

    Example:
        >>> from pyg_peft.datasets import ScaleTranslate
        >>> ScaleTranslate()
        ScaleTranslate(scale=(0.667, 1.5), translate=0.2)
    """

    def __init__(self, scale: tuple[float, float] = (2 / 3, 3 / 2), translate: float = 0.2) -> None:
        if not isinstance(scale, tuple | list) or len(scale) != 2:
            raise TypeError(f"Expected 'scale' to be a pair of numbers (got {scale!r})")
        for bound in scale:
            check_number(bound, "scale")
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"Expected 'scale' to be an interval above 0 (got {scale})")
        self.scale = scale
        self.translate = check_number(translate, "translate", least=0)

    def __call__(self, data: Data, generator: Generator | None = None) -> Data:
        return self.forward(copy.copy(data), generator)

    def forward(self, data: Data, generator: Generator | None = None) -> Data:
        pos = checked_pos(data)
        _check_generator(generator)
        low, high = self.scale
        draw = torch.rand(2, 3, generator=generator).to(pos)
        factor = low + (high - low) * draw[0]
        moved = pos * factor + self.translate * (2 * draw[1] - 1)
        if not bool(moved.isfinite().all()):
            raise ValueError(
                f"Expected 'scale' and 'translate' to keep positions within {pos.dtype} "
                f"(got {self.scale} and {self.translate})"
            )
        data.pos = moved
        if data.get("normal") is not None:
            normal = data.normal / factor
            data.normal = torch.nn.functional.normalize(normal, dim=-1)
        return data

    def __repr__(self) -> str:
        low, high = self.scale
        return f"{type(self).__name__}(scale=({low:.3g}, {high:.3g}), translate={self.translate})"


class UpRotate(BaseTransform):
    """Apply the rotation protocol: a uniform random angle about the up axis.

    Args:
        axis: ``"x"``, ``"y"`` or ``"z"``. The shared ``.npz`` sets and ModelNet's mesh files have z
            up. ScanObjectNN has y up.

    Shapes: pos (n, 3) to pos (n, 3); ``data.normal`` is rotated too. ``x`` is unchanged, so do not
        put normals into it if you augment.

    Raises:
        ValueError: If ``axis`` is another one.

    Example:
        >>> from pyg_peft.datasets import UpRotate
        >>> UpRotate("y")
        UpRotate(axis='y')
    """

    def __init__(self, axis: str = "z") -> None:
        if not isinstance(axis, str) or axis not in _AXES:
            raise ValueError(f"Expected 'axis' to be one of {list(_AXES)} (got {axis!r})")
        self.axis = axis

    def __call__(self, data: Data, generator: Generator | None = None) -> Data:
        return self.forward(copy.copy(data), generator)

    def forward(self, data: Data, generator: Generator | None = None) -> Data:
        pos = checked_pos(data)
        _check_generator(generator)
        angle = 2 * math.pi * float(torch.rand((), generator=generator, dtype=torch.float64))
        first, second = (_AXES[self.axis] + 1) % 3, (_AXES[self.axis] + 2) % 3
        matrix = torch.eye(3, dtype=torch.float64)
        matrix[first, first] = matrix[second, second] = math.cos(angle)
        matrix[second, first] = math.sin(angle)
        matrix[first, second] = -math.sin(angle)
        turn = matrix.to(pos).t()
        data.pos = pos @ turn
        if data.get("normal") is not None:
            data.normal = data.normal @ turn.to(data.normal)
        return data

    def __repr__(self) -> str:
        return f"{type(self).__name__}(axis={self.axis!r})"


def checked_pos(data: Data) -> Tensor:
    """Return ``data.pos``, after a check of it and of the attributes per point."""
    if not isinstance(data, Data):
        raise TypeError(f"Expected 'data' to be Data (got {described(data)})")
    pos = data.pos
    if not isinstance(pos, Tensor):
        raise ValueError(f"Expected 'data' to have 'pos' (got the keys {data.keys()})")
    check_pos(pos)
    normal, seg = data.get("normal"), data.get("seg")
    if normal is not None:
        check_tensor(normal, "normal", shape=(pos.size(0), 3), kind="float")
    if seg is not None:
        check_tensor(seg, "seg", shape=(pos.size(0),), kind="int")
    return pos


def _check_generator(generator: Any) -> None:
    if generator is not None and not isinstance(generator, Generator):
        raise TypeError(
            f"Expected 'generator' to be a torch.Generator or None (got {described(generator)})"
        )


__all__ = ["Normalize", "Resample", "ScaleTranslate", "UpRotate", "point_keys", "select_points"]
