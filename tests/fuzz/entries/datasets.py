"""Strategies for ``pyg_peft.datasets``: transforms, splits, keys, wrappers and made-up shapes."""

import itertools
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz import dice as st
from fuzz import oracles
from fuzz.dice import Draw
from fuzz.sandbox import EITHER, ERROR, RIGHT
from fuzz.strategies import (
    Args,
    Const,
    Count,
    Flag,
    Floats,
    Made,
    Maybe,
    Name,
    Perhaps,
    Real,
    Spec,
    Whole,
    Words,
    entry,
    floats,
)
from torch import Tensor
from torch_geometric.data import Data

from pyg_peft import datasets
from pyg_peft.datasets import transforms


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_cloud(draw: Draw, low: int = 0) -> dict[str, Spec]:
    number = draw(st.integers(low, 9))
    return {
        "pos": floats(draw, (number, 3), finite=True, coordinates=True),
        "normal": Maybe(floats(draw, (number, 3)), draw(st.booleans())),
        "seg": Maybe(Whole(tuple(range(number)), (number,)), draw(st.booleans())),
        "generator": Maybe(Made(generator, (draw(st.integers(0, 9)),)), draw(st.booleans())),
    }


def item(args: Args) -> Data:
    given = {n: args[n] for n in ("pos", "normal", "seg") if args.get(n) is not None}
    return Data(**given, y=torch.tensor([1]), sample_id=torch.tensor([7]))


def apply(kind: type[Any], args: Args, **call: Any) -> Data:
    names = ("pos", "normal", "seg", "generator")
    made = kind(**{n: v for n, v in args.items() if n not in names})
    assert repr(made)
    data = item(args)
    keys = set(data.keys())
    out = made(data, **call)
    assert set(out.keys()) == keys and data.pos is args["pos"], "the item itself was changed"
    return out


def values(data: Any) -> dict[str, Tensor]:
    return dict(data.to_dict())


def check_normalize(args: Args, result: Any) -> str | None:
    pos = oracles.array(args["pos"]).astype(np.float64)
    if not len(pos):
        return None if len(result["pos"]) == 0 else "points out of nothing"
    # Points that coincide are the middle themselves, whatever their rounded mean is.
    moved = pos - (pos.mean(0) if np.ptp(pos, axis=0).any() else pos[0])
    radius = np.linalg.norm(moved, axis=1).max()
    return oracles.near(result["pos"], moved / (radius if radius > 0 else 1.0), scale=1.0)


@entry(
    "transforms.Normalize",
    call=lambda **args: values(apply(datasets.Normalize, args)),
    check=check_normalize,
    also=("data",),
    fixed=("generator",),
)
def normalize(draw: Draw) -> dict[str, Spec]:
    return one_cloud(draw)


def call_preprocessing(
    pos: Any, num_points: Any, normalize: Any, up_axis: Any, seg: Any, normal: Any
) -> dict[str, Tensor]:
    made = datasets.Preprocessing(num_points, normalize=normalize, up_axis=up_axis)
    assert datasets.Preprocessing.from_dict(made.to_dict()) == made
    args = {"pos": pos, "seg": seg, "normal": normal}
    prepared = values(made.evaluation()(item(args)))
    again = values(made.evaluation()(item(args)))
    found: Any = prepared["pos"]
    assert found.is_meta or torch.equal(found, again["pos"]), "another draw"
    return prepared


def check_preprocessing(args: Args, result: Any) -> str | None:
    number, size = args["num_points"], len(args["pos"])
    expected = size if number is None else min(size, int(number))
    found = result["pos"]
    if tuple(found.shape) != (expected, 3):
        return f"{list(found.shape)} instead of {expected} points"
    if args["normalize"] and expected and not float(found.double().norm(dim=1).max()) <= 1.01:
        return "a point beyond the unit sphere"
    return None


@entry(
    "datasets.Preprocessing",
    call=call_preprocessing,
    check=check_preprocessing,
    also=("data",),
    fixed=("normal", "seg"),
)
def preprocessing(draw: Draw) -> dict[str, Spec]:
    cloud = one_cloud(draw)
    del cloud["generator"]
    return {
        **cloud,
        "num_points": Maybe(Count(draw(st.integers(1, 12))), draw(st.booleans())),
        "normalize": Flag(draw(st.booleans())),
        "up_axis": Name(draw(st.sampled_from("xyz"))),
    }


def check_resample(args: Args, result: Any) -> str | None:
    pos, number = torch.as_tensor(args["pos"]), int(args["num_points"])
    found = result["pos"]
    if len(found) != number:
        return f"{len(found)} points instead of {number}"
    rows = [(pos == row).all(1).nonzero().flatten().tolist() for row in found]
    if not all(rows):
        return "a point that was not there"
    distinct = {tuple(row) for row in pos.tolist()}
    if number >= len(pos) and {tuple(row) for row in found.tolist()} != distinct:
        return "a point was dropped"
    seg = result.get("seg")
    if seg is not None and len(seg) == number and seg.dtype == torch.long:
        own = [{int(args["seg"][row]) for row in some} for some in rows]
        if any(int(s) not in some for s, some in zip(seg, own, strict=True)):
            return "labels of other points"
    return None


@entry(
    "transforms.Resample",
    call=lambda generator, **args: values(apply(datasets.Resample, args, generator=generator)),
    check=check_resample,
    also=("data",),
    moves=True,
)
def resample(draw: Draw) -> dict[str, Spec]:
    return {**one_cloud(draw, 1), "num_points": Count(draw(st.integers(1, 12)))}


def check_moved(args: Args, result: Any) -> str | None:
    pos, low, high = torch.as_tensor(args["pos"]).double(), *args["scale"]
    found = result["pos"].double()
    if found.shape != pos.shape:
        return f"shape {list(found.shape)}"
    slack = 1e-3 + 2e-2 * float(pos.abs().max() if pos.numel() else 0)
    bound = pos.abs() * float(high) + float(args["translate"]) + slack
    if not bool((found.abs() <= bound).all()):
        return "points beyond the interval of factors and offsets"
    spread = (pos.amax(0) - pos.amin(0)) if len(pos) else None
    # A large offset rounds the shape away, and so do large coordinates.
    reach = float(pos.abs().max()) + float(args["translate"]) if len(pos) else 0.0
    if spread is not None and reach < 1e3:
        ratio = (found.amax(0) - found.amin(0)) / spread.clamp(min=1e-9)
        wrong = (spread > 1e-1) & ((ratio < low * 0.9) | (ratio > high * 1.1))
        return f"factors {ratio.tolist()}" if bool(wrong.any()) else None
    return None


@entry(
    "transforms.ScaleTranslate",
    call=lambda generator, **args: values(
        apply(datasets.ScaleTranslate, args, generator=generator)
    ),
    check=check_moved,
    also=("data",),
    moves=True,
)
def scale_translate(draw: Draw) -> dict[str, Spec]:
    return {
        **one_cloud(draw),
        "scale": OddScale(draw(st.sampled_from(((0.5, 1.5), (1.0, 1.0))))),
        "translate": Real(0.2, 0.0),
    }


class OddScale(Const):
    """An interval."""

    def odd(self) -> Any:
        nan = float("nan")
        bad = [
            3,
            "ab",
            (1,),
            (2.0, 1.0),
            (0.0, 1.0),
            (-1.0, 1.0),
            (nan, nan),
            (1, nan),
            None,
            ("1", "2"),
        ]
        bad += [(1.0, float("inf")), (0.5, 1.0, 2.0)]
        return [*((Const(value), ERROR) for value in bad), (Const([0.5, 1.5]), EITHER)]


def check_turned(args: Args, result: Any) -> str | None:
    pos = torch.as_tensor(args["pos"]).double()
    found, axis = result["pos"].double(), "xyz".index(args["axis"])
    unit = 1e-2 if torch.as_tensor(args["pos"]).element_size() == 2 else 1e-4
    slack = unit * (1 + float(pos.abs().max() if pos.numel() else 0))
    if found.shape != pos.shape or not torch.allclose(found[:, axis], pos[:, axis], atol=slack):
        return "heights changed"
    if not torch.allclose(found.norm(dim=1), pos.norm(dim=1), rtol=unit * 10, atol=slack):
        return "distances changed"
    return None


@entry(
    "transforms.UpRotate",
    call=lambda generator, **args: values(apply(datasets.UpRotate, args, generator=generator)),
    check=check_turned,
    also=("data",),
    moves=True,
)
def up_rotate(draw: Draw) -> dict[str, Spec]:
    return {**one_cloud(draw), "axis": Name(draw(st.sampled_from("xyz")))}


def select(index: Any, **args: Any) -> Any:
    return values(transforms.select_points(item(args), index))


def check_selected(args: Args, result: Any) -> str | None:
    pos, index = torch.as_tensor(args["pos"]), torch.as_tensor(args["index"]).long()
    if not torch.equal(result["pos"].nan_to_num(), pos[index].nan_to_num()):
        return "other points"
    return None if result["y"].tolist() == [1] else "the label of the cloud changed"


@entry("transforms.select_points", call=select, check=check_selected, also=("data",))
def select_points(draw: Draw) -> dict[str, Spec]:
    args = {name: spec for name, spec in one_cloud(draw, 1).items() if name != "generator"}
    number = args["pos"].shape[0]  # pyright: ignore[reportAttributeAccessIssue]
    rows = tuple(draw(st.lists(st.integers(0, number - 1), max_size=6)))
    return {**args, "index": Whole(rows, (len(rows),), high=number)}


def keys_of(**args: Any) -> list[str]:
    return transforms.point_keys(item(args))


def check_keys(args: Args, result: Any) -> str | None:
    number = len(args["pos"])
    given = {n: args[n] for n in ("pos", "normal", "seg") if args.get(n) is not None}
    given = {n: value for n, value in given.items() if isinstance(value, Tensor)}
    due = {n for n, value in given.items() if value.dim() > 0 and len(value) == number}
    return None if set(result) == due else f"{result} instead of {sorted(due)}"


@entry("transforms.point_keys", call=keys_of, check=check_keys, also=("data",))
def point_keys(draw: Draw) -> dict[str, Spec]:
    return {name: spec for name, spec in one_cloud(draw).items() if name != "generator"}


# ---- keys ----------------------------------------------------------------------------------------

KEYS = (0, -1, 2**70, "", "a", "ü\0", np.int64(3), True)
ODD_KEYS = (1.5, None, [1], float("nan"), b"x", 1j)


def call_key(what: str, key: tuple[Any, ...]) -> Any:
    if what == "generator":
        return int(torch.randint(2**62, (), generator=datasets.keyed_generator(*key)))
    if what == "globals":
        before = torch.get_rng_state()
        with datasets.keyed_globals(*key):
            drawn = int(torch.randint(2**62, ()))
        assert torch.equal(before, torch.get_rng_state()), "the global generator moved"
        return drawn
    return datasets.keyed_seed(*key)


def check_key(args: Args, result: Any) -> str | None:
    if not 0 <= result < 2**63 or call_key(args["what"], args["key"]) != result:
        return f"{result}, and another number the second time"
    other = call_key(args["what"], (*args["key"], 1))
    return "two keys gave one number" if other == result else None


def some_key(what: str) -> Any:
    def draw_key(draw: Draw) -> dict[str, Spec]:
        valid = draw(st.booleans())
        key = tuple(draw(st.lists(st.sampled_from(KEYS if valid else KEYS + ODD_KEYS), max_size=3)))
        return {"what": Const(what), "key": Const(key) if valid else Perhaps(key)}

    return draw_key


for _what in ("seed", "generator", "globals"):
    entry(f"datasets.keyed_{_what}", call=call_key, check=check_key)(some_key(_what))


# ---- splits --------------------------------------------------------------------------------------


def labels(draw: Draw, low: int = 0) -> Whole:
    some = tuple(draw(st.lists(st.integers(0, 2), min_size=low, max_size=14)))
    return Whole(some, (len(some),), labels=True)


def check_split(args: Args, result: Any) -> str | None:
    train, val = (rows.tolist() for rows in result)
    number = len(torch.as_tensor(args["labels"]))
    if sorted(train + val) != list(range(number)):
        return f"{train} and {val} of {number}"
    groups = args["groups"]
    if groups is not None and {int(groups[r]) for r in train} & {int(groups[r]) for r in val}:
        return "a group on both sides"
    if groups is None:
        all_labels = torch.as_tensor(args["labels"]).tolist()
        for label in set(all_labels):
            size = all_labels.count(label)
            found = sum(all_labels[row] == label for row in val)
            due = min(max(int(np.floor(size * float(args["fraction"]) + 0.5)), 1), size - 1)
            if found != due:
                return f"{found} of {size} of class {label} instead of {due}"
    return None


@entry("datasets.train_val_split", call=datasets.train_val_split, check=check_split)
def train_val_split(draw: Draw) -> dict[str, Spec]:
    some = labels(draw)
    groups = tuple(draw(st.integers(0, 3)) for _ in some.values)
    return {
        "labels": some,
        "fraction": Real(draw(st.sampled_from((0.1, 0.5, 0.9))), 0.0, 1.0, open=True),
        "seed": Const(draw(st.integers(0, 9))),
        "groups": Maybe(Whole(groups, (len(groups),), labels=True), draw(st.booleans())),
    }


def check_episode(args: Args, result: Any) -> str | None:
    known = torch.as_tensor(args["labels"])
    ways, shots, queries = (int(args[n]) for n in ("num_ways", "num_shots", "num_queries"))
    if len(result.classes) != ways or list(result.classes) != sorted(set(result.classes)):
        return f"classes {result.classes}"
    if known[result.support].tolist() != [c for c in result.classes for _ in range(shots)]:
        return "a support of other classes"
    if known[result.query].tolist() != [c for c in result.classes for _ in range(queries)]:
        return "queries of other classes"
    rows = result.support.tolist() + result.query.tolist()
    return "a row in both" if len(set(rows)) < len(rows) else None


@entry("datasets.few_shot_episode", call=datasets.few_shot_episode, check=check_episode)
def few_shot_episode(draw: Draw) -> dict[str, Spec]:
    shots, queries = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    some = tuple(
        label for label in range(3) for _ in range(shots + queries + draw(st.integers(0, 2)))
    )
    return {
        "labels": Whole(some, (len(some),), labels=True),
        "num_ways": Count(draw(st.integers(1, 3)), high=3),
        "num_shots": Count(shots, high=99),
        "num_queries": Count(queries, high=99),
        "episode": Const(draw(st.integers(0, 9))),
        "seed": Const(draw(st.integers(0, 9))),
    }


# ---- wrappers ------------------------------------------------------------------------------------

ITEM_LABELS = (0, 1, 2, 0.5, float("nan"), -1, 10**6)


def a_list(items: tuple[tuple[int, Any], ...]) -> list[Data]:
    """A plain list of items, as a user may have one."""
    return [
        Data(pos=torch.randn(size, 3, generator=generator(place)), y=torch.tensor([label]))
        for place, (size, label) in enumerate(items)
    ]


def some_items(draw: Draw, *, odd: bool, number: int) -> tuple[Spec, bool]:
    choices = ITEM_LABELS if odd else ITEM_LABELS[:3]
    some = tuple((draw(st.integers(0, 5)), draw(st.sampled_from(choices))) for _ in range(number))
    return Made(a_list, (some,)), all(label in (0, 1, 2) for _, label in some)


def wrap(dataset: Any, class_names: Any) -> Any:
    wrapped = datasets.SampleIds(dataset, class_names)
    known = wrapped.labels
    assert known.dtype == torch.long, f"labels of type {known.dtype}"
    names = wrapped.class_names
    assert not len(known) or 0 <= int(known.min()) <= int(known.max()) < len(names), (
        f"labels {known.tolist()} of {names}"
    )
    return [(int(data.sample_id), int(data.y)) for data in wrapped]


def check_ids(args: Args, result: Any) -> str | None:
    expected = [(place, int(data.y)) for place, data in enumerate(args["dataset"])]
    return None if result == expected else f"{result} instead of {expected}"


class MadePerhaps(Made):
    """Items of which some may have odd labels."""

    base = EITHER


@entry("datasets.SampleIds", call=wrap, check=check_ids, also=("y", "label", "labels"))
def sample_ids(draw: Draw) -> dict[str, Spec]:
    odd = draw(st.booleans())
    spec, valid = some_items(draw, odd=odd, number=draw(st.integers(0, 4)))
    names = ("a", "b", "c") if draw(st.booleans()) else None
    return {
        "dataset": spec if valid else MadePerhaps(spec.what, spec.args),  # pyright: ignore[reportAttributeAccessIssue]
        "class_names": Const(names) if names is None else Words(names, optional=True, free=True),
    }


def augment(dataset: Any, transform: Any, seed: Any, num_views: Any, epoch: Any) -> Any:
    augmented = datasets.Augmented(
        datasets.SampleIds(dataset), transform, seed, num_views=num_views
    )
    augmented.set_epoch(epoch)
    items: Any = augmented
    return [data.pos for data in items], [items[place].pos for place in range(len(items))]


def check_augmented(args: Args, result: Any) -> str | None:
    return None if all(map(torch.equal, *result)) else "two draws of one key differ"


def turn() -> Any:
    return datasets.UpRotate()


@entry("datasets.Augmented", call=augment, check=check_augmented)
def augmented(draw: Draw) -> dict[str, Spec]:
    return {
        "dataset": some_items(draw, odd=False, number=2)[0],
        "transform": Made(turn),
        "seed": Const(draw(st.integers(0, 9))),
        "num_views": Count(draw(st.sampled_from((None, 1, 3))), optional=True, capped=True),
        "epoch": Count(draw(st.integers(0, 5)), low=0),
    }


def few(dataset: Any, rows: Any, classes: Any) -> Any:
    subset = datasets.FewShotSubset(datasets.SampleIds(dataset, ("a", "b", "c")), rows, classes)
    return subset.labels.tolist(), [int(data.y) for data in subset]


def check_few(args: Args, result: Any) -> str | None:
    known = [int(data.y) for data in args["dataset"]]
    expected = [list(args["classes"]).index(known[int(row)]) for row in args["rows"]]
    return None if result == (expected, expected) else f"{result} instead of {expected}"


@entry("datasets.FewShotSubset", call=few, check=check_few, fixed=("classes",))
def few_shot_subset(draw: Draw) -> dict[str, Spec]:
    rows = tuple(draw(st.lists(st.integers(0, 3), max_size=4)))
    return {
        "dataset": some_items(draw, odd=False, number=4)[0],
        "rows": Whole(rows, (len(rows),), high=4),
        "classes": Const((0, 1, 2)),
    }


SEGMENTS = (0, 1, 2, -1, 255, 0.5, float("nan"))


def parts_list(items: tuple[tuple[Any, ...], ...]) -> list[Data]:
    return [
        Data(pos=torch.zeros(len(seg), 3), seg=torch.tensor(seg), y=torch.tensor([0]))
        for seg in items
    ]


def label_parts(dataset: Any, part_names: Any) -> Any:
    wrapped = datasets.PartLabels(dataset, part_names)
    for data in wrapped:
        assert data.y.dtype == torch.long, f"labels of type {data.y.dtype}"
        low, high = (int(data.y.min()), int(data.y.max())) if data.y.numel() else (0, 0)
        assert low >= -1 and high < wrapped.num_classes, (
            f"labels {low} to {high} of {wrapped.num_classes}"
        )
    assert wrapped.num_classes <= 100, f"{wrapped.num_classes} parts"
    return [data.y for data in wrapped]


def check_parts(args: Args, result: Any) -> str | None:
    given = [data.seg.tolist() for data in args["dataset"]]
    return None if [y.tolist() for y in result] == given else f"{result} instead of {given}"


@entry(
    "datasets.PartLabels", call=label_parts, check=check_parts, also=("seg", "y", "ignore_index")
)
def part_labels(draw: Draw) -> dict[str, Spec]:
    odd = draw(st.booleans())
    choices = SEGMENTS if odd else SEGMENTS[:3]
    some = tuple(
        tuple(draw(st.sampled_from(choices)) for _ in range(draw(st.integers(1, 4))))
        for _ in range(draw(st.integers(1, 3)))
    )
    kind = MadePerhaps if odd else Made
    return {
        "dataset": kind(parts_list, (some,)),
        "part_names": Maybe(Words(("a", "b", "c"), free=True), draw(st.booleans())),
    }


# ---- shapes that are made ------------------------------------------------------------------------


def effects(draw: Draw) -> dict[str, Spec]:
    return {
        "one_sided": Real(draw(st.sampled_from((0.0, 0.5, 1.0))), 0.0, 1.0),
        "max_holes": Count(draw(st.integers(0, 3)), low=0),
        "hole_radius": Real(0.3, 0.0),
        "density": Real(2.0, 0.0),
        "noise": Real(0.01, 0.0),
    }


def scanned(**args: Any) -> Any:
    made = datasets.ScanEffects(**args)
    return datasets.ProceduralStream(16, scan=made).shape(0).pos


@entry("datasets.ScanEffects", call=scanned, check=lambda args, result: check_shape(16, result))
def scan_effects(draw: Draw) -> dict[str, Spec]:
    return effects(draw)


def check_shape(number: int, pos: Any) -> str | None:
    return (
        None
        if tuple(pos.shape) == (number, 3) and pos.dtype == torch.float32
        else f"{pos.shape} of {pos.dtype}"
    )


def make_shape(index: Any, **args: Any) -> Any:
    shapes = datasets.ProceduralShapes(**args)
    data: Any = shapes[index]
    assert int(data.y) == index % shapes.num_classes == int(shapes.labels[index])
    return data.pos


@entry(
    "datasets.ProceduralShapes",
    call=make_shape,
    check=lambda a, r: check_shape(int(a["num_points"]), r),
    fixed=("index",),
)
def procedural_shapes(draw: Draw) -> dict[str, Spec]:
    return {
        "index": Const(draw(st.integers(0, 11))),
        "split": Name(draw(st.sampled_from(("train", "val", "test")))),
        "num_shapes": Count(12, high=None),
        "num_points": Count(draw(st.integers(1, 24))),
        "seed": Count(draw(st.integers(0, 9)), low=0),
        "difference_probability": Real(draw(st.sampled_from((0.0, 1.0))), 0.0, 1.0),
    }


def make_stream(**args: Any) -> Any:
    return next(iter(datasets.ProceduralStream(**args))).pos


def stream_args(draw: Draw) -> dict[str, Spec]:
    return {
        "num_points": Count(draw(st.integers(1, 24))),
        "seed": Count(draw(st.integers(0, 9)), low=0),
        "start": Count(draw(st.integers(0, 99)), low=0),
        "step": Count(draw(st.integers(1, 3))),
        "difference_probability": Real(draw(st.sampled_from((0.0, 1.0))), 0.0, 1.0),
    }


entry(
    "datasets.ProceduralStream",
    call=make_stream,
    check=lambda a, r: check_shape(int(a["num_points"]), r),
)(stream_args)


def iterate(**args: Any) -> Any:
    return next(datasets.procedural_stream(**args)).pos


entry(
    "datasets.procedural_stream",
    call=iterate,
    check=lambda a, r: check_shape(int(a["num_points"]), r),
)(stream_args)


# ---- data sets in files that are whole -----------------------------------------------------------


def write_set(folder: Path, arrays: Args) -> str:
    path = str(folder / "set.npz")
    datasets.NpzShapes.write(path, **arrays)
    return path


def round_trip(num_points: Any, normalize: Any, min_count: Any, split: Any, **arrays: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = write_set(Path(folder), {"class_names": ("a", "b"), **arrays})
        options: dict[str, Any] = {
            "num_points": num_points,
            "normalize": normalize,
            "min_count": min_count,
        }
        shapes = datasets.NpzShapes(path, split, **options)
        return [(data.pos, data.get("seg"), int(data.y)) for data in shapes]


def check_round_trip(args: Args, result: Any) -> str | None:
    chosen = [place for place, label in enumerate(args["labels"]) if label >= 0]
    if args["min_count"] <= 1 and len(result) != len(chosen):
        return f"{len(result)} clouds instead of {len(chosen)}"
    clouds: Any = args["clouds"]
    for (pos, seg, _), place in zip(result, chosen, strict=False):
        points = np.asarray(clouds[place])
        if args["num_points"] is None and not args["normalize"]:
            problem = oracles.near(pos, points)
            if problem:
                return problem
        if seg is not None and (seg.dtype != torch.long or len(seg) != len(pos)):
            return f"labels {seg}"
    return None


class CloudList(Const):
    """Arrays of clouds, of which one may be odd."""

    def odd(self) -> Any:
        first = self.value[0]
        bad: list[Any] = [first[:, :2], first * np.nan, "text", None, np.zeros(3), [["a"]]]
        new: list[Any] = [(Const((cloud, *self.value[1:])), ERROR) for cloud in bad]
        new += [(Const(junk), ERROR) for junk in (3, None, "text")]
        new += [
            (Const((torch.from_numpy(first.copy()).t().contiguous().t(), *self.value[1:])), EITHER)
        ]
        new += [(Const((first.astype(kind), *self.value[1:])), EITHER) for kind in ("f2", "U9")]
        new += [(Const((first + 1e9, *self.value[1:])), EITHER)]
        return new


@entry(
    "datasets.NpzShapes",
    call=round_trip,
    check=check_round_trip,
    also=("class_names", "path"),
    fixed=("split",),
    moves=True,
)
def npz_shapes(draw: Draw) -> dict[str, Spec]:
    number = draw(st.integers(1, 3))
    sizes = [draw(st.integers(1, 5)) for _ in range(number)]
    clouds = tuple(Floats((size, 3), dtype="float64", seed=size).make().numpy() for size in sizes)
    seg = tuple(np.arange(size) % 2 for size in sizes)
    return {
        "clouds": CloudList(clouds),
        "labels": OddLabels(tuple(draw(st.integers(-1, 1)) for _ in range(number))),
        "seg": OddSegments(seg),
        "num_points": Count(draw(st.sampled_from((None, 2))), optional=True, capped=True),
        "normalize": Flag(draw(st.booleans())),
        "min_count": Const(0),
        "split": Const(None),
    }


class OddLabels(Const):
    """Labels of clouds."""

    @property
    def base(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        # Without one labeled cloud there may be nothing to open.
        return RIGHT if max(self.value) >= 0 else EITHER

    def odd(self) -> Any:
        rest = self.value[1:]
        bad: list[Any] = [
            (-2, *rest),
            (2, *rest),
            (0.5, *rest),
            ("a", *rest),
            (float("nan"), *rest),
        ]
        bad += [(2**40, *rest), (0, 0, *rest), rest, None, "text", 3]
        return [(Const(value), ERROR) for value in bad]


class OddSegments(Const):
    """Labels of points."""

    def odd(self) -> Any:
        first, rest = self.value[0], self.value[1:]
        bad = [
            first + 0.5,
            np.full(len(first), np.nan),
            first[:-1],
            first[:, None],
            first.astype(str),
        ]
        new = [(Const((value, *rest)), ERROR) for value in bad]
        new += [(Const((first - 1, *rest)), EITHER), (Const((first + 255, *rest)), EITHER)]
        return [*new, (Const(None), EITHER), (Const(3), ERROR)]


def open_folder(files: tuple[str, ...], number: int, split: Any, **options: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        for place, name in enumerate(files):
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savetxt(path, np.random.default_rng(place).normal(size=(number, 3)))
        before = sorted(os.listdir(folder))
        shapes = [datasets.ShapeFolder(folder, split, **options) for _ in range(2)]
        out = [[data.pos for data in some] for some in shapes]
        assert set(os.listdir(folder)) - set(before) <= {".pyg_peft"}, "files beside the cache"
        return out[0], out[1], shapes[0].labels.tolist()


def check_folder(args: Args, result: Any) -> str | None:
    first, second, known = result
    if not all(map(torch.equal, first, second)):
        return "the cache gives other points"
    if args["split"] is None and len(first) != len(args["files"]):
        return f"{len(first)} of {len(args['files'])} files"
    classes = {Path(name).parts[0] for name in args["files"]}
    return None if set(known) <= set(range(len(classes))) else f"labels {known}"


@entry(
    "datasets.ShapeFolder",
    call=open_folder,
    check=check_folder,
    also=("root",),
    fixed=("files", "number"),
)
def shape_folder(draw: Draw) -> dict[str, Spec]:
    names = [f"{c}/{n}.xyz" for c, n in itertools.product("ab", "12")]
    files = tuple(names[: draw(st.integers(1, 4))])
    return {
        "files": Const(files),
        "number": Const(draw(st.integers(1, 5))),
        "split": Const(None),
        "num_points": Count(draw(st.sampled_from((None, 3))), optional=True, capped=True),
        "normalize": Flag(draw(st.booleans())),
        "seed": Const(draw(st.integers(0, 3))),
        "extensions": Words((".xyz",)),
        "drop_invalid": Flag(False),
    }
