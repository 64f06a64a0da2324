"""Neighbor search with SciPy's trees, the default on the CPU without the extra ``fast``."""

from concurrent.futures import ThreadPoolExecutor

import torch

from pyg_peft.geometry.ordering import (
    Proposal,
    Search,
    float64_arrays,
    num_candidates,
    relative_error,
)

#: Maximum error of a tree's squared distances, in units in the last place of the squared extent. A
#: tree bounds a squared distance by adding to and subtracting from a sum of that size.
TREE_ULPS = 64


def scipy_candidates(search: Search) -> Proposal:
    """Search with one :class:`scipy.spatial.cKDTree` per cloud; torch's threads share the clouds.

    The loop over clouds is intentional. One tree per cloud takes two thirds of the time of one tree
    over all clouds with the cloud's number as a fourth coordinate, because the trees are shallow
    and a call costs 50 microseconds. One thread per cloud is faster than the library's own threads
    per call. Trees that are split at the midpoint build twice as fast as balanced trees, which pay
    off where every point is a query.
    """
    import numpy as np
    from scipy.spatial import cKDTree  # pyright: ignore[reportAttributeAccessIssue]

    width = num_candidates(search)
    same = search.query is search.pos
    pos, query, unit = float64_arrays(search)
    ptr, query_ptr = search.ptr.tolist(), search.query_ptr.tolist()
    # The margin keeps points on the sphere despite rounding.
    bound = np.inf if search.radius is None else search.radius / unit * (1 + 1e-6) + 1e-30
    clouds = [
        b for b in range(len(ptr) - 1) if ptr[b] < ptr[b + 1] and query_ptr[b] < query_ptr[b + 1]
    ]
    threads = torch.get_num_threads()
    workers = threads if len(clouds) == 1 else 1
    table = np.full((query.shape[0], width), -1, dtype=np.int64)
    slack = np.zeros(query.shape[0])
    settled = np.zeros(query.shape[0], dtype=bool)
    # Canonical distances, computed in the dtype of the positions, differ beyond these margins.
    limits = torch.finfo(search.pos.dtype)
    ratio, least, largest = 1 + relative_error(search), limits.tiny, (limits.max / 2) ** 0.5 / unit

    def search_cloud(cloud: int) -> None:
        begin, end = ptr[cloud], ptr[cloud + 1]
        rows = slice(query_ptr[cloud], query_ptr[cloud + 1])
        leaf = 24 if same else 32
        tree = cKDTree(pos[begin:end], leafsize=leaf, compact_nodes=False, balanced_tree=same)
        asked = query[rows]
        low, high = tree.mins, tree.maxes
        if not same:
            low, high = np.minimum(low, asked.min(axis=0)), np.maximum(high, asked.max(axis=0))
        error = TREE_ULPS * np.finfo(np.float64).eps * np.square(high - low).sum()
        # Points that search each other are ordered leaf by leaf, which keeps the surroundings of a
        # leaf cached.
        order = tree.indices if same else slice(None)
        width_here = min(width, end - begin)
        # For one neighbor the last axis is missing. A list of ranks would keep it but is slower.
        near, found = tree.query(
            asked[order], width_here, distance_upper_bound=bound, workers=workers
        )
        found = found.reshape(-1, width_here)
        found[found == end - begin] = -1 - begin
        found += begin
        table[rows, :width_here][order] = found
        slack[rows] = error
        if width_here == width:
            near = near.reshape(-1, width)
            reach = near[:, :-1] * ratio
            reach += (error + least) ** 0.5
            settled[rows][order] = (near[:, 1:] > reach).all(axis=1) & (near[:, -1] < largest)

    if threads > 1 and len(clouds) > 1:
        with ThreadPoolExecutor(min(threads, len(clouds))) as pool:
            list(pool.map(search_cloud, clouds))
    else:
        for cloud in clouds:
            search_cloud(cloud)
    return Proposal(
        torch.from_numpy(table),
        torch.from_numpy(slack).mul_(unit).mul_(unit),
        torch.from_numpy(settled),
    )


__all__ = ["TREE_ULPS", "scipy_candidates"]
