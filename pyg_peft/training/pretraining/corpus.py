"""Provide unlabeled clouds for masked pre-training, each in a random view keyed by sample."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from pyg_peft.datasets import ProceduralStream
from pyg_peft.datasets.keyed import keyed_generator
from pyg_peft.errors import check_count, check_number, check_pos


@dataclass(frozen=True)
class ViewOptions:
    """Settings of the random view of a cloud, drawn each time that it is read.

    Args:
        num_points: Number of points to sample without repetition. Smaller clouds keep all of their
            points.
        turn_degrees: The turn about the vertical is uniform in plus or minus this angle. Use 180 to
            ignore the direction of the front, and 0 if all shapes face the same way.
        tip_probability: Probability of a random quarter-turn that puts another axis up. Use 0 if
            all shapes have the same axis up.
        tilt_degrees: Standard deviation of a small tilt out of the horizontal.
        scale_low, scale_high: Range of the random scale per axis.
        shift: Largest shift per axis.

    Raises:
        TypeError: If a setting has another type.
        ValueError: If a setting is out of its range.
    """

    num_points: int = 1024
    turn_degrees: float = 180.0
    tip_probability: float = 0.25
    tilt_degrees: float = 8.0
    scale_low: float = 2 / 3
    scale_high: float = 3 / 2
    shift: float = 0.2

    def __post_init__(self) -> None:
        check_count(self.num_points, "num_points")
        for entry in fields(self)[1:]:
            check_number(getattr(self, entry.name), entry.name)
        if not 0.0 <= self.turn_degrees <= 180.0:
            raise ValueError(
                f"Expected 'turn_degrees' to lie in [0, 180] (got {self.turn_degrees})"
            )
        if not 0.0 <= self.tip_probability <= 1.0:
            raise ValueError(
                f"Expected 'tip_probability' to lie in [0, 1] (got {self.tip_probability})"
            )
        if not 0.0 < self.scale_low <= self.scale_high < math.inf:
            raise ValueError(
                "Expected 'scale_low' to lie in (0, scale_high] and 'scale_high' to be finite "
                f"(got {self.scale_low} and {self.scale_high})"
            )
        for name in ("tilt_degrees", "shift"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"Expected '{name}' to be finite and non-negative (got {getattr(self, name)})"
                )


class Corpus:
    """Holds clouds without labels: some are kept in memory, others are generated in each epoch.

    Args:
        clouds: Tensors ``[n, 3]`` of any sizes. Empty clouds raise, because there is nothing to
            mask.
        streams: Streams, each with its number of shapes per epoch. Shapes are generated when they
            are read, from the stream's ``start`` on, and none of a stream occurs twice.

    Raises:
        TypeError: If a cloud does not hold floating-point numbers.
        ValueError: If there are neither clouds nor streams, a cloud is empty or not finite, or a
            stream has no shapes.
    """

    def __init__(
        self, clouds: Iterable[Tensor], streams: Iterable[tuple[ProceduralStream, int]] = ()
    ) -> None:
        self.clouds = list(clouds)
        self.streams = list(streams)
        if any(count < 1 for _, count in self.streams):
            raise ValueError("Expected 'streams' to have shapes in each epoch (got none of one)")
        if not self.clouds and not self.streams:
            raise ValueError("Expected 'clouds' to hold at least one cloud (got none)")
        for number, cloud in enumerate(self.clouds):
            if not isinstance(cloud, Tensor):
                raise TypeError(
                    f"Expected 'clouds[{number}]' to be a tensor (got {type(cloud).__name__})"
                )
            check_pos(cloud, f"clouds[{number}]")
            if cloud.size(0) == 0:
                raise ValueError(f"Expected 'clouds[{number}]' to hold points (got an empty cloud)")
        self.clouds = [cloud.float() for cloud in self.clouds]

    def __len__(self) -> int:
        """Return the number of clouds of an epoch."""
        return len(self.clouds) + sum(count for _, count in self.streams)

    def cloud(self, row: int, epoch: int) -> Tensor:
        """Return the cloud ``[n, 3]`` of one row: first those in memory, then each stream's."""
        start = len(self.clouds)
        if 0 <= row < start:
            return self.clouds[row]
        for stream, count in self.streams:
            if start <= row < start + count:
                return _shape(stream, epoch * count + row - start)
            start += count
        raise IndexError(f"Expected 'row' to lie in [0, {len(self) - 1}] (got {row})")

    def identity(self) -> dict[str, Any]:
        """Return values that identify this corpus: sizes of its clouds, and means of positions.

        Later rows have larger weights, so that the order matters. Means are rounded, because
        generated shapes differ in their last bits between machines. So a change of one cloud among
        thousands that keeps its size may go unnoticed. A stream is identified by its settings, and
        by its first shapes in case a later version generates them differently.
        """
        streams = {
            str(number): {
                "each_epoch": count,
                "settings": stream.settings,
                "first_shapes": Corpus(_shape(stream, n) for n in range(8)).identity(),
            }
            for number, (stream, count) in enumerate(self.streams)
        }
        found = self._of_memory() if self.clouds else {}
        return {**found, "streams": streams} if streams else found

    def _of_memory(self) -> dict[str, Any]:
        sizes = [cloud.size(0) for cloud in self.clouds]
        digest = hashlib.sha256(str(sizes).encode()).hexdigest()[:16]
        weight = torch.arange(1, len(sizes) + 1, dtype=torch.float64).unsqueeze(1) / len(sizes)
        reach = torch.stack([cloud.abs().mean(dim=0, dtype=torch.float64) for cloud in self.clouds])
        first = torch.stack([cloud[0].double() for cloud in self.clouds])
        means = {"reach": (weight * reach).mean(dim=0), "first": (weight * first).mean(dim=0)}
        rounded = {
            name: [round(value, 4) for value in mean.tolist()] for name, mean in means.items()
        }
        return {"clouds": len(sizes), "sizes": digest, **rounded}

    def order(self, seed: int, epoch: int) -> Tensor:
        """Return the shuffled rows of one epoch, a function of ``seed`` and ``epoch`` alone."""
        return torch.randperm(len(self), generator=keyed_generator(seed, "shuffle", epoch))

    def batch(
        self, rows: Sequence[int], views: ViewOptions, seed: int, epoch: int
    ) -> tuple[Tensor, Tensor]:
        """Return ``pos [N, 3]`` and ``batch [N]`` of the clouds ``rows``, in this epoch's views."""
        drawn = [
            random_view(self.cloud(row, epoch), views, keyed_generator(seed, "view", epoch, row))
            for row in rows
        ]
        sizes = torch.tensor([cloud.size(0) for cloud in drawn])
        return torch.cat(drawn), torch.repeat_interleave(torch.arange(len(drawn)), sizes)


def _shape(stream: ProceduralStream, number: int) -> Tensor:
    pos = stream.shape(stream.start + stream.step * number).pos
    assert pos is not None  # a stream's shapes have one
    return pos


def random_view(pos: Tensor, views: ViewOptions, generator: torch.Generator) -> Tensor:
    """Return random points of ``pos``, tipped, turned about z, tilted, scaled and shifted."""
    keep = torch.randperm(pos.size(0), generator=generator)[: views.num_points]
    turn = _turn_about(2, math.radians(views.turn_degrees) * (2 * _uniform(generator) - 1))
    if _uniform(generator) < views.tip_probability:
        axis = int(torch.randint(2, (1,), generator=generator))
        turn = turn @ _turn_about(axis, math.pi / 2 * float(1 + 2 * (_uniform(generator) < 0.5)))
    angle = math.radians(views.tilt_degrees) * torch.randn(2, generator=generator)
    turn = _turn_about(0, float(angle[0])) @ _turn_about(1, float(angle[1])) @ turn
    span = views.scale_high - views.scale_low
    scale = views.scale_low + span * torch.rand(3, generator=generator)
    shift = views.shift * (2 * torch.rand(3, generator=generator) - 1)
    return (pos[keep] @ turn.T) * scale + shift


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _turn_about(axis: int, angle: float) -> Tensor:
    """Return the matrix of a rotation about one coordinate axis."""
    cos, sin = math.cos(angle), math.sin(angle)
    first, second = [other for other in range(3) if other != axis]
    matrix = torch.eye(3)
    matrix[first, first], matrix[first, second] = cos, -sin
    matrix[second, first], matrix[second, second] = sin, cos
    return matrix


__all__ = ["Corpus", "ViewOptions", "random_view"]
