"""Samplers for farthest point sampling: a dense loop for any device, and a faster library.

A sampler takes a :class:`Sampling` and returns rows of ``pos`` ``[B, num_samples]``, -1 where a
cloud has fewer points. Among equally far points all samplers prefer the same one.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pyg_peft.geometry.layout import dense_rows, is_exporting, largest_count
from pyg_peft.geometry.ordering import squared_distance
from pyg_peft.geometry.search.exported import exported_picks

if TYPE_CHECKING:
    import numpy as np

#: Maximum number of threads per block of the common CUDA sampler, as a power of two.
_THREAD_BITS = 9


@dataclass(frozen=True)
class Sampling:
    """Input of a sampler: detached floating-point points, and where to start."""

    pos: Tensor  # [N, 3], not empty
    num_samples: int
    ptr: Tensor  # [B + 1], at least one cloud
    start: Tensor  # [B], rows of pos; meaningless for an empty cloud
    candidates: Tensor | None = None  # [N], Boolean
    ties: Literal["authors", "lowest"] = "authors"  # which of equally far points is preferred


def sample_dense(sampling: Sampling) -> Tensor:
    """Sample in a loop over picks, for all clouds at once, on any device."""
    pos, ptr = sampling.pos, sampling.ptr
    compiling = torch.compiler.is_compiling()
    largest = largest_count(ptr, pos.size(0))
    rows, real = dense_rows(ptr, largest)
    if sampling.ties == "authors":
        # Points are in order of preference, so that the first maximum is the preferred one.
        order = tie_order(ptr.diff(), largest)
        rows, real = rows.gather(1, order), real.gather(1, order)
    allowed = real if sampling.candidates is None else real & sampling.candidates[rows]
    points = pos[rows]  # [B, n, 3]
    is_start = (rows == sampling.start.unsqueeze(1)) & real
    # Points that are not candidates stay at -1 and are never the maximum. Without any candidate,
    # the start is picked again.
    allowed = allowed | (is_start & ~allowed.any(dim=1, keepdim=True))
    distance = points.new_full(rows.shape, torch.inf).masked_fill(~allowed, -1)
    pick = is_start.long().argmax(dim=1, keepdim=True)
    if is_exporting():
        picks = rows.gather(1, exported_picks(points, distance, pick, sampling.num_samples))
        return _hide_excess(picks, ptr)
    picks = [pick]
    # No more points than the largest cloud has can be picked. A compiled graph may not know this
    # number; its excess picks are masked below.
    width = sampling.num_samples if compiling else min(sampling.num_samples, max(largest, 1))
    for _ in range(width - 1):
        last = points.gather(1, pick.unsqueeze(-1).expand(-1, -1, points.size(2)))
        distance = torch.minimum(distance, squared_distance(points, last))
        pick = distance.argmax(dim=1, keepdim=True)
        picks.append(pick)
    picks = rows.gather(1, torch.cat(picks, dim=1))
    return _hide_excess(F.pad(picks, (0, sampling.num_samples - width), value=-1), ptr)


def tie_order(count: Tensor, largest: int) -> Tensor:
    """Return the order in which the CUDA sampler prefers equally far points ``[B, largest]``.

    A cloud of ``n`` points is distributed over ``S = min(512, 2**floor(log2(n)))`` threads, point
    ``i`` to thread ``i % S``. Within a thread the lower point wins. The reduction between threads
    prefers the thread whose number is lower when its bits are reversed. The first point precedes
    all others.
    """
    cell = torch.arange(largest, device=count.device).expand(count.numel(), -1)
    powers = 2 ** torch.arange(1, _THREAD_BITS + 1, device=count.device)
    bits = (count.unsqueeze(1) >= powers).sum(dim=1, keepdim=True)
    thread = cell % 2**bits
    reverse = torch.zeros_like(thread)
    for _ in range(_THREAD_BITS):
        reverse, thread = reverse * 2 + thread % 2, thread // 2
    reverse = reverse // 2 ** (_THREAD_BITS - bits)
    # Cells without a point go last; a stable sort keeps the lower point of a thread first.
    key = reverse.masked_fill(cell >= count.unsqueeze(1), 2**_THREAD_BITS)
    return key.argsort(dim=1, stable=True)


@lru_cache(maxsize=256)
def _preference(count: int, ties: str) -> "np.ndarray":
    """Return the order of preference among ``count`` equally far points."""
    if ties == "lowest":
        return torch.arange(count).numpy()
    return tie_order(torch.tensor([count]), count)[0].numpy()


def _ranked(sampling: Sampling, cloud: int) -> "tuple[np.ndarray, np.ndarray]":
    """Return the candidates of a cloud, the preferred first, and whether each is the start."""
    begin, end = sampling.ptr[cloud : cloud + 2].tolist()
    rows = _preference(end - begin, sampling.ties) + begin
    if sampling.candidates is not None:
        rows = rows[sampling.candidates.numpy()[rows]]
    return rows, rows == int(sampling.start[cloud])


def sample_fpsample(sampling: Sampling) -> Tensor:
    """Sample with ``fpsample``, one cloud after another.

    The library has no batched call. A call takes about 1 ms, so the loop over clouds costs nothing.
    Its bucketed variants are even faster, but start at another point than the given one (1.0.2).
    The library keeps the last of equally far points, so the preferred points are passed last.
    """
    import fpsample
    import numpy as np

    if sampling.pos.dtype != torch.float32:
        raise TypeError(
            "Expected 'pos' to be float32 for the backend 'fpsample', which computes in it "
            f"(got {sampling.pos.dtype})"
        )
    pos, ptr = sampling.pos.numpy(), sampling.ptr.tolist()
    picks = np.full((len(ptr) - 1, sampling.num_samples), -1, dtype=np.int64)
    for cloud in range(len(ptr) - 1):
        if ptr[cloud] == ptr[cloud + 1]:
            continue
        rows, is_start = _ranked(sampling, cloud)
        # Without any candidate, all further picks are the start.
        repeated = rows[0] if len(rows) > 0 else int(sampling.start[cloud])
        rows, is_start = rows[::-1], is_start[::-1]
        if not is_start.any():
            # A start that is not a candidate has the lowest preference.
            rows = np.concatenate([[int(sampling.start[cloud])], rows])
            is_start = np.arange(len(rows)) == 0
        width = min(sampling.num_samples, len(rows))
        points = np.ascontiguousarray(pos[rows])
        found = fpsample.fps_sampling(points, width, start_idx=int(is_start.argmax()))
        picks[cloud, :width] = rows[found.astype(np.int64)]
        picks[cloud, width:] = repeated
    return _hide_excess(torch.from_numpy(picks), sampling.ptr)


def _hide_excess(picks: Tensor, ptr: Tensor) -> Tensor:
    place = torch.arange(picks.size(1), device=picks.device)
    return picks.masked_fill(place >= ptr.diff().unsqueeze(1), -1)


__all__ = ["Sampling", "sample_dense", "sample_fpsample", "tie_order"]
