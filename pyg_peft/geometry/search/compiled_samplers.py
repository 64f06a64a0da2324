"""Farthest point sampling with the compiled libraries ``torch_cluster`` and ``pyg-lib``.

Both libraries sample a ratio of each cloud and start at its first point. Each cloud is therefore
passed with its start first and without the points that must not be picked.
"""

import torch
from torch import Tensor

from pyg_peft.geometry.layout import dense_rows, to_flat
from pyg_peft.geometry.search.samplers import Sampling, tie_order


def sample_torch_cluster(sampling: Sampling) -> Tensor:
    """Sample with ``torch_cluster``."""
    import torch_cluster  # pyright: ignore[reportMissingImports]

    rows, batch, count = _handed_over(sampling)
    ratio = (sampling.num_samples / count.double()).clamp(max=1).to(sampling.pos.dtype)
    index = torch_cluster.fps(
        sampling.pos[rows], batch, ratio, random_start=False, batch_size=count.numel()
    )
    return _to_picks(sampling, rows[index], batch[index])


def sample_pyg_lib(sampling: Sampling) -> Tensor:
    """Sample with ``pyg-lib``.

    It takes one ratio for all clouds. The ratio of the smallest cloud is used, and excess picks are
    dropped.
    """
    import pyg_lib  # pyright: ignore[reportMissingImports]

    rows, batch, count = _handed_over(sampling)
    ptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
    ratio = min(1.0, sampling.num_samples / int(count.min()))
    index = pyg_lib.ops.fps(sampling.pos[rows], ptr, ratio, False)
    return _to_picks(sampling, rows[index], batch[index])


def _handed_over(sampling: Sampling) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows, the index of each row's cloud among the non-empty clouds, and their counts."""
    ptr = sampling.ptr
    rows, real = dense_rows(ptr, int(ptr.diff().max()))
    if sampling.ties == "authors":
        order = tie_order(ptr.diff(), rows.size(1))
        rows, real = rows.gather(1, order), real.gather(1, order)
    is_start = real & (rows == sampling.start.unsqueeze(1))
    kept = real if sampling.candidates is None else real & sampling.candidates[rows] | is_start
    order = (2 - kept.long() - is_start.long()).argsort(dim=1, stable=True)
    filled = kept.any(dim=1)
    rows, kept = rows.gather(1, order)[filled], kept.gather(1, order)[filled]
    flat, batch = to_flat(rows, kept)
    return flat, batch, kept.sum(dim=1)


def _to_picks(sampling: Sampling, rows: Tensor, batch: Tensor) -> Tensor:
    """Return the dense table of picks that are given cloud by cloud."""
    ptr = sampling.ptr
    clouds = (ptr.diff() > 0).nonzero().squeeze(1)
    count = torch.bincount(batch, minlength=clouds.numel())
    # A cloud without further candidates repeats its last pick.
    place = torch.arange(sampling.num_samples, device=ptr.device).expand(clouds.numel(), -1)
    place = torch.minimum(place, count.unsqueeze(1) - 1) + (count.cumsum(0) - count).unsqueeze(1)
    picks = ptr.new_full((ptr.numel() - 1, sampling.num_samples), -1)
    picks[clouds] = rows[place]
    excess = torch.arange(sampling.num_samples, device=ptr.device) >= ptr.diff().unsqueeze(1)
    return picks.masked_fill(excess, -1)


__all__ = ["sample_pyg_lib", "sample_torch_cluster"]
