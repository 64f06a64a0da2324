"""Input checks that all backbones on flat clouds share."""

from typing import NamedTuple

import torch
from torch import Tensor

from pyg_peft.errors import (
    check_batch,
    check_channels,
    check_count,
    check_dtype,
    check_finite,
    check_pos,
    check_tensor,
)
from pyg_peft.geometry.layout import count_clouds


class FlatClouds(NamedTuple):
    """A checked batch in the flat layout.

    Args:
        x: Features ``[N, in_channels]``, or ``None`` for ``in_channels=0``.
        pos: Positions ``[N, 3]``.
        batch: Sorted cloud ids ``[N]``, also for a single cloud.
        batch_size: Number of clouds ``B``, including empty ones.
    """

    x: Tensor | None
    pos: Tensor
    batch: Tensor
    batch_size: int

    @property
    def points(self) -> Tensor:
        """Positions and features concatenated, ``[N, 3 + in_channels]``."""
        return self.pos if self.x is None else torch.cat([self.pos, self.x], dim=1)


def flat_input(
    x: Tensor | None,
    pos: Tensor | None,
    batch: Tensor | None,
    batch_size: int | None,
    *,
    in_channels: int,
    like: Tensor,
) -> FlatClouds:
    """Check the arguments of a call and convert them to the precision of the weights.

    Args:
        x: Features, or ``None``.
        pos: Positions.
        batch: Sorted cloud ids; ``None`` for one cloud.
        batch_size: Number of clouds, if trailing ones may be empty.
        in_channels: Number of channels of ``x``; 0 if ``x`` must be ``None``.
        like: A weight with the precision and device of the model.

    Raises:
        TypeError: If positions, features or ids are not tensors, or have the wrong type.
        ValueError: If an argument is missing, has the wrong shape, is not finite or not sorted, or
            is on another device than the weights.
    """
    if pos is None:
        raise ValueError("Expected 'pos' to be given (got None)")
    check_tensor(pos, "pos", shape=("N", 3), kind="float", values=False)
    if pos.device != like.device:
        raise ValueError(
            f"Expected 'pos' to be on the device of the weights, {like.device} (got {pos.device})"
        )
    check_pos(pos)
    if batch_size is not None:
        batch_size = check_count(batch_size, "batch_size", least=0)
    check_batch(batch, pos.size(0), batch_size, device=pos.device)
    if x is None:
        if in_channels:
            raise ValueError(f"Expected 'x' to have {in_channels} channels (got None)")
    else:
        check_tensor(x, "x", kind="float", device=pos.device)
        if in_channels == 0:
            raise ValueError(
                "Expected 'x' to be None for a backbone with in_channels=0 "
                f"(got {x.size(-1)} channels)"
            )
        check_channels(x, in_channels)
        if x.dim() != 2 or x.size(0) != pos.size(0):
            raise ValueError(f"Expected 'x' to have {pos.size(0)} rows (got {list(x.shape)})")
        check_finite(x, "x")
        x = x.to(like.dtype)
    size = count_clouds(batch, batch_size)
    if batch is None:
        batch = torch.zeros(pos.size(0), dtype=torch.long, device=pos.device)
    return FlatClouds(x, pos.to(like.dtype), batch.long(), size)


def check_level(
    x: Tensor | None,
    pos: Tensor,
    batch: Tensor,
    *,
    in_channels: int,
    like: Tensor,
    prefix: str = "",
) -> None:
    """Check the inputs of a level that is called on its own.

    Only shapes, dtypes and devices are checked: a backbone has already checked the values.

    Args:
        x: Features; ``None`` if ``in_channels`` is 0.
        pos: Positions, in the precision of the weights.
        batch: Cloud ids.
        in_channels: Number of channels of ``x``.
        like: A weight of the level.
        prefix: Prefix of the arguments' names in error messages.
    """
    check_tensor(pos, f"{prefix}pos", shape=("N", 3))
    check_dtype(pos, like, f"{prefix}pos")
    check_tensor(batch, f"{prefix}batch", shape=pos.shape[:1], kind="int", device=pos.device)
    if x is None and in_channels == 0:
        return
    x = check_tensor(x, f"{prefix}x", shape=(pos.size(0), in_channels), device=pos.device)
    check_dtype(x, like, f"{prefix}x")


def check_clouds(pos: Tensor, batch: Tensor, batch_size: int | None) -> int:
    """Return the number of clouds of a level that is called on its own; raise if values are wrong.

    A search for neighbors checks the values too. This check is for levels that may search for none,
    or only later.

    Args:
        pos: Positions.
        batch: Cloud ids.
        batch_size: Number of clouds, if trailing ones may be empty.
    """
    size = count_clouds(batch, batch_size)
    check_pos(pos)
    check_batch(batch, pos.size(0), size)
    return size


__all__ = ["FlatClouds", "check_clouds", "check_level", "flat_input"]
