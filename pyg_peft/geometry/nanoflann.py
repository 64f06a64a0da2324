"""Neighbour search by nanoflann: the CPU's choice on one thread, with the extra ``fast``."""

from typing import TYPE_CHECKING

import torch

from pyg_peft.geometry.ordering import (
    Proposal,
    Search,
    float64_arrays,
    num_candidates,
    relative_error,
)
from pyg_peft.geometry.tree import scipy_candidates

if TYPE_CHECKING:
    import numpy as np


def nanoflann_candidates(search: Search) -> Proposal:
    """Ask one :class:`pynanoflann.KDTree` per cloud, in float64.

    A cloud with more equal points than a leaf holds is left to SciPy, and all others with it: the
    library divides a box without extent by numbers that it has not set, for as long as the stack
    lasts, and the process dies.

    One thread searches, whatever torch's number: the package holds Python's lock meanwhile, and the
    threads of its own touch reference counts without it and crash (0.10). It knows no bound for a
    radius, and looks for the ``k + 1`` nearest there too.

    Its error is relative. A tree adds to a lower bound and subtracts from it once a level, and no
    bound on the way to a point exceeds the point's own squared distance; so in a cloud of ``N``
    points, which is at most ``N`` levels deep, that distance is misjudged by ``4 N`` roundings.
    That is nothing in float64, and too much in float32, which would save a twentieth of the time.
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
        if end - begin < width:  # all its points are candidates
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
        # What canonical distances, computed in the dtype of the positions, can tell apart.
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
    """Whether more than ``most`` points lie at one place."""
    import numpy as np

    # One coordinate decides for nearly all clouds, at a tenth of the cost.
    first = np.sort(pos[:, 0])
    if not (first[most:] == first[:-most]).any():
        return False
    rows = pos[np.lexsort(pos.T)]
    return bool((rows[most:] == rows[:-most]).all(axis=1).any())


__all__ = ["nanoflann_candidates"]
