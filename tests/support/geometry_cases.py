"""Clouds to test geometry on, and slow loops to compare with."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from _pytest.mark import ParameterSet
from hypothesis import strategies as st
from torch import Tensor

from pyg_peft.geometry import available_backends
from pyg_peft.geometry.search.backends import _BACKENDS


def _parameters(task: str, names: list[str]) -> list[ParameterSet]:
    installed = available_backends(task)
    parameters: list[ParameterSet] = []
    for name in names:
        reason = f"{_BACKENDS[name][0]} is not installed"
        mark = pytest.mark.skipif(name not in installed, reason=reason)
        parameters.append(pytest.param(name, marks=mark))
    return parameters


KNN_BACKENDS = _parameters("knn", ["dense", "scipy", "nanoflann", "torch_cluster", "pyg_lib"])
FPS_BACKENDS = _parameters("fps", ["dense", "fpsample", "torch_cluster", "pyg_lib"])


@dataclass(frozen=True)
class Clouds:
    """A ragged batch, and queries that ask in the same clouds."""

    pos: Tensor
    batch: Tensor
    query: Tensor
    query_batch: Tensor
    batch_size: int
    k: int


def points(kind: str, count: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Return ``count`` points of a kind: random, or difficult in one of several ways."""
    values = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    lattice = torch.randint(0, 3, (count, 3), generator=generator).double()
    made = {
        "random": values,
        "grid": lattice,
        "fine grid": lattice * 0.1,  # 0.1 has no exact binary form: sums of squares nearly tie
        "same": torch.ones(count, 3, dtype=torch.float64),
        "duplicates": values[torch.randint(0, max(1, count // 3), (count,), generator=generator)]
        if count > 0
        else values,
        "far": values + 1e4,
        "wide": values * 10.0 ** torch.randint(-6, 6, (count, 1), generator=generator),
    }
    return made[kind].to(dtype)


KINDS = ["random", "grid", "fine grid", "same", "duplicates", "far", "wide"]


@st.composite
def ragged(draw: st.DrawFn, kinds: list[str] = KINDS, max_points: int = 14) -> Clouds:
    """Draw sizes, kind, precision and ``k``; make numbers from a drawn seed."""
    sizes = draw(st.lists(st.integers(0, max_points), min_size=1, max_size=4))
    asked = draw(st.lists(st.integers(0, 5), min_size=len(sizes), max_size=len(sizes)))
    kind, dtype = (
        draw(st.sampled_from(kinds)),
        draw(st.sampled_from([torch.float32, torch.float64])),
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    clouds = torch.arange(len(sizes))
    pos = points(kind, sum(sizes), generator, dtype)
    query = points(kind, sum(asked), generator, dtype)
    if draw(st.booleans()) and sum(sizes) > 0:  # queries on top of points, in whichever cloud
        query = pos[torch.randint(0, sum(sizes), (sum(asked),), generator=generator)]
    return Clouds(
        pos=pos,
        batch=clouds.repeat_interleave(torch.tensor(sizes)),
        query=query,
        query_batch=clouds.repeat_interleave(torch.tensor(asked)),
        batch_size=len(sizes) + draw(st.integers(0, 1)),
        k=draw(st.integers(1, max_points + 2)),
    )


def distances(pos: Tensor, query: Tensor) -> list[float]:
    """Return the squared distances of one query, rounded step by step in the tensors' dtype."""
    (x, y, z), (a, b, c) = pos.numpy().T, query.numpy()
    dx, dy, dz = x - a, y - b, z - c
    return ((dx * dx + dy * dy) + dz * dz).tolist()


def slow_knn(
    pos: Tensor,
    query: Tensor,
    k: int,
    batch: Tensor,
    query_batch: Tensor,
    *,
    loop: bool = True,
    radius: float | None = None,
) -> list[tuple[int, int]]:
    """Return edges (neighbor, receiver) in the canonical order, one comparison at a time."""
    edges: list[tuple[int, int]] = []
    clouds, asked = batch.tolist(), query_batch.tolist()
    for receiver in range(query.size(0)):
        squared = distances(pos, query[receiver])
        members = [
            (squared[row], row)
            for row in range(pos.size(0))
            if clouds[row] == asked[receiver] and (loop or row != receiver)
        ]
        if radius is not None:
            limit = float(torch.tensor(radius * radius, dtype=pos.dtype))
            members = [member for member in members if member[0] <= limit]
        edges += [(row, receiver) for _, row in sorted(members)[:k]]
    return edges


def pairs(edge_index: Tensor) -> list[tuple[int, int]]:
    """Return the edges of an ``edge_index``, in their order."""
    return [(a, b) for a, b in edge_index.t().tolist()]


def attains_maximum(pos: Tensor, picks: list[int], candidates: list[int]) -> bool:
    """Whether each pick is a candidate as far from all earlier picks as any candidate is."""
    nearest = dict.fromkeys(candidates, float("inf"))
    for before, pick in pairwise(picks):
        squared = distances(pos[candidates], pos[before])
        for row, distance in zip(candidates, squared, strict=True):
            nearest[row] = min(nearest[row], distance)
        if pick not in nearest or nearest[pick] < max(nearest.values()) * (1 - 1e-6):
            return False
    return True
