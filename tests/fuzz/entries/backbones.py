"""Strategies for ``pyg_peft.backbones``: built small by the recipes of the battery, and called.

For models on clouds the law of batches is the oracle: a cloud gives in company what it gives alone.
"""

import dataclasses
from typing import Any

import torch
from backbone_recipes import CENTERS, CHANNELS, HEADS, MEMBERS, PRETRAINING, SIZES
from flat_backbones import CASES
from fuzz import dice as st
from fuzz import oracles
from fuzz.dice import Draw
from fuzz.entries.geometry import edges
from fuzz.entries.nn import build
from fuzz.strategies import (
    Args,
    Cloud,
    Const,
    Count,
    Flag,
    Mask,
    Maybe,
    Real,
    Sizes,
    Spec,
    Whole,
    clouds,
    entry,
    floats,
)
from torch import Tensor

from pyg_peft import backbones
from pyg_peft.geometry import build_patches

CLASSES = 3
_NONE_ALLOWED = ("decoder_depth",)  # levels of Point Transformer may have no blocks
_PASSED = ("x", "pos", "batch", "batch_size", "category")


def cloud_args(draw: Draw, channels: int, cloud: Cloud | None = None) -> dict[str, Spec]:
    cloud = clouds(draw) if cloud is None else cloud
    return {
        "x": floats(draw, (cloud.num_points, channels)) if channels else Const(None),
        "pos": cloud.pos(draw),
        "batch": cloud.batch(),
        "batch_size": cloud.batch_size(),
    }


def run_model(kind: type[Any], args: Args) -> Tensor:
    call = {name: args[name] for name in _PASSED if name in args}
    built = {name: value for name, value in args.items() if name not in _PASSED}
    return build(kind, built, call["pos"])(**call)


def check_alone(kind: type[Any], args: Args, result: Any, per_point: bool) -> str | None:
    """One row per point or cloud, and each cloud as if alone."""
    pos = torch.as_tensor(args["pos"])
    cloud = torch.tensor(oracles.ids(args["batch"], len(pos)), dtype=torch.long)
    number = oracles.number_of_clouds(args)
    rows = len(pos) if per_point else number
    if tuple(result.shape) != (rows, int(args["num_classes"])):
        return f"scores of shape {list(result.shape)} for {rows} rows"
    for own in cloud.unique().tolist()[:1]:
        chosen = (cloud == own).nonzero().flatten()
        if not _untied(pos[chosen]):
            continue
        alone = dict(args, pos=pos[chosen], batch=None, batch_size=None)
        if args.get("x") is not None:
            alone["x"] = torch.as_tensor(args["x"])[chosen]
        if args.get("category") is not None:
            alone["category"] = args["category"][own : own + 1]
        expected = run_model(kind, alone).detach().double().numpy()
        found = result[chosen] if per_point else result[own : own + 1]
        problem = oracles.near(
            found, expected, f"cloud {own} alone", scale=1.0 + abs(expected).max(initial=0)
        )
        if problem:
            return problem
    return None


def _untied(pos: Tensor) -> bool:
    """Whether rounding cannot decide between neighbors: it differs with the size of a batch."""
    distance = torch.pdist(pos.double()).sort().values
    return pos.dtype == torch.float64 and not bool((distance.diff() < 1e-6).any())


def model(name: str, per_point: bool, draw_args: Any, **options: Any) -> None:
    kind = getattr(backbones, name)
    entry(
        f"backbones.{name}",
        call=lambda **args: run_model(kind, args),
        check=lambda args, result: check_alone(kind, args, result, per_point),
        **options,
    )(draw_args)


def as_spec(name: str, value: Any) -> Spec:
    """A valid argument of a constructor, as a description that can be made odd."""
    if isinstance(value, bool):
        return Flag(value)
    if isinstance(value, int):
        return Count(value, low=0 if name in _NONE_ALLOWED else 1)
    if isinstance(value, float):
        return Real(value, 0.0, 1.0 - 1e-9)
    return Sizes(value) if isinstance(value[0], int | tuple) else Const(value)


def flat_model(name: str) -> Any:
    case = CASES[name]

    def draw_args(draw: Draw) -> dict[str, Spec]:
        channels = draw(st.sampled_from((0, 2)))
        sizes = {**case.told, **case.untold}
        if name.startswith("PointNet") and "Plus" not in name:
            sizes["transforms"] = False  # large, and fuzzed as TNet
        return {
            **cloud_args(draw, channels),
            "num_classes": Count(CLASSES),
            "in_channels": Count(channels, low=0),
            **{size: as_spec(size, value) for size, value in sizes.items()},
        }

    return draw_args


for _name, _case in CASES.items():
    if _name in backbones.__all__:
        model(_name, _case.segments, flat_model(_name))


def token_sizes(**more: Any) -> dict[str, Spec]:
    return {name: Count(value) for name, value in {**SIZES, **more}.items()}


def point_mae(draw: Draw) -> dict[str, Spec]:
    channels = draw(st.sampled_from((0, 0, 2)))
    return {
        **cloud_args(draw, channels),
        "num_classes": Count(CLASSES),
        "in_channels": Count(channels, low=0),
        **token_sizes(),
        "drop_path": Real(0.1, 0.0, 1.0 - 1e-9),
        "head_dropout": Real(0.5, 0.0, 1.0),
    }


def point_mae_segmentation(draw: Draw) -> dict[str, Spec]:
    cloud = clouds(draw)
    categories = draw(st.sampled_from((0, 3)))
    ids = tuple(draw(st.integers(0, 2)) for _ in cloud.counts)
    return {
        **cloud_args(draw, 0, cloud),
        "category": Maybe(Whole(ids, (len(ids),), high=3), categories > 0),
        "num_classes": Count(CLASSES),
        "num_categories": Count(categories, low=0),
        **token_sizes(),
        "num_levels": Count(2, high=2),
        "head_channels": Count(8),
    }


model("PointMAE", False, point_mae)
model("PointMAESegmentation", True, point_mae_segmentation)


# ---- masked pre-training -------------------------------------------------------------------------


def pretrain(kind: type[Any], args: Args) -> Any:
    call = {name: args[name] for name in ("pos", "batch", "batch_size")}
    built = {name: value for name, value in args.items() if name not in call}
    model = build(kind, built, call["pos"])
    return model.reconstruct(**call, generator=torch.Generator().manual_seed(0)).points


def pretraining(draw: Draw) -> dict[str, Spec]:
    return {
        **{name: spec for name, spec in cloud_args(draw, 0).items() if name != "x"},
        **{name: Count(value) for name, value in PRETRAINING.items()},
        "mask_ratio": Real(draw(st.sampled_from((0.3, 0.6))), 1e-9, 1.0 - 1e-9),
        "drop_path": Real(0.1, 0.0, 1.0 - 1e-9),
    }


def completion(draw: Draw) -> dict[str, Spec]:
    return {
        **pretraining(draw),
        "num_cloud_points": Count(5),
        "completion_weight": Real(0.1, 0.0),
    }


entry(
    "backbones.PointMAEPretraining",
    call=lambda **args: pretrain(backbones.PointMAEPretraining, args),
)(pretraining)
entry(
    "backbones.PointMAECompletion", call=lambda **args: pretrain(backbones.PointMAECompletion, args)
)(completion)


# ---- parts ---------------------------------------------------------------------------------------


def run_part(kind: type[Any], first: Any, built: Args, *call: Any) -> Any:
    return build(kind, built, first)(*call)


def split_args(args: Args, *names: str) -> tuple[list[Any], dict[str, Any]]:
    return [args[n] for n in names], {n: v for n, v in args.items() if n not in names}


def part(name: str, *passed: str, shape: Any = None, **options: Any) -> Any:
    """Register a layer: ``passed`` are the arguments of its call, the others build it."""
    kind = getattr(backbones, name)

    def call(**args: Any) -> Any:
        given, built = split_args(args, *passed)
        first = next((value for value in given if value is not None), None)  # x may be left out
        return run_part(kind, first, built, *given)

    def check(args: Args, result: Any) -> str | None:
        if shape is None:
            return None
        expected = tuple(shape(args))
        return None if tuple(result.shape) == expected else f"{list(result.shape)} for {expected}"

    return entry(f"backbones.{name}", call=call, check=check, **options)


def shape_of(x: Any) -> tuple[int, ...]:
    return tuple(torch.as_tensor(x).shape)


@part("Mlp", "x", shape=lambda a: shape_of(a["x"]))
def mlp(draw: Draw) -> dict[str, Spec]:
    wide = draw(st.integers(1, 8))
    shape = (*draw(st.lists(st.integers(0, 4), max_size=2)), wide)
    return {"x": floats(draw, shape), "channels": Count(wide), "hidden_channels": Count(4)}


@part("DropPath", "x", shape=lambda a: shape_of(a["x"]))
def drop_path(draw: Draw) -> dict[str, Spec]:
    shape = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    return {"x": floats(draw, tuple(shape)), "drop_prob": Real(0.5, 0.0, 1.0 - 1e-9)}


@part("Attention", "x", "mask", shape=lambda a: shape_of(a["x"]))
def attention(draw: Draw) -> dict[str, Spec]:
    number, tokens = draw(st.integers(0, 3)), draw(st.integers(1, 5))
    mask = tuple(t == 0 or draw(st.booleans()) for _ in range(number) for t in range(tokens))
    return {
        "x": floats(draw, (number, tokens, CHANNELS)),
        "mask": Maybe(Mask(mask, (number, 1, 1, tokens)), draw(st.booleans())),
        "channels": Count(CHANNELS),
        "num_heads": Count(HEADS, high=CHANNELS),
    }


@part("Block", "x", shape=lambda a: shape_of(a["x"]))
def block(draw: Draw) -> dict[str, Spec]:
    return {
        "x": floats(draw, (draw(st.integers(0, 3)), draw(st.integers(1, 5)), CHANNELS)),
        "channels": Count(CHANNELS),
        "num_heads": Count(HEADS, high=CHANNELS),
        "mlp_ratio": Real(2.0, 0.0, open=True, factor=True),
        "drop_path": Real(0.1, 0.0, 1.0 - 1e-9),
    }


@part("ClassificationHead", "x", shape=lambda a: (*shape_of(a["x"])[:-1], int(a["num_classes"])))
def head(draw: Draw) -> dict[str, Spec]:
    return {
        "x": floats(draw, (draw(st.integers(0, 4)), 5)),
        "in_channels": Count(5),
        "num_classes": Count(CLASSES),
        "dropout": Real(0.5, 0.0, 1.0),
    }


@part(
    "SegmentationHead",
    "x",
    "summary",
    "batch",
    "category",
    shape=lambda a: (len(a["x"]), int(a["num_classes"])),
)
def segmentation_head(draw: Draw) -> dict[str, Spec]:
    cloud = clouds(draw)
    categories = draw(st.sampled_from((0, 2)))
    ids = tuple(draw(st.integers(0, 1)) for _ in cloud.counts)
    return {
        "x": floats(draw, (cloud.num_points, 6)),
        "summary": floats(draw, (cloud.size, 5)),
        "batch": cloud.batch(),
        "category": Maybe(Whole(ids, (len(ids),), high=2), categories > 0),
        "in_channels": Count(6),
        "summary_channels": Count(5),
        "num_classes": Count(CLASSES),
        "num_categories": Count(categories, low=0),
        "lift_channels": Count(8),
        "channels": Count(8),
        "dropout": Real(0.5, 0.0, 1.0),
    }


def of_level(draw: Draw, channels: int) -> tuple[Cloud, dict[str, Spec]]:
    """A level of a network is always told the clouds."""
    cloud = dataclasses.replace(clouds(draw), flat=False)
    args = cloud_args(draw, channels, cloud)
    return cloud, {**args, "batch": cloud.batch().spec}


@part(
    "EdgeConvBlock",
    "x",
    "pos",
    "batch",
    "batch_size",
    shape=lambda a: (len(a["x"]), a["channels"][-1]),
)
def edge_conv(draw: Draw) -> dict[str, Spec]:
    _, args = of_level(draw, 4)
    return {
        **args,
        "in_channels": Count(4),
        "channels": Sizes((6, 5)),
        "k": Count(draw(st.integers(1, 5)), capped=True),
        "by_pos": Flag(draw(st.booleans())),
        "slope": Real(0.2),
    }


@part("SetAbstraction", "x", "pos", "batch", "batch_size")
def set_abstraction(draw: Draw) -> dict[str, Spec]:
    channels = draw(st.sampled_from((0, 4)))
    _, args = of_level(draw, channels)
    return {
        **args,
        "in_channels": Count(channels, low=0),
        "channels": Sizes((6, 5)),
        "num_centers": Count(draw(st.integers(1, CENTERS))),
        "radius": Real(1.0, 0.0, open=True, infinite=True),
        "patch_size": Count(draw(st.integers(1, MEMBERS)), capped=True),
    }


@part("GlobalSetAbstraction", "x", "pos", "batch", "batch_size")
def global_abstraction(draw: Draw) -> dict[str, Spec]:
    _, args = of_level(draw, 4)
    return {**args, "in_channels": Count(4), "channels": Sizes((6, 5))}


@part(
    "FeaturePropagation",
    *("x", "pos", "batch", "coarse_x", "coarse_pos", "coarse_batch", "batch_size"),
    shape=lambda a: (len(a["pos"]), a["channels"][-1]),
)
def propagation(draw: Draw) -> dict[str, Spec]:
    cloud, args = of_level(draw, 4)
    coarse = Cloud(tuple(min(2, count) for count in cloud.counts), False)
    return {
        **args,
        "coarse_x": floats(draw, (coarse.num_points, 6)),
        "coarse_pos": coarse.pos(draw),
        "coarse_batch": coarse.batch().spec,
        "coarse_channels": Count(6),
        "in_channels": Count(4, low=0),
        "channels": Sizes((6, 5)),
        "k": Count(3, capped=True),
    }


@part("PointTransformerBlock", "x", "pos", "edge_index", shape=lambda a: shape_of(a["x"]))
def transformer_block(draw: Draw) -> dict[str, Spec]:
    number = draw(st.integers(0, 8))
    return {
        "x": floats(draw, (number, 6)),
        "pos": floats(draw, (number, 3), finite=True, coordinates=True),
        "edge_index": edges(draw, number, number),
        "channels": Count(6),
        "share": Count(3, high=6),
    }


@part("TNet", "x", "batch", "batch_size", shape=lambda a: shape_of(a["x"]))
def t_net(draw: Draw) -> dict[str, Spec]:
    cloud, args = of_level(draw, 3)
    return {
        "x": args["x"],
        "batch": args["batch"],
        "batch_size": Count(cloud.size, low=0),
        "channels": Count(3),
    }


def check_penalty(args: Args, result: Any) -> str | None:
    t = torch.as_tensor(args["matrices"]).double()
    expected = (torch.eye(t.size(1)) - t @ t.transpose(1, 2)).square().sum((1, 2)).mean()
    return oracles.near(result, expected.numpy())


@entry("backbones.orthogonality_penalty", call=backbones.orthogonality_penalty, check=check_penalty)
def penalty(draw: Draw) -> dict[str, Spec]:
    wide = draw(st.integers(1, 4))
    return {"matrices": floats(draw, (draw(st.integers(1, 3)), wide, wide))}


def embed(embed_dim: Any, in_channels: Any, pos: Any, x: Any) -> Any:
    patches = build_patches(pos + 20, num_centers=CENTERS, patch_size=MEMBERS, x=x)
    return build(backbones.PatchEmbed, {"embed_dim": embed_dim, "in_channels": in_channels}, pos)(
        patches
    )


@entry("backbones.PatchEmbed", call=embed)
def patch_embed(draw: Draw) -> dict[str, Spec]:
    number, channels = draw(st.integers(1, 9)), draw(st.sampled_from((0, 2)))
    return {
        "embed_dim": Count(CHANNELS),
        "in_channels": Count(channels, low=0),
        "pos": Const(torch.randn(number, 3)),
        "x": Maybe(floats(draw, (number, 2)), channels > 0),
    }


def decode(x: Any, number: int, **built: Any) -> Any:
    patches = build_patches(torch.randn(9, 3) + 20, num_centers=number, patch_size=MEMBERS)
    return build(backbones.PointMAEDecoder, built, x)(x, patches)


@entry("backbones.PointMAEDecoder", call=decode, also=("patches",))
def decoder(draw: Draw) -> dict[str, Spec]:
    number = draw(st.integers(2, 6))
    return {
        "x": floats(draw, (1, draw(st.integers(1, number - 1)), CHANNELS)),
        "number": Const(number),
        "embed_dim": Count(CHANNELS),
        "depth": Count(1),
        "num_heads": Count(HEADS, high=CHANNELS),
        "patch_size": Count(MEMBERS),
        "drop_path": Real(0.1, 0.0, 1.0 - 1e-9),
    }
