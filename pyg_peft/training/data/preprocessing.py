"""What happens to a cloud before a model sees it; a saved adapter carries it along."""

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
from pyg_peft.datasets.transforms import Normalize, select_points
from pyg_peft.errors import check_count, check_flag

_UP_AXES = ("x", "y", "z")


@dataclass(frozen=True)
class Preprocessing:
    """Turn z up, draw points, centre and scale.

    Args:
        num_points: points drawn from larger clouds, and from the faces of meshes; smaller clouds
            keep all of theirs, nothing is repeated. ``None`` keeps every point.
        normalize: move the mean to the origin and scale into the unit sphere.
        up_axis: the axis that points up in the data; the model sees z up.

    Raises:
        TypeError: a setting is of another type.
        ValueError: ``num_points`` is not positive or ``up_axis`` is not an axis.
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
        """JSON-able values for the adapter's folder."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The settings in ``values``; entries that belong to others are left alone."""
        names = {entry.name for entry in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})

    def training(self, augmentation: Callable[[Any], Any] | None = None) -> Compose:
        """With another draw of the points each time, and then ``augmentation``."""
        return Compose([*self._steps(), *([augmentation] if augmentation is not None else [])])

    def evaluation(self) -> "FixedDraw":
        """With the same draw each time, whatever the cloud's place in a data set."""
        return FixedDraw(Compose(self._steps()))

    def _steps(self) -> list[Callable[..., Any]]:
        steps: list[Callable[..., Any]] = [_TurnUp(self.up_axis)] if self.up_axis != "z" else []
        steps.append(_DrawPoints(self.num_points))
        return [*steps, Normalize()] if self.normalize else steps


class FixedDraw(BaseTransform):
    """Apply a transform with draws that are the same for every cloud and every call.

    Evaluation then depends on the cloud alone: the same file gives the same logits in a test set
    and by itself.

    Args:
        transform: any transform.
    """

    def __init__(self, transform: Callable[..., Any]) -> None:
        self.transform = transform

    def forward(self, data: Data) -> Data:
        return apply_keyed(self.transform, data, keyed_generator("evaluation"))


class _TurnUp(BaseTransform):
    """Turn the axis ``up`` into z, with the cyclic order of the axes kept (a rotation)."""

    def __init__(self, up: str) -> None:
        self.shift = 2 - _UP_AXES.index(up)

    def forward(self, data: Data) -> Data:
        for key in ("pos", "normal"):
            if data.get(key) is not None:
                data[key] = data[key].roll(self.shift, dims=1)
        return data


class _DrawPoints(BaseTransform):
    """At most ``num_points`` random points, from the faces where the item is a mesh."""

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
