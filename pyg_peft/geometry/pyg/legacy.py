"""Replacement for ``torch_cluster``, as used by PyG 2.6 and 2.7, based on our searches."""

import torch
from torch import Tensor

from pyg_peft.geometry.layout import offsets
from pyg_peft.geometry.pyg.searches import pyg_fps, pyg_knn, pyg_nearest, pyg_radius
from pyg_peft.geometry.pyg.voxels import pyg_grid_cluster


def knn(
    x: Tensor,
    y: Tensor,
    k: int,
    batch_x: Tensor | None = None,
    batch_y: Tensor | None = None,
    cosine: bool = False,
    num_workers: int = 1,
    batch_size: int | None = None,
) -> Tensor:
    """Return the ``k`` nearest rows of ``x`` for each row of ``y``; row 0 holds rows of ``y``."""
    x, y = _columns(x), _columns(y)
    ptr_x, ptr_y = _ptr(batch_x, x, batch_size), _ptr(batch_y, y, batch_size)
    return pyg_knn(x, y, ptr_x, ptr_y, k, cosine, num_workers)


def knn_graph(
    x: Tensor,
    k: int,
    batch: Tensor | None = None,
    loop: bool = False,
    flow: str = "source_to_target",
    cosine: bool = False,
    num_workers: int = 1,
    batch_size: int | None = None,
) -> Tensor:
    """Return the edges from each row's ``k`` nearest rows to the row."""
    x = _columns(x)
    edge_index = knn(x, x, k if loop else k + 1, batch, batch, cosine, num_workers, batch_size)
    if not loop:
        edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    return _directed(edge_index, flow)


def radius(
    x: Tensor,
    y: Tensor,
    r: float,
    batch_x: Tensor | None = None,
    batch_y: Tensor | None = None,
    max_num_neighbors: int = 32,
    num_workers: int = 1,
    batch_size: int | None = None,
    ignore_same_index: bool = False,
) -> Tensor:
    """Return rows of ``x`` closer than ``r`` to each row of ``y``; row 0 holds rows of ``y``."""
    x, y = _columns(x), _columns(y)
    ptr_x, ptr_y = _ptr(batch_x, x, batch_size), _ptr(batch_y, y, batch_size)
    return pyg_radius(x, y, ptr_x, ptr_y, r, max_num_neighbors, num_workers, ignore_same_index)


def radius_graph(
    x: Tensor,
    r: float,
    batch: Tensor | None = None,
    loop: bool = False,
    max_num_neighbors: int = 32,
    flow: str = "source_to_target",
    num_workers: int = 1,
    batch_size: int | None = None,
) -> Tensor:
    """Return the edges to each row from the rows less than ``r`` away."""
    x = _columns(x)
    edge_index = radius(x, x, r, batch, batch, max_num_neighbors, num_workers, batch_size, not loop)
    return _directed(edge_index, flow)


def nearest(
    x: Tensor, y: Tensor, batch_x: Tensor | None = None, batch_y: Tensor | None = None
) -> Tensor:
    """Return the row of ``y`` nearest to each row of ``x``."""
    x, y = _columns(x), _columns(y)
    if (batch_x is None) != (batch_y is None):
        known = batch_x if batch_y is None else batch_y
        assert known is not None  # for the type checker: exactly one is missing
        batch_x = known.new_zeros(x.size(0)) if batch_x is None else batch_x
        batch_y = known.new_zeros(y.size(0)) if batch_y is None else batch_y
    return pyg_nearest(x, y, _ptr(batch_x, x, None), _ptr(batch_y, y, None))


def fps(
    src: Tensor,
    batch: Tensor | None = None,
    ratio: float | None = None,
    random_start: bool = True,
    batch_size: int | None = None,
) -> Tensor:
    """Return the share ``ratio`` of each cloud's rows, each far from the rows picked before."""
    src = _columns(src)
    ptr = offsets(batch, src.size(0), batch_size, device=src.device)
    return pyg_fps(src, ptr, 0.5 if ratio is None else ratio, random_start)


def grid_cluster(
    pos: Tensor, size: Tensor, start: Tensor | None = None, end: Tensor | None = None
) -> Tensor:
    """Return the number of each row's cell in a grid of cells with the sides ``size``."""
    return pyg_grid_cluster(pos, size, start, end)


def _ptr(batch: Tensor | None, x: Tensor, batch_size: int | None) -> Tensor | None:
    return None if batch is None else offsets(batch.to(x.device), x.size(0), batch_size)


def _columns(x: Tensor) -> Tensor:
    return x.view(-1, 1) if x.dim() == 1 else x.flatten(1)


def _directed(edge_index: Tensor, flow: str) -> Tensor:
    if flow not in ("source_to_target", "target_to_source"):
        raise ValueError(
            f"Expected 'flow' to be 'source_to_target' or 'target_to_source' (got {flow!r})"
        )
    return torch.flip(edge_index, [0]) if flow == "source_to_target" else edge_index


__all__ = ["fps", "grid_cluster", "knn", "knn_graph", "nearest", "radius", "radius_graph"]
