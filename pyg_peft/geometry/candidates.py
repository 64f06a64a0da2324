"""What each search library is asked: ``k + 1`` candidates for each query, and how far it may err.

A backend takes a :class:`~pyg_peft.geometry.ordering.Search` and returns rows of ``pos`` ``[M, C]``
with ``C = k + 1`` (or ``k`` if no cloud has more points), -1 for none, and the absolute error of
its squared distances. Packages are imported on use.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from pyg_peft.geometry.backends import TREE_DIMENSIONS
from pyg_peft.geometry.layout import dense_rows
from pyg_peft.geometry.ordering import CHUNK_ELEMENTS, Search, squared_distance

Backend = Callable[[Search], tuple[Tensor, Tensor | float]]

#: A tree bounds a squared distance by adding to and subtracting from a sum of the size of the
#: squared extent: it errs by this many units in that sum's last place at most.
_TREE_ULPS = 64


def num_candidates(search: Search) -> int:
    """Return ``k + 1``, so that a tie at the last place shows, or fewer if no cloud has so many."""
    return min(search.k + 1, int(search.ptr.diff().max()))


def scipy_candidates(search: Search) -> tuple[Tensor, Tensor]:
    """Ask one :class:`scipy.spatial.cKDTree` per cloud, clouds shared among torch's threads.

    The loop over clouds is on purpose. Trees of one cloud each take two thirds of the time of one
    tree over all clouds with the cloud's number as a fourth coordinate, because they are shallow
    and a call costs 50 microseconds; a thread per cloud beats the library's own threads per call.
    Trees split at the midpoint build twice as fast as balanced ones.
    """
    import numpy as np
    from scipy.spatial import cKDTree  # pyright: ignore[reportAttributeAccessIssue]

    width = num_candidates(search)
    pos = search.pos.double().numpy()
    query = pos if search.query is search.pos else search.query.double().numpy()
    ptr, query_ptr = search.ptr.tolist(), search.query_ptr.tolist()
    # The bound keeps points on the sphere in spite of rounding.
    bound = np.inf if search.radius is None else search.radius * (1 + 1e-6) + 1e-30
    clouds = [
        b for b in range(len(ptr) - 1) if ptr[b] < ptr[b + 1] and query_ptr[b] < query_ptr[b + 1]
    ]
    threads = torch.get_num_threads()
    workers = threads if len(clouds) == 1 else 1
    table = np.full((query.shape[0], width), -1, dtype=np.int64)
    slack = np.zeros(query.shape[0])

    def search_cloud(cloud: int) -> None:
        begin, end = ptr[cloud], ptr[cloud + 1]
        rows = slice(query_ptr[cloud], query_ptr[cloud + 1])
        tree = cKDTree(pos[begin:end], leafsize=32, compact_nodes=False, balanced_tree=False)
        asked = query[rows]
        # Points that look for each other do so leaf by leaf, which keeps the leaf's surroundings
        # cached.
        order = tree.indices if query is pos else slice(None)
        width_here = min(width, end - begin)
        # One neighbour comes without the last axis; a list of ranks would keep it, and is slower.
        _, found = tree.query(asked[order], width_here, distance_upper_bound=bound, workers=workers)
        found = found.reshape(-1, width_here)
        found[found == end - begin] = -1 - begin
        table[rows, :width_here][order] = found + begin
        low = np.minimum(tree.mins, asked.min(axis=0))
        extent = np.maximum(tree.maxes, asked.max(axis=0)) - low
        slack[rows] = _TREE_ULPS * np.finfo(np.float64).eps * (extent * extent).sum()

    if threads > 1 and len(clouds) > 1:
        with ThreadPoolExecutor(min(threads, len(clouds))) as pool:
            list(pool.map(search_cloud, clouds))
    else:
        for cloud in clouds:
            search_cloud(cloud)
    return torch.from_numpy(table), torch.from_numpy(slack)


def dense_candidates(search: Search) -> tuple[Tensor, Tensor | float]:
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
        distance = distance.masked_fill_(~real.unsqueeze(1), torch.inf)
        cell = distance.topk(width, dim=-1, largest=False).indices
        found = members.unsqueeze(1).expand(distance.shape).gather(-1, cell)
        found = found.masked_fill(~real.unsqueeze(1).expand(distance.shape).gather(-1, cell), -1)
        table[queries[:, part][asked[:, part]]] = found[asked[:, part]]
    return table, _expansion_error(pos, query) if expand else 0.0


def _expanded_distance(pos: Tensor, query: Tensor) -> Tensor:
    """Squared distances ``[B, M, N]`` of features by one product of matrices, less exact."""
    norms = query.square().sum(-1, keepdim=True) + pos.square().sum(-1).unsqueeze(1)
    return torch.baddbmm(norms, query, pos.transpose(1, 2), alpha=-2)


def _expansion_error(pos: Tensor, query: Tensor) -> float:
    norm = float(pos.square().sum(-1).max()) + float(query.square().sum(-1).max())
    return 2 * (pos.size(-1) + 8) * torch.finfo(pos.dtype).eps * norm


def torch_cluster_candidates(search: Search) -> tuple[Tensor, float]:
    """Ask ``torch_cluster``."""
    import torch_cluster  # pyright: ignore[reportMissingImports]

    pos, query, slack = _normalized(search)
    batch = _cloud_of(search.ptr, pos.size(0))
    width = num_candidates(search)
    edge_index = torch_cluster.knn(
        pos, query, width, batch, search.query_cloud, batch_size=search.ptr.numel() - 1
    )
    return _edges_to_table(edge_index, query.size(0), width), slack


def pyg_lib_candidates(search: Search) -> tuple[Tensor, float]:
    """Ask ``pyg-lib``."""
    import pyg_lib  # pyright: ignore[reportMissingImports]

    pos, query, slack = _normalized(search)
    width = num_candidates(search)
    edge_index = pyg_lib.ops.knn(pos, query, search.ptr, search.query_ptr, width)
    return _edges_to_table(edge_index, query.size(0), width), slack


def _normalized(search: Search) -> tuple[Tensor, Tensor, float]:
    """Return points and queries in float64, relative to a point of their cloud, in the unit cube.

    The libraries' trees round in the dtype that they are given, and their CUDA kernels drop
    neighbours that are more than 1e5 apart and take at most 100 per query.
    """
    if search.pos.is_cuda and num_candidates(search) > 100:
        raise ValueError(f"Expected 'k' to be below 100 for this backend on CUDA (got {search.k})")
    # A cloud without points looks at some other point, and finds nothing.
    origin = search.pos.double()[search.ptr[:-1].clamp(max=search.pos.size(0) - 1)]
    pos = search.pos.double() - origin[_cloud_of(search.ptr, search.pos.size(0))]
    query = search.query.double() - origin[search.query_cloud]
    extent = max(float(pos.abs().max()), float(query.abs().max()), 1e-30)
    eps = torch.finfo(torch.float64).eps
    return pos / extent, query / extent, _TREE_ULPS * eps * pos.size(1) * (2 * extent) ** 2


def _cloud_of(ptr: Tensor, num_nodes: int) -> Tensor:
    cloud = torch.arange(ptr.numel() - 1, device=ptr.device)
    return cloud.repeat_interleave(ptr.diff(), output_size=num_nodes)


def _edges_to_table(edge_index: Tensor, num_queries: int, width: int) -> Tensor:
    """Return the table of edges whose row 0 is the (sorted) receiver and row 1 the neighbour."""
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
    "pyg_lib": pyg_lib_candidates,
    "scipy": scipy_candidates,
    "torch_cluster": torch_cluster_candidates,
}

__all__ = ["BACKENDS", "num_candidates"]
