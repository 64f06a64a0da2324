"""Farthest point sampling: well-spread points of each cloud."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pyg_peft.errors import check_count, check_mask, check_pos, check_tensor
from pyg_peft.geometry.layout import (
    count_clouds,
    dense_rows,
    is_exporting,
    largest_count,
    offsets,
)
from pyg_peft.geometry.ordering import check_squarable, squared_distance
from pyg_peft.geometry.search.backends import chosen_backend
from pyg_peft.geometry.search.compiled_samplers import sample_pyg_lib, sample_torch_cluster
from pyg_peft.geometry.search.samplers import Sampling, sample_dense, sample_fpsample
from pyg_peft.typing import Batch, Pos

_SAMPLERS: dict[str, Callable[[Sampling], Tensor]] = {
    "dense": sample_dense,
    "fpsample": sample_fpsample,
    "pyg_lib": sample_pyg_lib,
    "torch_cluster": sample_torch_cluster,
}

#: Squared norm up to which the common CUDA sampler never picks a point.
NEAR_ORIGIN = 1e-3

_FIXED_POINT = 2**22  # of a coordinate in [-2, 2), as fine as single precision


def farthest_point_sample(
    pos: Pos,
    num_samples: int,
    batch: Batch | None = None,
    *,
    start: Tensor | None = None,
    candidates: Tensor | None = None,
    batch_size: int | None = None,
) -> Tensor:
    r"""Sample points of each cloud, each as far as possible from those picked before.

    Args:
        pos: Points.
        num_samples: Number of picks per cloud.
        batch: Sorted cloud id of each point; ``None`` for one cloud.
        start: Row of ``pos`` that is picked first, one per cloud ``[B]``. The default is the point
            farthest from the centroid of the cloud (the lowest row among equals), which does not
            depend on the order of the points.
        candidates: Boolean ``[N]``; points where it is false are never picked, except as ``start``.
            If no candidate is left at a distance, a candidate is picked again, or ``start`` if a
            cloud has none.
        batch_size: Number of clouds. Required if trailing clouds may be empty and under
            ``torch.compile``.

    Shapes:
        pos ``(N, 3)``; output ``(B, num_samples)`` rows of ``pos``, -1 in the last places of a
        cloud with fewer points than ``num_samples``.

    Symmetries:
        With the default start permutation equivariant and invariant under rotation, reflection and
        translation, except at exact ties. Not differentiable: indices.

    Raises:
        TypeError: If positions are integers.
        ValueError: If positions contain NaN or are beyond the limit of :func:`knn`, a shape is
            wrong, a batch is not sorted, ``num_samples < 1``, or a ``start`` belongs to another
            cloud.

    Differences:
        None to the CUDA sampler with :func:`authors_convention`, ties included; but
        ``torch_cluster`` and ``pyg_lib`` may pick another of several exactly equally far points.

    Example:
        >>> pos = torch.tensor([[0.0, 0, 0], [1, 0, 0], [5, 0, 0], [4, 0, 0]])
        >>> farthest_point_sample(pos, 3).tolist()
        [[0, 2, 1]]
    """
    check_squarable(pos)
    num_samples = check_count(num_samples, "num_samples")
    if candidates is not None:
        check_mask(candidates, "candidates", pos.size(0), device=pos.device)
    size = count_clouds(batch, batch_size)
    ptr = offsets(batch, pos.size(0), size, device=pos.device)
    pos = pos.detach()
    pos = pos if pos.dtype in (torch.float32, torch.float64) else pos.float()
    if start is not None:
        _check_start(start, ptr)
    if size == 0 or pos.size(0) == 0:
        return ptr.new_full((size, num_samples), -1)
    if start is None:
        start = canonical_start(pos, ptr)
    return sample(Sampling(pos, num_samples, ptr, start.long(), candidates))


def sample(sampling: Sampling) -> Tensor:
    """Sample with the current backend."""
    # Other libraries read the memory of tensors and may ignore strides.
    sampling = replace(sampling, pos=sampling.pos.contiguous())
    return _SAMPLERS[chosen_backend("fps", sampling.pos)](sampling)


def canonical_start(pos: Tensor, ptr: Tensor) -> Tensor:
    """Return the row of each cloud's point farthest from its centroid, the lowest if tied."""
    rows, real = dense_rows(ptr, largest_count(ptr, pos.size(0)))
    # Positions relative to a point of the cloud keep their digits far from the origin.
    local = (pos[rows] - pos[rows[:, :1]]).masked_fill(~real.unsqueeze(-1), 0)
    # Dividing by a power of two keeps the digits of clouds of any size.
    unit = _power_of_two(local.abs().amax(dim=(1, 2), keepdim=True))
    local = local / unit  # in (-2, 2)
    # Ties must be broken alike in every batch, however much padding a cloud gets. The sum must
    # therefore not round, and is computed in integers.
    total = (local * _FIXED_POINT).round().long().sum(dim=1, keepdim=True).to(pos.dtype)
    centroid = total / (_FIXED_POINT * real.sum(dim=1).clamp(min=1).view(-1, 1, 1))
    distance = squared_distance(local, centroid).masked_fill(~real, -1)
    return rows.gather(1, distance.argmax(dim=1, keepdim=True)).squeeze(1)


def _power_of_two(size: Tensor) -> Tensor:
    """Return the largest power of two up to each number, at least the smallest normal number."""
    tiny = torch.finfo(size.dtype).tiny
    if is_exporting():  # ONNX has no frexp
        unit = torch.exp2(torch.log2(size.clamp(min=tiny)).floor())
        unit = torch.where(unit > size, unit / 2, unit)  # a logarithm may round up to an integer,
        return torch.where(2 * unit <= size, 2 * unit, unit).clamp(min=tiny)  # or down from one
    _, exponent = torch.frexp(size)
    return torch.exp2((exponent - 1).to(size.dtype)).clamp(min=tiny)


def authors_convention(
    pos: Pos, batch: Batch | None = None, *, batch_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return the ``start`` and ``candidates`` of the published point-cloud transformers.

    They start at the first point of a cloud and never pick points near the origin, whose squared
    norm in float32 is at most ``1e-3``.

    Args:
        pos: Points.
        batch: Sorted cloud id of each point; ``None`` for one cloud.
        batch_size: Number of clouds.

    Shapes: pos ``(N, 3)``; output ``(B,)`` rows of ``pos``, and Boolean ``(N,)``.

    Symmetries: none: the start depends on the order of the points, the candidates on the origin.

    Example:
        >>> start, candidates = authors_convention(torch.tensor([[0.0, 0, 0], [1, 0, 0]]))
        >>> start.tolist(), candidates.tolist()
        ([0], [False, True])
    """
    check_pos(pos)
    ptr = offsets(batch, pos.size(0), batch_size, device=pos.device)
    norm = squared_distance(pos.detach().float(), pos.new_zeros(3, dtype=torch.float32))
    return ptr[:-1].clamp(max=max(pos.size(0) - 1, 0)), norm > NEAR_ORIGIN


def _check_start(start: Tensor, ptr: Tensor) -> None:
    check_tensor(start, "start", device=ptr.device)
    if start.shape != ptr[:-1].shape or start.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"Expected 'start' to be {ptr.numel() - 1} row numbers, one per cloud "
            f"(got {start.dtype}, {list(start.shape)})"
        )
    if torch.compiler.is_compiling():
        return
    outside = ((start < ptr[:-1]) | (start >= ptr[1:])) & (ptr.diff() > 0)
    if bool(outside.any()):
        cloud = int(outside.nonzero()[0])
        raise ValueError(
            f"Expected 'start' to lie in its cloud: rows {int(ptr[cloud])} to "
            f"{int(ptr[cloud + 1]) - 1} for cloud {cloud} (got {int(start[cloud])})"
        )


__all__ = ["NEAR_ORIGIN", "authors_convention", "canonical_start", "farthest_point_sample"]
