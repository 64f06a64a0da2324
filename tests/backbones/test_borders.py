"""Backbones and their parts at the border: types, precisions and memory layouts."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flat_backbones import CASES
from torch import Tensor, nn
from tuned import tiny_base

from pyg_peft import backbones
from pyg_peft.backbones import (
    Attention,
    Block,
    ClassificationHead,
    DropPath,
    EdgeConvBlock,
    FeaturePropagation,
    GlobalSetAbstraction,
    Mlp,
    PatchEmbed,
    PointMAE,
    PointMAEPretraining,
    PointMAESegmentation,
    PointTransformerBlock,
    SegmentationHead,
    SetAbstraction,
    TNet,
    orthogonality_penalty,
)
from pyg_peft.backbones.layers.category_level import CategoryLevel
from pyg_peft.backbones.layers.point_level import PointLevel
from pyg_peft.backbones.point_transformer.level import Summit, TransitionDown, TransitionUp
from pyg_peft.geometry import build_patches
from pyg_peft.testing import random_clouds, randomize_

SIZES = [14, 0, 9, 1, 12]
CLOUDS = random_clouds(SIZES, 2, generator=torch.Generator().manual_seed(0))
CATEGORY = torch.tensor([0, 1, 2, 0, 1])
TOKENS: dict[str, Any] = {
    "embed_dim": 12,
    "depth": 2,
    "num_heads": 3,
    "num_centers": 8,
    "patch_size": 4,
}
Call = Callable[..., Tensor]


def segmentation(**more: Any) -> nn.Module:
    return PointMAESegmentation(4, **{**TOKENS, "num_categories": 3, "num_levels": 2, **more})


def token_models() -> dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]]:
    return {
        "PointMAE": (lambda **more: PointMAE(4, **{**TOKENS, "in_channels": 2, **more}), {}),
        "PointMAESegmentation": (
            lambda **more: segmentation(**{"in_channels": 2, **more}),
            {"category": CATEGORY},
        ),
    }


def model_of(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A model that is awake, in eval mode."""
    if name in CASES:
        return CASES[name].make(dtype)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = token_models()[name][0]()
    return randomize_(model, torch.Generator().manual_seed(0)).eval().to(dtype)


def call(name: str, model: nn.Module, **change: Any) -> Tensor:
    given = {"x": CLOUDS.x, "pos": CLOUDS.pos, "batch": CLOUDS.batch, "batch_size": len(SIZES)}
    more = {} if name in CASES else token_models()[name][1]
    return model(**{**given, **more, **change})


MODELS = [*CASES, *token_models()]
every_model = pytest.mark.parametrize("name", MODELS)


@every_model
def test_what_is_no_cloud(name: str):
    model = model_of(name)
    x, pos, batch = CLOUDS.x, CLOUDS.pos, CLOUDS.batch
    wrong: list[dict[str, Any]] = [
        *({"pos": p} for p in (pos.numpy(), pos.tolist(), pos.long(), pos[:, :2], pos[0])),
        *({"pos": p} for p in (pos.to(torch.complex64), pos.to("meta"), pos / 0)),
        *({"batch": b} for b in (batch.tolist(), batch.numpy(), batch.float(), batch > 0, 3)),
        *({"batch_size": size} for size in ("5", 2.5, True, -1)),
        *({"x": f} for f in (x.numpy(), x.tolist(), x.long(), x[:, :1], x[0], x[:9], 3)),
        *({"x": f} for f in (x.to(torch.complex64), x.masked_fill(x > 1, torch.nan), x / 0)),
    ]
    for change in wrong:
        argument = next(iter(change))
        with pytest.raises((TypeError, ValueError), match=f"Expected '{argument}' to "):
            call(name, model, **change)


@pytest.mark.parametrize("value", ["3", 2.5, True, None, 0, [3]])
@pytest.mark.parametrize("size", [*TOKENS, "num_classes"])
@pytest.mark.parametrize("kind", [PointMAE, PointMAESegmentation, PointMAEPretraining])
def test_sizes_of_token_backbones(kind: Any, size: str, value: Any):
    sizes = {**TOKENS, "num_classes": 4, "num_levels": 1, size: value}
    if kind is not PointMAESegmentation:
        del sizes["num_levels"]
    if kind is PointMAEPretraining:
        if size == "num_classes":
            return
        del sizes["num_classes"]
    with pytest.raises((TypeError, ValueError), match=f"Expected '{size}' to "):
        kind(**sizes)


@pytest.mark.parametrize("value", ["3", 2.5, True, 0, [3]])
@pytest.mark.parametrize("name", CASES)
def test_sizes_of_flat_backbones(name: str, value: Any):
    case = CASES[name]
    sizes = {"num_classes": 4, "in_channels": 2, **case.told, **case.untold}
    for size in sizes:
        if size in ("in_channels", "transforms") or size.endswith("dropout"):
            continue
        if (size == "radii" and value == 2.5) or ("depth" in size and value == 0):
            continue
        given = value
        while isinstance(sizes[size], tuple) and not isinstance(given, tuple):
            given = nested(sizes[size], value)
        with pytest.raises((TypeError, ValueError), match=rf"Expected '{size}(\[\d\])*' to "):
            case.model(**{**sizes, size: given})


@pytest.mark.parametrize("value", [3, "text", None, {}, (), ((), ()), (None,), (2.5,), ((0,),)])
@pytest.mark.parametrize("name", CASES)
def test_sequences_of_sizes(name: str, value: Any):
    case = CASES[name]
    sizes = {"num_classes": 4, "in_channels": 2, **case.told, **case.untold}
    for size in sizes:
        if not isinstance(sizes[size], tuple) or (size == "head_channels" and value == ()):
            continue
        if size == "radii" and value == (2.5,):
            continue
        with pytest.raises((TypeError, ValueError), match=rf"Expected '{size}(\[\d\])*' to "):
            case.model(**{**sizes, size: value})


@pytest.mark.parametrize("name", CASES)
def test_sizes_of_other_kinds_become_integers(name: str):
    """NumPy's integers and tensors of one integer are taken, as by the other constructors."""
    case = CASES[name]
    sizes = {"num_classes": 4, "in_channels": 2, **case.told, **case.untold}
    other = {
        "num_classes": torch.tensor(4),
        "in_channels": np.int64(2),
        "head_channels": np.array(case.told["head_channels"]),
    }
    config = case.model(**{**sizes, **other}).config
    assert config == case.model(**sizes).config
    assert all(type(size) is int for size in (*config["head_channels"], config["num_classes"]))


def nested(like: Any, value: Any) -> Any:
    """Put a value first in nested tuples."""
    if not isinstance(like, tuple):
        return value
    return (nested(like[0], value), *like[1:])


@pytest.mark.parametrize("rate", ["0.5", True, -0.1, 1.0, float("nan")])
def test_rates(rate: Any):
    for build in (
        lambda: PointMAE(4, **TOKENS, head_dropout=rate),
        lambda: segmentation(head_dropout=rate),
        lambda: backbones.PointNet(4, head_dropout=rate),
        lambda: ClassificationHead(8, 4, dropout=rate),
    ):
        with pytest.raises((TypeError, ValueError), match="dropout' to "):
            build()
    with pytest.raises((TypeError, ValueError), match="'drop_path' to "):
        PointMAE(4, **TOKENS, drop_path=rate)
    with pytest.raises((TypeError, ValueError), match="'drop_prob' to "):
        DropPath(rate)


@pytest.mark.parametrize(
    "category",
    [CATEGORY.float() + 0.9, CATEGORY.tolist(), CATEGORY[:2], CATEGORY + 3, CATEGORY > 0],
)
def test_category(category: Any):
    """A number such as 1.9 used to be taken for category 1."""
    for model in (
        segmentation().eval(),
        backbones.DGCNNSegmentation(4, num_categories=3, k=4).eval(),
    ):
        with pytest.raises((TypeError, ValueError), match="Expected 'category' to "):
            model(
                pos=CLOUDS.pos.float(), batch=CLOUDS.batch, batch_size=len(SIZES), category=category
            )


# ---- parts that may be called by themselves ------------------------------------------------------

LEVEL = {"x": torch.randn(9, 4), "pos": torch.randn(9, 3), "batch": torch.zeros(9).long()}
COARSE = {
    "coarse_x": torch.randn(3, 6),
    "coarse_pos": torch.randn(3, 3),
    "coarse_batch": torch.zeros(3).long(),
}
PARTS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "Attention": (lambda: Attention(12, 3), {"x": torch.randn(2, 5, 12)}),
    "Block": (lambda: Block(12, 3), {"x": torch.randn(2, 5, 12)}),
    "CategoryLevel": (
        lambda: CategoryLevel(4, (8,), num_categories=3),
        {**LEVEL, "batch_size": 1, "category": torch.tensor([2])},
    ),
    "ClassificationHead": (lambda: ClassificationHead(12, 4), {"x": torch.randn(3, 12)}),
    "EdgeConvBlock": (lambda: EdgeConvBlock(4, (8,), k=3), LEVEL),
    "FeaturePropagation": (
        lambda: FeaturePropagation(6, 4, (8,)),
        {**LEVEL, **COARSE},
    ),
    "GlobalSetAbstraction": (lambda: GlobalSetAbstraction(4, (8,)), LEVEL),
    "Mlp": (lambda: Mlp(12, 24), {"x": torch.randn(2, 5, 12)}),
    "PointLevel": (lambda: PointLevel(4, (8,), aligns_pos=True, aligns_features=True), LEVEL),
    "PointTransformerBlock": (
        lambda: PointTransformerBlock(8, share=2),
        {
            "x": torch.randn(2, 8),
            "pos": torch.randn(2, 3),
            "edge_index": torch.tensor([[0, 1], [0, 1]]),
        },
    ),
    "SegmentationHead": (
        lambda: SegmentationHead(4, 6, 3, lift_channels=8, channels=8),
        {"x": torch.randn(9, 4), "summary": torch.randn(1, 6)},
    ),
    "SetAbstraction": (
        lambda: SetAbstraction(4, (8,), num_centers=3, radius=1.0, patch_size=4),
        LEVEL,
    ),
    "Summit": (lambda: Summit(4, k=3, depth=1, share=2), LEVEL),
    "TransitionDown": (lambda: TransitionDown(4, 8, stride=2, k=3, depth=1), LEVEL),
    "TransitionDown without neighbors": (
        lambda: TransitionDown(4, 8, stride=1, k=3, depth=0),
        LEVEL,
    ),
    "TransitionUp": (lambda: TransitionUp(6, 4, k=3, depth=0), {**LEVEL, **COARSE}),
    "TNet": (lambda: TNet(4), {"x": LEVEL["x"], "batch": LEVEL["batch"], "batch_size": 1}),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts(name: str):
    build, given = PARTS[name]
    part = build().eval()
    part(**given)
    for argument, value in given.items():
        if not isinstance(value, Tensor):
            continue
        wrong: list[Any] = [value.numpy(), value.tolist(), value[..., :1][0]]
        wrong += [value.double()] if value.is_floating_point() else [value.float()]
        if argument in ("coarse_pos", "summary", "x") and name in ("SegmentationHead",):
            wrong = wrong[:2]  # takes its input's precision to that of its weights
        if argument in ("coarse_pos", "coarse_batch"):
            wrong = wrong[:2]
        for change in wrong:
            names = "|".join(given) + "|query|pos|batch|query_batch"
            with pytest.raises((TypeError, ValueError), match=f"Expected '({names})' to "):
                part(**{**given, argument: change})


UNSORTED = torch.tensor([0, 0, 0, 0, 1, 1, 0, 1, 1])
FINITE_NOT = LEVEL["pos"].clone().index_fill_(0, torch.tensor([2]), torch.nan)


@pytest.mark.parametrize(
    "name",
    [
        "EdgeConvBlock",
        "FeaturePropagation",
        "GlobalSetAbstraction",
        "SetAbstraction",
        "Summit",
        "TransitionDown",
        "TransitionDown without neighbors",
        "TransitionUp",
    ],
)
@pytest.mark.parametrize(
    ("argument", "value"),
    [("batch", UNSORTED), ("batch", UNSORTED - 1), ("pos", FINITE_NOT), ("batch_size", "1")],
)
def test_clouds_of_a_level(name: str, argument: str, value: Any):
    """An unsorted batch and NaN used to pass through levels that ask for no neighbors."""
    build, given = PARTS[name]
    with pytest.raises((TypeError, ValueError), match=f"Expected '{argument}' to "):
        build().eval()(**{**given, argument: value})


@pytest.mark.parametrize("name", [name for name in PARTS if "pos" in PARTS[name][1]])
def test_a_level_without_points(name: str):
    """Without points and ``batch_size``, the last id of the batch used to be asked for."""
    build, given = PARTS[name]
    empty = {argument: value[:0] for argument, value in given.items() if isinstance(value, Tensor)}
    if "edge_index" in empty:
        empty["edge_index"] = torch.zeros(2, 0).long()
    found = build().eval()(**empty)
    assert all(len(part) == 0 for part in (found if isinstance(found, tuple) else (found,)))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("Attention", {"mask": torch.ones(2, 1, 1, 5)}),
        ("CategoryLevel", {"batch": torch.ones(9).long()}),
        ("CategoryLevel", {"batch": -torch.ones(9).long()}),
        ("Attention", {"mask": torch.ones(2, 1, 1, 4, dtype=torch.bool)}),
        ("Attention", {"mask": torch.ones(2, 5, dtype=torch.bool)}),
        ("PointTransformerBlock", {"edge_index": torch.tensor([[0, 2], [0, 1]])}),
        ("PointTransformerBlock", {"edge_index": torch.tensor([[0, -1], [0, 1]])}),
        ("PointTransformerBlock", {"pos": torch.full((2, 3), torch.inf)}),
        ("FeaturePropagation", {"coarse_pos": torch.full((3, 3), torch.nan)}),
        ("FeaturePropagation", {"coarse_batch": torch.tensor([1, 0, 0])}),
        ("SegmentationHead", {"batch": UNSORTED}),
        ("SegmentationHead", {"batch": torch.ones(9).long()}),
        ("SegmentationHead", {"summary": torch.randn(2, 6)}),
        ("PointLevel", {"batch": UNSORTED}),
        ("TNet", {"batch": UNSORTED, "batch_size": 2}),
        ("TNet", {"batch": UNSORTED.sort().values}),
    ],
)
def test_arguments_that_do_not_fit(name: str, change: dict[str, Any]):
    build, given = PARTS[name]
    with pytest.raises((TypeError, ValueError), match=f"Expected '{next(iter(change))}' to "):
        build().eval()(**{**given, **change})


@pytest.mark.parametrize("value", ["2", None, 0.0, 0.01, -1.0, float("nan"), float("inf"), b"1"])
def test_ratio_of_a_block(value: Any):
    """A ratio of ``b"1"`` used to ask for memory for twelve digits of channels."""
    with pytest.raises((TypeError, ValueError), match="Expected 'mlp_ratio' to "):
        Block(12, 3, mlp_ratio=value)


@pytest.mark.parametrize("x", [None, 3, {}, [[1.0]], torch.tensor(1.0), torch.ones(2).long()])
@pytest.mark.parametrize("training", [False, True])
def test_what_has_no_branch_to_drop(x: Any, training: bool):
    with pytest.raises((TypeError, ValueError), match="Expected 'x' to "):
        DropPath(0.5).train(training)(x)


def test_decoder():
    decoder = backbones.PointMAEDecoder(12, 1, 3, 4).eval()
    patches = build_patches(torch.randn(9, 3), num_centers=4, patch_size=4)
    assert decoder(torch.randn(1, 3, 12), patches).shape == (1, 1, 4, 3)
    for x in (torch.randn(1, 5, 12), torch.randn(2, 3, 12), torch.randn(3, 12), [1.0]):
        with pytest.raises((TypeError, ValueError), match="Expected 'x' to "):
            decoder(x, patches)
    with pytest.raises(TypeError, match="Expected 'patches' to be Patches"):
        decoder(torch.randn(1, 3, 12), None)


def test_patches_and_matrices():
    patches = build_patches(CLOUDS.pos, CLOUDS.batch, num_centers=4, patch_size=4)
    for model in (PatchEmbed(8), PointMAE(4, **TOKENS).eval()):
        with pytest.raises(TypeError, match="Expected 'patches' to be Patches"):
            model(patches=3)
    with pytest.raises(TypeError, match="Expected 'patches' to be Patches or None"):
        Block(12, 3)(torch.zeros(1, 2, 12), patches=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Expected 'tokens' to be a tensor"):
        tiny_base()(patches=patches, tokens=[1])
    with pytest.raises(ValueError, match="Expected 'matrices' to be of shape"):
        orthogonality_penalty(torch.eye(3))
    for shape in ((0, 3, 3), (2, 3, 4)):
        with pytest.raises(ValueError, match="Expected 'matrices' to hold"):
            orthogonality_penalty(torch.zeros(shape))


# ---- precision and layout ------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_close(name: str, dtype: torch.dtype, autocast: bool):
    model = model_of(name, torch.float32)
    change = {"x": CLOUDS.x.float(), "pos": CLOUDS.pos.float()}
    expected = call(name, model, **change)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        found = call(name, model if autocast else model.to(dtype), **change)
    assert bool(found.isfinite().all())
    error = (found.float() - expected).abs().max() / expected.abs().max()
    assert float(error.detach()) < 0.1


@every_model
@pytest.mark.parametrize("layout", ["columns", "sliced", "strided"])
def test_layout(name: str, layout: str):
    model = model_of(name)
    x, pos = laid_out(CLOUDS.x, layout), laid_out(CLOUDS.pos, layout)
    batch = torch.stack([CLOUDS.batch, CLOUDS.batch], dim=1)[:, 1]
    found = call(name, model, x=x, pos=pos, batch=batch)
    torch.testing.assert_close(found, call(name, model), rtol=1e-11, atol=1e-11)


def laid_out(x: Tensor, layout: str) -> Tensor:
    if layout == "columns":
        return torch.from_numpy(np.asfortranarray(x.numpy()))
    if layout == "sliced":
        return x.repeat_interleave(2, dim=1)[:, ::2]
    return x.repeat_interleave(2, dim=0)[::2]


@every_model
def test_expanded_features(name: str):
    model, x = model_of(name), CLOUDS.x[:1].expand_as(CLOUDS.x)
    found, expected = call(name, model, x=x), call(name, model, x=x.contiguous())
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_masked_patches_hide_a_number_that_is_none():
    """Whatever the cells of missing patches hold, no token of a patch shows it."""
    patches = build_patches(CLOUDS.pos, CLOUDS.batch, num_centers=20, patch_size=4, x=CLOUDS.x)
    assert patches.mask is not None and patches.features is not None
    features = patches.features.masked_fill(~patches.mask[..., None, None], torch.nan)
    embed = PatchEmbed(8, in_channels=2).double().eval()
    randomize_(embed, torch.Generator().manual_seed(0))
    found = embed(dataclasses.replace(patches, features=features))
    assert torch.equal(found, embed(patches))
