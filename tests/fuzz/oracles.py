"""Right answers by brute force: slow loops in NumPy, written from the documentation alone.

Each returns what a function of the library should, or a text that says what is wrong with what it
did. Half precision is computed in single, as the documentation says.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

Args = Mapping[str, Any]


def array(points: Any) -> np.ndarray:
    """Positions as a NumPy array, of single precision at least."""
    points = torch.as_tensor(points)
    points = points.to_dense() if points.layout != torch.strided else points
    return (
        points.detach()
        .to(torch.float64 if points.dtype == torch.float64 else torch.float32)
        .numpy()
    )


def ids(batch: Any, number: int) -> list[int]:
    """Cloud of each row."""
    if batch is None:
        return [0] * number
    batch = torch.as_tensor(batch)
    assert batch.dim() == 1 and batch.numel() == number, "a batch of another shape was taken"
    found = [int(cloud) for cloud in batch.tolist()]
    assert found == sorted(found) and min(found, default=0) >= 0, "an unsorted batch was taken"
    return found


def number_of_clouds(args: Args, batch: str = "batch") -> int:
    given = args.get("batch_size")
    if given is not None:
        return int(given)
    value = args.get(batch)
    return 1 if value is None else max([int(i) for i in value.tolist()], default=-1) + 1


def squared(points: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Squared distances in the type of the points, summed in the canonical order."""
    with np.errstate(over="ignore", invalid="ignore"):
        delta = (points - query) ** 2
        return (delta[..., 0] + delta[..., 1]) + delta[..., 2]


def neighbors(
    args: Args, k: int, radius: float | None = None, loop: bool = True
) -> list[list[int]]:
    """The nearest points of each query's own cloud: by distance, then by row."""
    pos = array(args["pos"])
    query = pos if args.get("query") is None else array(args["query"])
    cloud = ids(args.get("batch"), len(pos))
    query_cloud = cloud if args.get("query") is None else ids(args.get("query_batch"), len(query))
    assert pos.shape[1:] == query.shape[1:] == (3,), "positions of another width were taken"
    answer: list[list[int]] = []
    for row, center in enumerate(query):
        distance = squared(pos, center)
        rows = [j for j in range(len(pos)) if cloud[j] == query_cloud[row]]
        rows = [j for j in rows if loop or j != row]
        if radius is not None:
            with np.errstate(over="ignore"):
                limit = np.asarray(radius, np.float64).astype(distance.dtype) ** 2
            rows = [j for j in rows if distance[j] <= limit]
        answer.append(sorted(rows, key=lambda j: (distance[j], j))[: min(k, len(pos))])
    return answer


def same_edges(result: Tensor, expected: list[list[int]]) -> str | None:
    """Compare an ``edge_index`` with a list of neighbors of each receiver."""
    wanted = [[j, i] for i, row in enumerate(expected) for j in row]
    found = result.t().tolist()
    if found != wanted:
        place = next((p for p, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), -1)
        return f"edge {place} is {found[place : place + 3]} instead of {wanted[place : place + 3]}"
    return None


def farthest(args: Args, picks: list[list[int]]) -> str | None:
    """Each pick is as far as any from those before it; which of several equals is left open."""
    pos = array(args["pos"])
    cloud = ids(args.get("batch"), len(pos))
    for number, found in enumerate(picks):
        rows = [j for j in range(len(pos)) if cloud[j] == number]
        size = min(len(rows), int(args["num_samples"]))
        if found[size:] != [-1] * (len(found) - size) or not set(found[:size]) <= set(rows):
            return f"{found} of the rows {rows}"
        if not rows:
            continue
        nearest = squared(pos, pos[found[0]])
        for place in range(1, size):
            pick = found[place]
            # Where all points coincide with those picked, one is picked again.
            again = pick in found[:place] and max(nearest[rows]) > 0
            if again or nearest[pick] != max(nearest[rows]):
                return f"pick {place} of {found} is at {nearest[pick]} of {max(nearest[rows])}"
            nearest = np.minimum(nearest, squared(pos, pos[pick]))
    return None


def interpolated(args: Args) -> np.ndarray:
    """The weighted sum at each receiver, edge by edge."""
    x = torch.as_tensor(args["x"]).double().numpy()
    out = np.zeros((int(args["num_points"]), x.shape[1]))
    edges = torch.as_tensor(args["edge_index"])
    weight = torch.as_tensor(args["weight"]).double().tolist()
    assert edges.shape == (2, len(weight)), "edges and weights of different number were taken"
    for (source, receiver), w in zip(edges.t().tolist(), weight, strict=True):
        assert 0 <= source < len(x) and 0 <= receiver < len(out), "an edge out of range was taken"
        out[receiver] += w * x[source]
    return out


def weights(pos: Any, query: Any, edge_index: Any, eps: float) -> np.ndarray:
    """Inverse squared distances, one in all for each receiver."""
    pos, query = array(pos).astype(np.float64), array(query).astype(np.float64)
    edges = torch.as_tensor(edge_index).t().tolist()
    assert all(0 <= j < len(pos) and 0 <= i < len(query) for j, i in edges), "an edge out of range"
    inverse = np.array([1 / (((pos[j] - query[i]) ** 2).sum() + eps) for j, i in edges])
    total = np.zeros(len(query))
    for (_, i), value in zip(edges, inverse, strict=True):
        total[i] += value
    return np.array([v / total[i] for (_, i), v in zip(edges, inverse, strict=True)])


def chamfer(pos: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances to the nearest point of the other set, both ways."""
    pos, target = array(pos).astype(np.float64), array(target).astype(np.float64)
    assert pos.shape[0] == target.shape[0] and pos.shape[2] == target.shape[2] == 3
    table = ((pos[:, :, None] - target[:, None]) ** 2).sum(-1)
    return table.min(axis=2), table.min(axis=1)


def attention(args: Args) -> tuple[np.ndarray, list[list[int]]]:
    """The softmax over the best rows of a table, question by question."""
    query, keys, values = (
        torch.as_tensor(args[n]).double().numpy() for n in ("query", "keys", "values")
    )
    out, best = [], []
    for row, question in enumerate(query):
        norm = max(np.linalg.norm(question), 1e-12)
        score = keys @ (question / norm)
        allowed = list(range(len(keys)))
        if args.get("exclude") is not None:
            allowed = [r for r in allowed if r != int(args["exclude"][row])]
        chosen = sorted(allowed, key=lambda r: (-score[r], r))[: int(args["top_k"])]
        weight = np.exp(score[chosen] - score[chosen].max())
        out.append((weight[:, None] * values[chosen]).sum(0) / weight.sum())
        best.append(sorted(-score[chosen]))
    return np.array(out).reshape(len(query), values.shape[1]), best


def near(
    result: Any, expected: Any, what: str = "values", scale: float | None = None
) -> str | None:
    """Compare numbers; the tolerance follows the type of the result."""
    dtype = result.dtype
    if not dtype.is_floating_point:
        return f"{what} of type {dtype}"
    found = result.detach().double().numpy()
    expected = np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        return f"{what} of shape {list(found.shape)} instead of {list(expected.shape)}"
    if not found.size:
        return None
    unit = {torch.float64: 1e-9, torch.float32: 1e-4}.get(dtype, 3e-2)
    size = float(np.abs(expected).max()) if scale is None else scale
    with np.errstate(invalid="ignore"):
        size = size if np.isfinite(size) else 0.0
        wrong = ~(np.abs(found - expected) <= unit * np.abs(expected) + unit * size + 1e-30)
        # What leaves the type of the result may be infinite, or not a number.
        beyond = ~(np.abs(expected) < torch.finfo(dtype).max / 1e3)
        wrong &= ~((found == expected) | (beyond & ~np.isfinite(found)))
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        return f"{what}{list(place)} is {found[place]} instead of {expected[place]}"
    return None
