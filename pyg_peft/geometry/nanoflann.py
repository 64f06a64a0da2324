"""Neighbour search by nanoflann's trees, which is what the CPU does with the extra ``fast``."""

from typing import Any

import torch

from pyg_peft.geometry.ordering import (
    Proposal,
    Search,
    num_candidates,
    relative_error,
    search_unit,
)


def nanoflann_candidates(search: Search) -> Proposal:
    """Ask one :class:`pynanoflann.KDTree` per cloud, in float64.

    The package holds Python's lock while it searches, so the threads are its own: over clouds, or
    over the queries of a single one. It knows no bound for a radius, and looks for the ``k + 1``
    nearest there too.

    Its error is relative. A tree adds to a lower bound and subtracts from it once a level, and no
    bound on the way to a point exceeds the point's own squared distance; so in a cloud of ``N``
    points, which is at most ``N`` levels deep, that distance is misjudged by ``4 N`` roundings.
    That is nothing in float64, and too much in float32, which would save a twentieth of the time.
    """
    import numpy as np

    width = num_candidates(search)
    limits = torch.finfo(search.pos.dtype)
    same = search.query is search.pos
    unit = search_unit(search)
    pos = search.pos.double().div(unit).numpy()
    query = pos if same else search.query.double().div(unit).numpy()
    ptr, query_ptr = search.ptr.tolist(), search.query_ptr.tolist()
    table = np.full((query.shape[0], width), -1, dtype=np.int64)
    slack = np.zeros(query.shape[0])
    settled = np.zeros(query.shape[0], dtype=bool)

    searched: list[int] = []
    for cloud in range(len(ptr) - 1):
        size = ptr[cloud + 1] - ptr[cloud]
        if size >= width and query_ptr[cloud] < query_ptr[cloud + 1]:
            searched.append(cloud)
        elif size < width:  # all its points are candidates
            rows = slice(query_ptr[cloud], query_ptr[cloud + 1])
            table[rows, :size] = np.arange(ptr[cloud], ptr[cloud + 1])

    points = [pos[ptr[cloud] : ptr[cloud + 1]] for cloud in searched]
    asked = [query[query_ptr[cloud] : query_ptr[cloud + 1]] for cloud in searched]
    near_of, found_of = _nearest(points, asked, width, leaf_size=24 if same else 32)
    for cloud, near, found in zip(searched, near_of, found_of, strict=True):
        rows = slice(query_ptr[cloud], query_ptr[cloud + 1])
        table[rows] = found
        table[rows] += ptr[cloud]
        levels = ptr[cloud + 1] - ptr[cloud] + pos.shape[1] + 4
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


def _nearest(
    points: list[Any], asked: list[Any], width: int, leaf_size: int
) -> tuple[list[Any], list[Any]]:
    """Return distances and rows ``[M, width]`` of each cloud's nearest points, nearest first."""
    from pynanoflann import KDTree, batched_kneighbors

    threads = torch.get_num_threads()
    if threads > 1 and len(points) > 1:
        return batched_kneighbors(points, asked, width, leaf_size=leaf_size, n_jobs=threads)
    near_of, found_of = [], []
    for cloud, queries in zip(points, asked, strict=True):
        tree = KDTree(leaf_size=leaf_size)
        tree.fit(cloud)
        near, found = tree.kneighbors(queries, width, n_jobs=threads)
        near_of.append(near)
        found_of.append(found)
    return near_of, found_of


__all__ = ["nanoflann_candidates"]
