"""Neighbor search with nanoflann, the default on the CPU with one thread and the extra ``fast``."""

from typing import TYPE_CHECKING

import torch

from pyg_peft.geometry.ordering import (
    Proposal,
    Search,
    float64_arrays,
    num_candidates,
    relative_error,
)
from pyg_peft.geometry.search.tree import scipy_candidates

if TYPE_CHECKING:
    import numpy as np


def nanoflann_candidates(search: Search) -> Proposal:
    """Search with one :class:`pynanoflann.KDTree` per cloud, in float64.

    If a cloud has more coincident points than a leaf holds, SciPy searches all clouds instead.
    nanoflann divides a box without extent by uninitialized numbers, recurses until the stack
    overflows, and the process dies.

    The search uses one thread, regardless of torch's setting. The package holds Python's lock
    meanwhile, and its own threads touch reference counts without the lock and crash (0.10). It has
    no bound for a radius search and also returns the ``k + 1`` nearest points there.

    Its error is relative. At each level, a tree adds to and subtracts from a lower bound, and no
    bound on the path to a point exceeds the squared distance of that point. A cloud of ``N`` points
    is at most ``N`` levels deep, so this distance is off by at most ``4 N`` roundings. This is
    negligible in float64 but too much in float32, which would save only a twentieth of the time.
    """
    import numpy as np
    from pynanoflann import KDTree

    width = num_candidates(search)
    limits = torch.finfo(search.pos.dtype)
    same = search.query is search.pos
    pos, query, unit = float64_arrays(search)
    ptr, query_ptr = search.ptr.tolist(), search.query_ptr.tolist()
    table = np.full((query.shape[0], width), -1, dtype=np.int64)
    slack = np.zeros(query.shape[0])
    settled = np.zeros(query.shape[0], dtype=bool)

    for cloud in range(len(ptr) - 1):
        begin, end = ptr[cloud], ptr[cloud + 1]
        rows = slice(query_ptr[cloud], query_ptr[cloud + 1])
        if end - begin < width:  # all points are candidates
            table[rows, : end - begin] = np.arange(begin, end)
            continue
        if rows.start == rows.stop:
            continue
        leaf_size = 24 if same else 32
        if _has_many_equal(pos[begin:end], leaf_size):
            return scipy_candidates(search)
        tree = KDTree(leaf_size=leaf_size)
        tree.fit(pos[begin:end])
        near, found = tree.kneighbors(query[rows], width, n_jobs=1)
        table[rows] = found
        table[rows] += begin
        levels = end - begin + pos.shape[1] + 4
        error = 2 * levels * np.finfo(np.float64).eps
        slack[rows] = error * np.square(near[:, -1]) + limits.tiny
        # Canonical distances, computed in the dtype of the positions, differ beyond this reach.
        reach = near[:, :-1] * (1 + relative_error(search) + error)
        reach += limits.tiny**0.5
        settled[rows] = (near[:, 1:] > reach).all(axis=1)
        settled[rows] &= near[:, -1] < (limits.max / 2) ** 0.5 / unit
    return Proposal(
        torch.from_numpy(table),
        torch.from_numpy(slack).mul_(unit).mul_(unit),
        torch.from_numpy(settled),
    )


def _has_many_equal(pos: "np.ndarray", most: int) -> bool:
    """Return whether more than ``most`` points coincide."""
    import numpy as np

    # One coordinate decides for nearly all clouds, at a tenth of the cost.
    first = np.sort(pos[:, 0])
    if not (first[most:] == first[:-most]).any():
        return False
    rows = pos[np.lexsort(pos.T)]
    return bool((rows[most:] == rows[:-most]).all(axis=1).any())


__all__ = ["nanoflann_candidates"]
