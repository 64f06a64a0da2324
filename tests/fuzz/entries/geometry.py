"""Strategies for ``pyg_peft.geometry``."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from fuzz import dice as st
from fuzz import oracles
from fuzz.sandbox import Expectation
from fuzz.strategies import (
    LAYOUTS,
    Args,
    Cloud,
    Const,
    Count,
    Draw,
    Flag,
    Floats,
    Made,
    Mask,
    Maybe,
    Name,
    Real,
    Sparse,
    Spec,
    Whole,
    clouds,
    entry,
    floats,
)
from torch import Tensor

from pyg_peft import geometry

SIZE = st.integers(0, 12)


def edges(draw: Draw, sources: int, receivers: int) -> Whole:
    """Some edges between points that exist."""
    if min(sources, receivers) == 0:
        return Whole((), (2, 0))
    pairs = draw(
        st.lists(st.tuples(st.integers(0, sources - 1), st.integers(0, receivers - 1)), max_size=12)
    )
    flat = tuple(j for j, _ in pairs) + tuple(i for _, i in pairs)
    return Whole(flat, (2, len(pairs)), high=max(sources, receivers))


def search(draw: Draw) -> tuple[Cloud, dict[str, Spec]]:
    """Points, queries of the same number of clouds, and the clouds of both."""
    cloud = clouds(draw, max_points=draw(st.sampled_from((12, 12, 90))))
    asked = Cloud(tuple(draw(st.integers(0, 5)) for _ in cloud.counts), cloud.flat)
    args = {
        "pos": cloud.pos(draw),
        "query": asked.pos(draw),
        "batch": cloud.batch(),
        "query_batch": asked.batch(),
        "batch_size": cloud.batch_size(),
    }
    return cloud, args


# ---- neighbors -----------------------------------------------------------------------------------


def check_knn(args: Args, result: Any) -> str | None:
    return oracles.same_edges(result, oracles.neighbors(args, int(args["k"])))


@entry("geometry.knn", call=geometry.knn, check=check_knn)
def knn(draw: Draw) -> dict[str, Spec]:
    _, args = search(draw)
    return {**args, "k": Count(draw(st.integers(1, 14)), capped=True)}


def check_graph(args: Args, result: Any) -> str | None:
    loop = bool(args["loop"])
    return oracles.same_edges(result, oracles.neighbors(args, int(args["k"]), loop=loop))


@entry("geometry.knn_graph", call=geometry.knn_graph, check=check_graph)
def knn_graph(draw: Draw) -> dict[str, Spec]:
    cloud = clouds(draw)
    return {
        "pos": cloud.pos(draw),
        "k": Count(draw(st.integers(1, 14)), capped=True),
        "batch": cloud.batch(),
        "loop": Flag(draw(st.booleans())),
        "batch_size": cloud.batch_size(),
    }


def check_ball(args: Args, result: Any) -> str | None:
    radius = float(args["radius"])
    expected = oracles.neighbors(args, int(args["max_num_neighbors"]), radius)
    return oracles.same_edges(result, expected)


@entry("geometry.ball_query", call=geometry.ball_query, check=check_ball)
def ball_query(draw: Draw) -> dict[str, Spec]:
    _, args = search(draw)
    return {
        **args,
        "radius": Real(draw(st.sampled_from((0.0, 0.5, 1.0, 2.0, 100.0))), low=0.0),
        "max_num_neighbors": Count(draw(st.integers(1, 14)), capped=True),
    }


# ---- sampling ------------------------------------------------------------------------------------


def check_sample(args: Args, result: Any) -> str | None:
    number = oracles.number_of_clouds(args)
    wide = int(args["num_samples"])
    if tuple(result.shape) != (number, wide):
        return f"shape {list(result.shape)} instead of {[number, wide]}"
    start = [row[0] for row in result.tolist()]
    if args["start"] is not None:
        start = args["start"].tolist()
    if args["candidates"] is not None:
        return _check_candidates(args, result, start)
    problem = _canonical(args, start) if args["start"] is None else None
    if problem is None and [row[0] for row in result.tolist() if row[0] >= 0] != [
        first for first, row in zip(start, result.tolist(), strict=True) if row[0] >= 0
    ]:
        problem = f"starts {result[:, 0].tolist()} instead of {start}"
    return problem or oracles.farthest(args, result.tolist())


def _canonical(args: Args, start: list[int]) -> str | None:
    """The default start lies at the largest distance from its cloud's centroid."""
    pos = oracles.array(args["pos"]).astype(np.float64)
    cloud = np.array(oracles.ids(args["batch"], len(pos)))
    for number, row in enumerate(start):
        own = pos[cloud == number]
        if len(own):
            distance = np.linalg.norm(own - own.mean(0), axis=1)
            chosen = np.linalg.norm(pos[row] - own.mean(0))
            if not chosen >= distance.max() - 1e-5 * np.abs(own - own[0]).max():
                return f"cloud {number} starts at distance {chosen} of {distance.max()}"
    return None


def _check_candidates(args: Args, result: Tensor, start: list[int]) -> str | None:
    allowed = args["candidates"].tolist()
    for cloud, row in enumerate(result.tolist()):
        strange = [r for r in row[1:] if r >= 0 and not allowed[r] and r != start[cloud]]
        if strange:
            return f"row {strange[0]} is no candidate"
    return None


@entry("geometry.farthest_point_sample", call=geometry.farthest_point_sample, check=check_sample)
def farthest_point_sample(draw: Draw) -> dict[str, Spec]:
    cloud = clouds(draw)
    first = list(itertools.accumulate((0, *cloud.counts)))[:-1]
    start = [
        f + draw(st.integers(0, max(0, c - 1))) for f, c in zip(first, cloud.counts, strict=True)
    ]
    allowed = tuple(draw(st.booleans()) for _ in range(cloud.num_points))
    return {
        "pos": cloud.pos(draw),
        "num_samples": Count(draw(st.integers(1, 14))),
        "batch": cloud.batch(),
        "start": Maybe(Whole(tuple(start), (len(start),), high=99), draw(st.booleans())),
        "candidates": Maybe(Mask(allowed, (len(allowed),)), draw(st.booleans())),
        "batch_size": cloud.batch_size(),
    }


def check_convention(args: Args, result: Any) -> str | None:
    start, candidates = result
    pos = oracles.array(args["pos"]).astype(np.float32)
    cloud = oracles.ids(args["batch"], len(pos))
    for number, row in enumerate(start.tolist()):
        if number in cloud and row != cloud.index(number):
            return f"cloud {number} starts at {row}"
    expected = (oracles.squared(pos, np.zeros(3, np.float32)) > np.float32(1e-3)).tolist()
    return None if candidates.tolist() == expected else f"{candidates.tolist()} for {expected}"


@entry("geometry.authors_convention", call=geometry.authors_convention, check=check_convention)
def authors_convention(draw: Draw) -> dict[str, Spec]:
    cloud = clouds(draw)
    return {"pos": cloud.pos(draw), "batch": cloud.batch(), "batch_size": cloud.batch_size()}


# ---- interpolation -------------------------------------------------------------------------------


def check_weights(args: Args, result: Any) -> str | None:
    expected = oracles.weights(args["pos"], args["query"], args["edge_index"], float(args["eps"]))
    return oracles.near(result, expected, "weight")


@entry("geometry.interpolation_weights", call=geometry.interpolation_weights, check=check_weights)
def interpolation_weights(draw: Draw) -> dict[str, Spec]:
    sources, receivers = draw(SIZE), draw(SIZE)
    return {
        "pos": floats(draw, (sources, 3), finite=True, coordinates=True),
        "query": floats(draw, (receivers, 3), finite=True, coordinates=True),
        "edge_index": edges(draw, sources, receivers),
        "eps": Real(draw(st.sampled_from((1e-8, 1e-3))), low=0.0, open=True),
    }


def check_interpolate(args: Args, result: Any) -> str | None:
    if args["ptr"] is not None:
        ptr = args["ptr"].tolist()
        number = args["edge_index"].size(1)
        if ptr[0] < 0 or ptr != sorted(ptr) or ptr[-1] > number:
            return f"borders {ptr} of {number} edges were taken"
        receiver = [i for i, (a, b) in enumerate(itertools.pairwise(ptr)) for _ in range(b - a)]
        assert len(receiver) == number, "borders that leave edges out were taken"
        rows = torch.tensor(receiver, dtype=torch.long)
        args = {**args, "edge_index": torch.stack([args["edge_index"][0], rows])}
    return oracles.near(result, oracles.interpolated(args), "y")


@entry("geometry.interpolate", call=geometry.interpolate, check=check_interpolate)
def interpolate(draw: Draw) -> dict[str, Spec]:
    sources, receivers = draw(SIZE), draw(SIZE)
    index = edges(draw, sources, receivers)
    number = len(index.values) // 2
    ptr: tuple[int, ...] = (0,)
    given = draw(st.booleans())
    if given:
        order = sorted(index.values[number:])
        index = dataclasses.replace(index, values=(*index.values[:number], *order))
        ptr = tuple(sum(r < border for r in order) for border in range(receivers + 1))
    return {
        "x": floats(draw, (sources, draw(st.integers(1, 4)))),
        "edge_index": index,
        "weight": floats(draw, (number,)),
        "num_points": Count(receivers, low=0),
        "ptr": Maybe(Whole(ptr, (len(ptr),)), given),
    }


# ---- chamfer -------------------------------------------------------------------------------------


def sets(draw: Draw) -> dict[str, Spec]:
    number = draw(st.integers(1, 3))
    left, right = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    return {
        "pos": floats(draw, (number, left, 3), finite=True, coordinates=True),
        "target": floats(draw, (number, right, 3), finite=True, coordinates=True),
    }


def check_nearest(args: Args, result: Any) -> str | None:
    forth, back = oracles.chamfer(args["pos"], args["target"])
    return oracles.near(result[0], forth) or oracles.near(result[1], back)


def check_chamfer(args: Args, result: Any) -> str | None:
    forth, back = oracles.chamfer(args["pos"], args["target"])
    return oracles.near(result, forth.mean() + back.mean())


def check_l1(args: Args, result: Any) -> str | None:
    forth, back = oracles.chamfer(args["pos"], args["target"])
    if max(forth.max(), back.max()) > torch.finfo(result.dtype).max:
        return None  # squares leave the type; infinity says so
    return oracles.near(result, (np.sqrt(forth).mean() + np.sqrt(back).mean()) / 2)


entry(
    "geometry.nearest_squared_distances",
    call=geometry.nearest_squared_distances,
    check=check_nearest,
)(sets)
entry("geometry.chamfer_distance", call=geometry.chamfer_distance, check=check_chamfer)(sets)
entry("geometry.chamfer_distance_l1", call=geometry.chamfer_distance_l1, check=check_l1)(sets)


# ---- layout --------------------------------------------------------------------------------------


def of_batch(draw: Draw) -> dict[str, Spec]:
    cloud = clouds(draw)
    return {
        "batch": cloud.batch(),
        "num_nodes": Count(cloud.num_points, low=0),
        "batch_size": cloud.batch_size(),
    }


def counted(args: Args) -> list[int]:
    cloud = oracles.ids(args["batch"], int(args["num_nodes"]))
    return [cloud.count(number) for number in range(oracles.number_of_clouds(args))]


def check_counts(args: Args, result: Any) -> str | None:
    expected = counted(args)
    return None if result.tolist() == expected else f"{result.tolist()} instead of {expected}"


def check_offsets(args: Args, result: Any) -> str | None:
    expected = [0, *itertools.accumulate(counted(args))]
    return None if result.tolist() == expected else f"{result.tolist()} instead of {expected}"


entry("geometry.counts", call=geometry.counts, check=check_counts)(of_batch)
entry("geometry.offsets", call=geometry.offsets, check=check_offsets)(of_batch)


def check_dense(args: Args, result: Any) -> str | None:
    dense, mask = result
    x = torch.as_tensor(args["x"])
    number = counted({**args, "num_nodes": len(x)})
    wide = max(number, default=0) if args["max_num"] is None else int(args["max_num"])
    expected = torch.zeros(len(number), wide, *x.shape[1:], dtype=x.dtype)
    place = 0
    for cloud, count in enumerate(number):
        expected[cloud, :count] = x[place : place + count]
        place += count
        if mask[cloud].tolist() != [cell < count for cell in range(wide)]:
            return f"mask {mask[cloud].tolist()} of cloud {cloud} with {count} rows"
    if dense.shape != expected.shape or not torch.equal(dense.nan_to_num(), expected.nan_to_num()):
        return f"{dense.tolist()} instead of {expected.tolist()}"
    return None


@entry("geometry.to_dense", call=geometry.to_dense, check=check_dense)
def to_dense(draw: Draw) -> dict[str, Spec]:
    cloud = clouds(draw)
    return {
        "x": floats(draw, (cloud.num_points, draw(st.integers(1, 3)))),
        "batch": cloud.batch(),
        "batch_size": cloud.batch_size(),
        "max_num": Count(
            draw(st.sampled_from((None, max(cloud.counts)))), low=max(cloud.counts), optional=True
        ),
    }


def check_flat(args: Args, result: Any) -> str | None:
    rows, batch = result
    dense = torch.as_tensor(args["dense"])
    mask = args["mask"]
    expected, cloud = [], []
    for b, g in itertools.product(range(dense.size(0)), range(dense.size(1))):
        if mask is None or mask[b, g]:
            expected.append(dense[b, g].nan_to_num())
            cloud.append(b)
    if batch.tolist() != cloud:
        return f"batch {batch.tolist()} instead of {cloud}"
    return None if all(map(torch.equal, rows.nan_to_num(), expected)) else "rows in another order"


@entry("geometry.to_flat", call=geometry.to_flat, check=check_flat)
def to_flat(draw: Draw) -> dict[str, Spec]:
    shape = (draw(st.integers(0, 3)), draw(st.integers(0, 4)))
    mask = tuple(draw(st.booleans()) for _ in range(shape[0] * shape[1]))
    return {
        "dense": floats(draw, (*shape, draw(st.integers(1, 3)))),
        "mask": Maybe(Mask(mask, shape), draw(st.booleans())),
    }


# ---- patches and structures ----------------------------------------------------------------------


def check_patches(args: Args, result: Any) -> str | None:
    pos = oracles.array(args["pos"])
    cloud = oracles.ids(args["batch"], len(pos))
    number, size = oracles.number_of_clouds(args), int(args["patch_size"])
    shape = (number, int(args["num_centers"]), size, 3)
    if tuple(result.points.shape) != shape:
        return f"points of shape {list(result.points.shape)} instead of {list(shape)}"
    table = oracles.neighbors({"pos": args["pos"], "batch": args["batch"]}, size)
    for b, g in itertools.product(range(number), range(shape[1])):
        there = result.mask is None or bool(result.mask[b, g])
        if there != (g < cloud.count(b)):
            return f"patch {g} of cloud {b} with {cloud.count(b)} points: {there}"
        if not there:
            continue
        center = int(result.center_index[b, g])
        members = table[center] + table[center][:1] * (size - len(table[center]))
        if result.index[b, g].tolist() != members:
            return f"members {result.index[b, g].tolist()} instead of {members}"
        problem = oracles.near(result.points[b, g], pos[members] - pos[center], "points")
        if problem:
            return problem
    return None


@entry("geometry.build_patches", call=geometry.build_patches, check=check_patches)
def build_patches(draw: Draw) -> dict[str, Spec]:
    cloud = clouds(draw, max_points=9)
    return {
        "pos": cloud.pos(draw),
        "batch": cloud.batch(),
        "num_centers": Count(draw(st.integers(1, 6))),
        "patch_size": Count(draw(st.integers(1, 6))),
        "x": Maybe(floats(draw, (cloud.num_points, 2)), draw(st.booleans())),
        "batch_size": cloud.batch_size(),
    }


def check_structure(args: Args, result: Any) -> str | None:
    pos = oracles.array(args["pos"])
    cloud = oracles.ids(args["batch"], len(pos))
    centers = result.center_index.tolist()
    for number in range(oracles.number_of_clouds(args)):
        size = cloud.count(number)
        asked = args["num_centers"]
        wanted = (
            int(np.ceil(float(args["ratio"]) * size)) if asked is None else min(int(asked), size)
        )
        found = sum(cloud[c] == number for c in centers)
        if found != wanted:
            return f"{found} centers instead of {wanted} in cloud {number} of {size}"
    table = oracles.neighbors({"pos": args["pos"], "batch": args["batch"]}, int(args["k"]))
    problem = oracles.same_edges(result.edge_index, [table[c] for c in centers])
    return problem or _check_way_back(args, result, pos[centers], [cloud[c] for c in centers])


def _check_way_back(args: Args, result: Any, centers: np.ndarray, of: list[int]) -> str | None:
    pos = oracles.array(args["pos"])
    index = result.interp_index
    total = np.zeros(len(pos))
    np.add.at(total, index[1].numpy(), result.interp_weight.double().numpy())
    receives = args["receivers"]
    cloud = oracles.ids(args["batch"], len(pos))
    for row in range(len(pos)):
        due = (receives is None or bool(receives[row])) and cloud[row] in of
        if abs(total[row] - due) > 1e-2:
            return f"row {row} receives weights of {total[row]} in all"
    expected = oracles.weights(centers, args["pos"], index, 1e-8)
    problem = oracles.near(result.interp_weight, expected, "interp_weight", scale=1.0)
    if problem is None and args["num_interp"] is not None:
        rows = {int(row) for row in index[1]}
        for row in rows:
            number = int((index[1] == row).sum())
            if number != min(int(args["num_interp"]), of.count(cloud[row])):
                return f"row {row} receives from {number} centers"
    return problem


@entry("geometry.build_structure", call=geometry.build_structure, check=check_structure)
def build_structure(draw: Draw) -> dict[str, Spec]:
    cloud = clouds(draw, max_points=9)
    receivers = tuple(draw(st.booleans()) for _ in range(cloud.num_points))
    by_ratio = draw(st.booleans())
    return {
        "pos": cloud.pos(draw),
        "batch": cloud.batch(),
        "k": Count(draw(st.integers(1, 6)), capped=True),
        "ratio": Real(draw(st.sampled_from((0.25, 0.5, 1.0))), 0.0, 1.0)
        if by_ratio
        else Const(0.5),
        "num_centers": Const(None) if by_ratio else Count(draw(st.integers(1, 6)), optional=True),
        "num_interp": Count(draw(st.sampled_from((None, 1, 3))), capped=True, optional=True),
        "receivers": Maybe(Mask(receivers, (len(receivers),)), draw(st.booleans())),
        "batch_size": cloud.batch_size(),
    }


def check_edge_structure(args: Args, result: Any) -> str | None:
    number = len(args["pos"])
    pairs = torch.as_tensor(args["edge_index"]).t().tolist()
    expected = [[i, *(j for j, to in pairs if to == i and j != i)] for i in range(number)]
    found = [[int(j) for j, to in result.edge_index.t().tolist() if to == i] for i in range(number)]
    if [sorted(row) for row in found] != [sorted(row) for row in expected]:
        return f"members {found} instead of {expected}"
    total = np.zeros(number)
    np.add.at(total, result.interp_index[1].numpy(), result.interp_weight.double().numpy())
    return None if np.allclose(total, 1, atol=1e-2) else f"weights of {total.tolist()} in all"


@entry("geometry.edge_structure", call=geometry.edge_structure, check=check_edge_structure)
def edge_structure(draw: Draw) -> dict[str, Spec]:
    number = draw(SIZE)
    return {
        "pos": floats(draw, (number, 3), finite=True, coordinates=True),
        "edge_index": edges(draw, number, number),
        "eps": Real(draw(st.sampled_from((0.0, 1e-8, 1e-3))), low=0.0),
        "max_degree": Const(None),
    }


def check_bipartite(args: Args, result: Any) -> str | None:
    pairs = torch.as_tensor(args["edge_index"]).t().tolist()
    number = len(args["query"])
    found = sorted((j - number, i) for j, i in result.structure.edge_index.t().tolist())
    if found != sorted((j, i) for j, i in pairs):
        return f"edges {found} instead of {pairs}"
    total = np.zeros(len(args["pos"]))
    np.add.at(total, result.lift_index[1].numpy(), result.lift_weight.double().numpy())
    due = [float(any(j == row for j, _ in pairs)) for row in range(len(total))]
    return None if np.allclose(total, due, atol=1e-2) else f"weights of {total.tolist()} in all"


def of_layer(draw: Draw) -> dict[str, Spec]:
    sources, receivers = draw(SIZE), draw(SIZE)
    return {
        "pos": floats(draw, (sources, 3), finite=True, coordinates=True),
        "query": floats(draw, (receivers, 3), finite=True, coordinates=True),
        "edge_index": edges(draw, sources, receivers),
    }


entry("geometry.bipartite_structure", call=geometry.bipartite_structure, check=check_bipartite)(
    of_layer
)


def build_by_hand(**args: Any) -> geometry.Structure:
    structure = geometry.Structure(**args)
    _ = structure.parts, structure.to("cpu")
    return structure


def check_by_hand(args: Args, result: Any) -> str | None:
    rows = result.interp_index[1].tolist()
    if rows != sorted(rows):
        return f"edges back in the order {rows}"
    borders = [sum(r < row for r in rows) for row in range(result.num_rows + 1)]
    return None if result.interp_ptr.tolist() == borders else f"borders {result.interp_ptr}"


@entry("geometry.Structure", call=build_by_hand, check=check_by_hand)
def structure(draw: Draw) -> dict[str, Spec]:
    rows, centers = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    degree = draw(st.integers(1, 3))
    members = tuple(draw(st.integers(0, rows - 1)) for _ in range(centers * degree))
    to = tuple(c for c in range(centers) for _ in range(degree))
    back = edges(draw, centers, rows)
    receivers = back.values[len(back.values) // 2 :]
    return {
        "center_index": Whole(
            tuple(draw(st.integers(0, rows - 1)) for _ in range(centers)), (centers,), high=99
        ),
        "edge_index": Whole((*members, *to), (2, len(to)), high=99),
        "interp_index": back,
        "interp_weight": floats(draw, (len(back.values) // 2,)),
        "degree": Count(draw(st.sampled_from((None, degree))), optional=True),
        "max_degree": Count(draw(st.sampled_from((None, degree))), low=degree, optional=True),
        "num_rows": Count(rows, low=1 + max(receivers, default=-1), optional=True),
    }


def check_grid(args: Args, result: Any) -> str | None:
    pos, size = oracles.array(args["pos"]).astype(np.float64), float(args["size"])
    kept = pos[result.index.numpy()][result.inverse.numpy()]
    far = np.abs(kept - pos).max(initial=0) > size * (1 + 1e-9) + 1e-12 * np.abs(pos).max(initial=0)
    return "a point is kept for one of another cube" if far else None


@entry("geometry.grid_sample", call=geometry.grid_sample, check=check_grid)
def grid_sample(draw: Draw) -> dict[str, Spec]:
    cloud = clouds(draw)
    size = draw(st.sampled_from((0.3, 1.0, 5.0)))
    return {
        "pos": cloud.pos(draw),
        "size": Real(size, low=0.0, open=True),
        "batch": cloud.batch(),
        "batch_size": cloud.batch_size(),
    }


# ---- scenes, backends, PyG's own operators -------------------------------------------------------


def cut(**args: Any) -> list[Tensor]:
    return list(geometry.scene_columns(**args))


def check_columns(args: Args, result: Any) -> str | None:
    pos, size = oracles.array(args["pos"]).astype(np.float64), float(args["size"])
    seen: set[int] = set()
    for rows in result:
        if not 1 <= len(rows) <= int(args["max_points"]):
            return f"a block of {len(rows)} points"
        flat = pos[rows.numpy(), :2]
        if (flat.max(0) - flat.min(0) > size * (1 + 1e-5) + 1e-12 * np.abs(pos).max()).any():
            return f"a block of size {flat.max(0) - flat.min(0)}"
        seen |= set(rows.tolist())
    missing = set(range(len(pos))) - seen
    return f"points {sorted(missing)} are in no column" if missing else None


@entry("geometry.scene_columns", call=cut, check=check_columns, moves=True)
def scene_columns(draw: Draw) -> dict[str, Spec]:
    size = draw(st.sampled_from((0.3, 1.0, 5.0)))
    return {
        "pos": clouds(draw, max_points=20, max_clouds=1, empty=False).pos(draw),
        "size": Real(size, low=0.0, open=True),
        "stride": Real(draw(st.sampled_from((None, size / 3, size))), 0.0, size, optional=True),
        "max_points": Count(draw(st.integers(1, 8)), capped=True),
        "generator": Maybe(Made(torch.Generator), draw(st.booleans())),
    }


def list_backends(task: str | None) -> Any:
    found = geometry.available_backends(task)
    return None if "dense" in found else f"no dense backend among {found}"


@entry("geometry.available_backends", call=list_backends, check=lambda args, result: result)
def available_backends(draw: Draw) -> dict[str, Spec]:
    return {"task": Name(draw(st.sampled_from((None, "knn", "fps"))), optional=True)}


def search_by(name: str, k: int, pos: Tensor, number: int) -> Any:
    """The backend that is asked for, on layouts of any kind, with some of the points as queries."""
    some = number > 0 and isinstance(pos, Tensor) and pos.layout == torch.strided and pos.dim() > 0
    with geometry.use_backend(name):
        return geometry.knn(pos, pos[:number] if some else pos, k)


def check_backend(args: Args, result: Any) -> str | None:
    pos, number = args["pos"], args["number"]
    asked = {"pos": pos, "query": pos[:number] if number else pos}
    return oracles.same_edges(result, oracles.neighbors(asked, int(args["k"])))


@entry("geometry.use_backend", call=search_by, check=check_backend)
def use_backend(draw: Draw) -> dict[str, Spec]:
    cloud = clouds(draw, max_clouds=1, max_points=draw(st.sampled_from((9, 120))))
    return {
        "number": Const(draw(st.integers(0, 5))),
        "name": Name(draw(st.sampled_from(geometry.available_backends("knn")))),
        "k": Count(draw(st.integers(1, 8)), capped=True),
        "pos": dataclasses.replace(cloud.pos(draw), layout=draw(st.sampled_from(LAYOUTS))),
    }


def call_pyg(what: str, x: Tensor, k: int, r: float, batch: Tensor | None) -> Any:
    """PyG's functions while ours stand in for its compiled ones."""
    from torch_geometric import nn as pyg

    with geometry.enable_pyg_ops():
        match what:
            case "knn_graph":
                return pyg.knn_graph(x, k, batch)
            case "radius_graph":
                return pyg.radius_graph(x, r, batch)
            case "knn":
                return pyg.knn(x, x, k, batch, batch)
            case _:
                return pyg.fps(x, batch, ratio=0.5, random_start=False)


def check_pyg(args: Args, result: Any) -> str | None:
    batch = args["batch"]
    cloud = oracles.ids(batch, len(args["x"])) if batch is not None else [0] * len(args["x"])
    if args["what"] == "fps":
        picked = [cloud[row] for row in result.tolist()]
        due = {c: int(np.ceil(0.5 * cloud.count(c))) for c in cloud}
        wrong = {c for c in due if picked.count(c) != due[c]}
        return f"{picked.count(min(wrong))} points instead of {due[min(wrong)]}" if wrong else None
    across = [(a, b) for a, b in result.t().tolist() if cloud[a] != cloud[b]]
    if across:
        return f"the edge {across[0]} joins clouds"
    if args["what"] in ("knn_graph", "knn"):
        k, loop = int(args["k"]), args["what"] == "knn"
        receiver = result[0 if loop else 1].tolist()
        for row, of in enumerate(cloud):
            due = min(k, cloud.count(of) - (not loop))
            if receiver.count(row) != due:
                return f"row {row} has {receiver.count(row)} neighbors instead of {due}"
    return None


@dataclasses.dataclass(frozen=True)
class OfPyG(Spec):
    """A tensor that PyG's lines handle before ours do: what is none, or has no rows to count, they
    refuse in their words.

    So they do with a batch on another device, which they copy and warn of.
    """

    spec: Spec
    anywhere: bool = True

    def make(self) -> Any:
        return self.spec.make()

    def odd(self) -> Sequence[tuple[Spec, Expectation]]:
        return [
            (spec, expected)
            for spec, expected in self.spec.odd()
            if isinstance(spec, Floats | Whole | Sparse)
            and not (isinstance(spec, Floats) and spec.shape == ())
            and (self.anywhere or not isinstance(spec, Whole) or spec.device == "cpu")
        ]


def pyg_ops(draw: Draw) -> dict[str, Spec]:
    cloud = clouds(draw, empty=False)
    what = draw(st.sampled_from(("knn_graph", "radius_graph", "knn", "fps")))
    width = draw(st.integers(1, 4))
    return {
        "what": Const(what),
        "x": OfPyG(floats(draw, (cloud.num_points, width), finite=True)),
        "k": Count(draw(st.integers(1, 6)), capped=True),
        "r": Real(draw(st.sampled_from((0.5, 2.0))), low=0.0, open=True),
        "batch": OfPyG(cloud.batch(), anywhere="graph" not in what),
    }


PYG_NAMES = ("src", "y", "ratio", "pos", "batch_x", "batch_y")
entry("geometry.enable_pyg_ops", call=call_pyg, check=check_pyg, also=PYG_NAMES, fixed=("k", "r"))(
    pyg_ops
)


def switch(order: tuple[int, ...]) -> Any:
    """Take holders off in any order: PyG is as before once the last one is off."""
    import torch_geometric.typing

    flags = ("WITH_KNN", "WITH_RADIUS", "WITH_NEAREST", "WITH_FPS")
    before = [getattr(torch_geometric.typing, flag, None) for flag in flags]
    held = [geometry.enable_pyg_ops() for _ in order]
    for place in order:
        held[place].disable()
        held[place].disable()
    after = [getattr(torch_geometric.typing, flag, None) for flag in flags]
    if before != after or any(ops.enabled for ops in held):
        return f"flags {before} became {after}"
    return None


@entry("geometry.PygOps", call=switch, check=lambda args, result: result)
def pyg_switch(draw: Draw) -> dict[str, Spec]:
    return {"order": Const(tuple(draw(st.permutations(range(draw(st.integers(1, 4)))))))}
