"""Prepare clouds for a model; the settings are saved with an adapter."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import torch
from torch import Generator
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform, Compose, SamplePoints

from pyg_peft.datasets.augmented import apply_keyed
from pyg_peft.datasets.keyed import keyed_generator
from pyg_peft.datasets.transforms import Normalize, checked_pos, select_points
from pyg_peft.errors import check_count, check_flag

_UP_AXES = ("x", "y", "z")


@dataclass(frozen=True)
class Preprocessing:
    """Turn z up, sample points, center and scale.

    Args:
        num_points: Number of points to sample from larger clouds, and from the faces of meshes.
            Smaller clouds keep all of their points, and none is repeated. ``None`` keeps every
            point.
        normalize: Whether to move the mean to the origin and scale into the unit sphere.
        up_axis: The axis that points up in the data; the model gets z up.

    Raises:
        TypeError: If a setting has another type.
        ValueError: If ``num_points`` is not positive or ``up_axis`` is not an axis.
    """

    num_points: int | None = 1024
    normalize: bool = True
    up_axis: str = "z"

    def __post_init__(self) -> None:
        if self.num_points is not None:
            check_count(self.num_points, "num_points", least=1)
        check_flag(self.normalize, "normalize")
        if self.up_axis not in _UP_AXES:
            raise ValueError(f"Expected 'up_axis' to be one of {_UP_AXES} (got {self.up_axis!r})")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values for the adapter's folder."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Create the preprocessing from the settings in ``values``; other entries are ignored."""
        names = {entry.name for entry in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})

    def training(self, augmentation: Callable[[Any], Any] | None = None) -> Compose:
        """Return the transform for training: new random points each time, then ``augmentation``."""
        return Compose([*self._steps(), *([augmentation] if augmentation is not None else [])])

    def evaluation(self) -> "FixedDraw":
        """Return the transform for evaluation: the same random points for a cloud each time."""
        return FixedDraw(Compose(self._steps()))

    def _steps(self) -> list[Callable[..., Any]]:
        steps: list[Callable[..., Any]] = [_CheckPos()]
        if self.up_axis != "z":
            steps.append(_TurnUp(self.up_axis))
        steps.append(_DrawPoints(self.num_points))
        return [*steps, Normalize()] if self.normalize else steps


class FixedDraw(BaseTransform):
    """Apply a transform with the same random numbers for every cloud and every call.

    Evaluation then depends on the cloud alone, not on its place in a data set: the same file gives
    the same logits in a test set and by itself.

    Args:
        transform: Any transform.
    """

    def __init__(self, transform: Callable[..., Any]) -> None:
        self.transform = transform

    def forward(self, data: Data) -> Data:
        return apply_keyed(self.transform, data, keyed_generator("evaluation"))


class _CheckPos(BaseTransform):
    """Raise unless positions, normals and labels of points have the shapes of a cloud."""

    def forward(self, data: Data) -> Data:
        checked_pos(data)
        return data


class _TurnUp(BaseTransform):
    """Turn the axis ``up`` into z by a rotation that keeps the cyclic order of the axes."""

    def __init__(self, up: str) -> None:
        self.shift = 2 - _UP_AXES.index(up)

    def forward(self, data: Data) -> Data:
        for key in ("pos", "normal"):
            if data.get(key) is not None:
                data[key] = data[key].roll(self.shift, dims=1)
        return data


class _DrawPoints(BaseTransform):
    """Sample at most ``num_points`` random points, from the faces if the item is a mesh."""

    def __init__(self, num_points: int | None) -> None:
        self.num_points = num_points

    def __call__(self, data: Data, generator: Generator | None = None) -> Data:
        return self.forward(copy.copy(data), generator)

    def forward(self, data: Data, generator: Generator | None = None) -> Data:
        if data.get("face") is not None:
            if self.num_points is None:
                raise ValueError(
                    "Expected 'num_points' to say how many points to draw from a mesh (got None)"
                )
            source = generator or torch.default_generator
            return apply_keyed(SamplePoints(self.num_points), data, source)
        size = int(data.num_nodes or 0)
        if self.num_points is None or size <= self.num_points:
            return data
        return select_points(data, torch.randperm(size, generator=generator)[: self.num_points])


__all__ = ["FixedDraw", "Preprocessing"]
