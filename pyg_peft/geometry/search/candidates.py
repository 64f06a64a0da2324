"""Search backends that propose ``k + 1`` candidates per query and bound their rounding error.

A backend takes a :class:`~pyg_peft.geometry.ordering.Search` and returns a
:class:`~pyg_peft.geometry.ordering.Proposal`. Packages are imported on first use.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pyg_peft.geometry.layout import dense_rows
from pyg_peft.geometry.ordering import (
    CHUNK_ELEMENTS,
    Proposal,
    Search,
    num_candidates,
    squared_distance,
)
from pyg_peft.geometry.search.backends import TREE_DIMENSIONS
from pyg_peft.geometry.search.nanoflann import nanoflann_candidates
from pyg_peft.geometry.search.tree import TREE_ULPS, scipy_candidates

Backend = Callable[[Search], Proposal]


def dense_candidates(search: Search) -> Proposal:
    """Compare every query with every point of its cloud, in chunks, on any device."""
    width, clouds = num_candidates(search), search.ptr.numel() - 1
    largest = int(search.ptr.diff().max())
    most = int(search.query_ptr.diff().max())
    members, real = dense_rows(search.ptr, largest)
    queries, asked = dense_rows(search.query_ptr, most)
    expand = search.pos.size(1) > TREE_DIMENSIONS
    origin = search.pos.mean(dim=0) if expand else 0
    pos, query = (search.pos - origin)[members], (search.query - origin)[queries]
    table = search.ptr.new_full((search.query.size(0), width), -1)
    chunk = max(1, CHUNK_ELEMENTS // max(1, clouds * largest))
    for begin in range(0, most, chunk):
        part = slice(begin, begin + chunk)
        if expand:
            distance = _expanded_distance(pos, query[:, part])
        else:
            distance = squared_distance(pos.unsqueeze(1), query[:, part].unsqueeze(2))
        # NaN sorts after infinity, which is a possible distance between far points.
        distance = distance.masked_fill_(~real.unsqueeze(1), torch.nan)
        cell = distance.topk(width, dim=-1, largest=False).indices
        found = members.unsqueeze(1).expand(distance.shape).gather(-1, cell)
        found = found.masked_fill(~real.unsqueeze(1).expand(distance.shape).gather(-1, cell), -1)
        table[queries[:, part][asked[:, part]]] = found[asked[:, part]]
    return Proposal(table, _expansion_error(pos, query) if expand else 0.0)


def _expanded_distance(pos: Tensor, query: Tensor) -> Tensor:
    """Return squared distances ``[B, M, N]`` from one matrix product, which is less exact."""
    norms = query.square().sum(-1, keepdim=True) + pos.square().sum(-1).unsqueeze(1)
    with torch.autocast(pos.device.type, enabled=False):  # would round to half precision
        return torch.baddbmm(norms, query, pos.transpose(1, 2), alpha=-2)


def _expansion_error(pos: Tensor, query: Tensor) -> float:
    norm = float(pos.square().sum(-1).max()) + float(query.square().sum(-1).max())
    return 2 * (pos.size(-1) + 8) * torch.finfo(pos.dtype).eps * norm


def torch_cluster_candidates(search: Search) -> Proposal:
    """Search with ``torch_cluster``."""
    import torch_cluster  # pyright: ignore[reportMissingImports]

    pos, query, slack = _normalized(search)
    batch = _cloud_of(search.ptr, pos.size(0))
    width = num_candidates(search)
    edge_index = torch_cluster.knn(
        pos, query, width, batch, search.query_cloud, batch_size=search.ptr.numel() - 1
    )
    return Proposal(_edges_to_table(edge_index, query.size(0), width), slack)


def pyg_lib_candidates(search: Search) -> Proposal:
    """Search with ``pyg-lib``."""
    import pyg_lib  # pyright: ignore[reportMissingImports]

    pos, query, slack = _normalized(search)
    width = num_candidates(search)
    edge_index = pyg_lib.ops.knn(pos, query, search.ptr, search.query_ptr, width)
    return Proposal(_edges_to_table(edge_index, query.size(0), width), slack)


def _normalized(search: Search) -> tuple[Tensor, Tensor, float]:
    """Return points and queries in float64, relative to a point of their cloud, in the unit cube.

    The trees of the libraries round in the dtype of their input. Their CUDA kernels drop neighbors
    that are more than 1e5 apart and support at most 100 neighbors per query.
    """
    if search.pos.is_cuda and num_candidates(search) > 100:
        raise ValueError(f"Expected 'k' to be below 100 for this backend on CUDA (got {search.k})")
    # An empty cloud uses a point of another cloud as its origin and has no neighbors anyway.
    origin = search.pos.double()[search.ptr[:-1].clamp(max=search.pos.size(0) - 1)]
    pos = search.pos.double() - origin[_cloud_of(search.ptr, search.pos.size(0))]
    query = search.query.double() - origin[search.query_cloud]
    extent = max(float(pos.abs().max()), float(query.abs().max()), 1e-30)
    eps = torch.finfo(torch.float64).eps
    # The product of huge floats is infinite, while a power would raise OverflowError.
    slack = TREE_ULPS * eps * pos.size(1) * (2 * extent) * (2 * extent)
    return pos / extent, query / extent, slack


def _cloud_of(ptr: Tensor, num_nodes: int) -> Tensor:
    cloud = torch.arange(ptr.numel() - 1, device=ptr.device)
    return cloud.repeat_interleave(ptr.diff(), output_size=num_nodes)


def _edges_to_table(edge_index: Tensor, num_queries: int, width: int) -> Tensor:
    """Return the neighbor table of edges with sorted receivers in row 0 and neighbors in row 1."""
    receiver, neighbor = edge_index[0], edge_index[1]
    table = neighbor.new_full((num_queries, width), -1)
    first = torch.searchsorted(
        receiver.contiguous(), torch.arange(num_queries, device=table.device)
    )
    place = torch.arange(receiver.numel(), device=table.device) - first[receiver]
    table[receiver, place] = neighbor
    return table


BACKENDS: dict[str, Backend] = {
    "dense": dense_candidates,
    "nanoflann": nanoflann_candidates,
    "pyg_lib": pyg_lib_candidates,
    "scipy": scipy_candidates,
    "torch_cluster": torch_cluster_candidates,
}

__all__ = ["BACKENDS"]
