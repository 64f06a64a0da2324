"""What is wrong at the border of a component is an error of its own, which names the argument."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyg_peft.geometry import build_structure
from pyg_peft.nn import (
    Bottleneck,
    GeometryAwareAdapter,
    LowRankHeteroLinear,
    LowRankLinear,
    MemoryBank,
    NeighborAttention,
    PointPriorPrompt,
    PromptTokens,
    parameter_free_attention,
    quick_gelu,
)

C = 8
SIZES: dict[str, tuple[Callable[..., Any], dict[str, int]]] = {
    "Bottleneck": (Bottleneck, {"channels": C, "bottleneck_channels": 4}),
    "GeometryAwareAdapter": (
        GeometryAwareAdapter,
        {
            "channels": C,
            "bottleneck_channels": 4,
            "k": 3,
            "num_interp": 2,
            "attention_channels": 6,
            "num_heads": 2,
        },
    ),
    "LowRankHeteroLinear": (
        LowRankHeteroLinear,
        {"in_channels": C, "out_channels": 6, "num_types": 3, "rank": 2},
    ),
    "LowRankLinear": (LowRankLinear, {"in_channels": C, "out_channels": 6, "rank": 2}),
    "NeighborAttention": (
        NeighborAttention,
        {"channels": C, "attention_channels": 6, "num_heads": 2},
    ),
    "PointPriorPrompt": (
        PointPriorPrompt,
        {"channels": C, "num_prompts": 4, "bottleneck_channels": 2},
    ),
    "PromptTokens": (PromptTokens, {"num_prompts": 4, "channels": C}),
}
NUMBERS = {
    "Bottleneck": {"scale", "dropout"},
    "GeometryAwareAdapter": {"ratio", "propagation_scale", "center_scale", "scale"},
    "LowRankHeteroLinear": {"alpha", "dropout"},
    "LowRankLinear": {"alpha", "dropout"},
    "PromptTokens": {"std"},
}
X = torch.randn(12, C, generator=torch.Generator().manual_seed(0))
POS = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
BATCH = torch.tensor([0] * 7 + [1] * 5)


@pytest.mark.parametrize("value", ["3", 2.5, True, None, [3], np.float64(2.0), 0, -1])
@pytest.mark.parametrize(
    ("name", "size"), [(name, size) for name, (_, sizes) in SIZES.items() for size in sizes]
)
def test_sizes(name: str, size: str, value: Any):
    build, sizes = SIZES[name]
    if value is None and size == "num_interp":
        return  # means all
    with pytest.raises((TypeError, ValueError), match=f"Expected '{size}' to "):
        build(**{**sizes, size: value})


@pytest.mark.parametrize("value", ["0.5", True, [0.5], float("nan"), float("inf"), 1j])
@pytest.mark.parametrize(
    ("name", "number"),
    [(name, number) for name, numbers in NUMBERS.items() for number in sorted(numbers)],
)
def test_numbers(name: str, number: str, value: Any):
    build, sizes = SIZES[name]
    with pytest.raises((TypeError, ValueError), match=f"Expected '{number}' to "):
        build(**{**sizes, number: value})


@pytest.mark.parametrize("name", SIZES)
def test_integers_of_numpy_are_taken(name: str):
    build, sizes = SIZES[name]
    module = build(**{size: np.int64(value) for size, value in sizes.items()})
    assert repr(module) == repr(build(**sizes))
    assert all(type(getattr(module, size, 0)) is int for size in sizes)


def component(name: str) -> Any:
    build, sizes = SIZES[name]
    return build(**sizes).eval()


def in_sets(x: Any, num_sets: int, size: int) -> Any:
    dense = isinstance(x, Tensor) and x.layout == torch.strided
    return x.unflatten(0, (num_sets, size)) if dense and x.shape == X.shape else x


def call(name: str, x: Any, module: Any = None) -> Any:
    module = component(name) if module is None else module
    if name == "GeometryAwareAdapter":
        wide = isinstance(x, Tensor) and x.dtype == torch.float64
        return module(x, POS.double() if wide else POS, BATCH)
    if name == "LowRankHeteroLinear":
        return module(x, torch.zeros(12, dtype=torch.long))
    if name == "NeighborAttention":
        return module(in_sets(x, 4, 3))
    if name == "PointPriorPrompt":
        return module(3, in_sets(x, 3, 4))
    return module(x)


SEES_X = sorted(set(SIZES) - {"PromptTokens"})
every_module = pytest.mark.parametrize("name", SEES_X)


@every_module
@pytest.mark.parametrize(
    "x",
    [
        X.numpy(),
        X.tolist(),
        3.0,
        X[0, 0],
        X.long(),
        X > 0,
        X.to(torch.complex64),
        X.to_sparse(),
        X[:, :7],
        X.T,
    ],
    ids=["array", "list", "number", "scalar", "int", "bool", "complex", "sparse", "narrow", "T"],
)
def test_what_is_no_row_of_features(name: str, x: Any):
    argument = "prior" if name == "PointPriorPrompt" else "x"
    with pytest.raises((TypeError, ValueError), match=f"Expected '{argument}' to "):
        call(name, x)


@every_module
@pytest.mark.parametrize(
    ("of_module", "of_x"),
    [
        (torch.float64, torch.float32),
        (torch.float32, torch.float64),
        (torch.float32, torch.float16),
        (torch.bfloat16, torch.float32),
    ],
)
def test_mixed_precision_needs_autocast(name: str, of_module: torch.dtype, of_x: torch.dtype):
    module, x = component(name).to(of_module), X.to(of_x)
    argument = "prior" if name == "PointPriorPrompt" else "x"
    message = f"Expected '{argument}' to be of dtype {of_module}, .* cast either"
    with pytest.raises(TypeError, match=message):
        call(name, x, module)


@every_module
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("half_input", [False, True])
def test_autocast_is_close(name: str, dtype: torch.dtype, half_input: bool):
    torch.manual_seed(0)
    module = component(name)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    expected = call(name, X, module)
    with torch.autocast("cpu", dtype=dtype):
        found = call(name, X.to(dtype) if half_input else X, module)
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.1)
    found.float().square().sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in module.parameters())


@every_module
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_throughout_is_close(name: str, dtype: torch.dtype):
    torch.manual_seed(0)
    module = component(name)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    expected = call(name, X, module)
    found = call(name, X.to(dtype), module.to(dtype))
    assert found.dtype == dtype and bool(found.isfinite().all())
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_positions_meet_single_precision_geometry(dtype: torch.dtype):
    module, rounded = component("GeometryAwareAdapter"), POS.to(dtype)
    torch.nn.init.constant_(module.gate, 0.5)
    found = module(X, rounded, BATCH)
    torch.testing.assert_close(found, module(X, rounded.float(), BATCH), rtol=1e-2, atol=1e-2)
    found = module.to(dtype)(X.to(dtype), rounded, BATCH)
    assert bool(found.isfinite().all())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pos": POS.numpy()}, "'pos' to be a tensor"),
        ({"pos": POS.long()}, "'pos' to be floating point"),
        ({"pos": POS[:, :2]}, "'pos' to be of shape"),
        ({"pos": POS.to("meta")}, "'pos' to "),
        ({"batch": BATCH.tolist()}, "'batch' to be a tensor"),
        ({"batch": BATCH.float()}, "'batch' to be an integer tensor"),
        ({"batch": BATCH.flip(0)}, "'batch' to be sorted"),
        ({"structure": 3}, "'structure' to be a Structure or None"),
        ({"structure": build_structure(POS, k=3).to("meta")}, "'structure' to be on cpu"),
    ],
)
def test_adapter(arguments: dict[str, Any], message: str):
    with pytest.raises((TypeError, ValueError), match=f"Expected {message}"):
        component("GeometryAwareAdapter")(X, **{"pos": POS, "batch": BATCH, **arguments})
    with pytest.raises(TypeError, match="Expected 'attention' to be a NeighborAttention or None"):
        GeometryAwareAdapter(C, 4, attention=torch.nn.Identity())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(4, 3), "'mask' to be a Boolean tensor"),
        (torch.ones(4, 2, dtype=torch.bool), r"'mask' to be of shape \[4, 3\]"),
        ([[True] * 3] * 4, "'mask' to be a tensor"),
    ],
)
def test_mask(mask: Any, message: str):
    with pytest.raises((TypeError, ValueError), match=f"Expected {message}"):
        component("NeighborAttention")(X.view(4, 3, C), mask)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (torch.zeros(12), "'type_vec' to be an integer tensor"),
        (torch.zeros(11, dtype=torch.long), r"'type_vec' to be of shape \[12\]"),
        (torch.full((12,), 3), r"'type_vec' to name types in \[0, 3\) \(got 3\)"),
        (torch.full((12,), -1), r"'type_vec' to name types in \[0, 3\) \(got -1\)"),
        ([0] * 12, "'type_vec' to be a tensor"),
    ],
)
def test_types_of_rows(kinds: Any, message: str):
    """A type that the layer does not have used to give no change, without a word."""
    with pytest.raises((TypeError, ValueError), match=f"Expected {message}"):
        component("LowRankHeteroLinear")(X, kinds)


@pytest.mark.parametrize("value", ["3", 2.5, True, [3], -1])
def test_number_of_clouds(value: Any):
    for name in ("PromptTokens", "PointPriorPrompt"):
        with pytest.raises((TypeError, ValueError), match="Expected 'batch_size' to be"):
            component(name)(value)


QUERY = X[:3]
NAN = QUERY.masked_fill(torch.eye(3, C) > 0, torch.nan)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": QUERY.tolist()}, "'query' to be a tensor"),
        ({"query": QUERY.long()}, "'query' to be floating point"),
        ({"query": QUERY[0]}, r"'query' to be of shape \[., 8\]"),
        ({"query": NAN}, "'query' to be finite"),
        ({"query": QUERY / 0}, "'query' to be finite"),
        ({"query": QUERY.to("meta")}, "'query' to "),
        ({"top_k": "3"}, "'top_k' to be an integer"),
        ({"top_k": 2.5}, "'top_k' to be an integer"),
        ({"top_k": True}, "'top_k' to be an integer"),
        ({"top_k": 0}, "'top_k' to be >= 1"),
        ({"top_k": 13}, r"'top_k' to lie in \[1, 12\]"),
    ],
)
def test_retrieval(arguments: dict[str, Any], message: str):
    keys = torch.cat([X[:6], X[:6]])  # ties, which a NaN among the queries turned into a crash
    call: dict[str, Any] = {"query": QUERY, "top_k": 3, **arguments}
    with pytest.raises((TypeError, ValueError), match=f"Expected {message}"):
        MemoryBank(keys)(**call)
    with pytest.raises((TypeError, ValueError), match=f"Expected {message}"):
        parameter_free_attention(keys=keys, values=keys, **call)


@pytest.mark.parametrize("ids", [torch.tensor([0.5, 1.0, 2.0]), torch.arange(2), [0, 1, 2]])
def test_ids_of_samples(ids: Any):
    with pytest.raises((TypeError, ValueError), match="Expected 'sample_id' to be"):
        MemoryBank(X, sample_id=torch.arange(12))(QUERY, 3, ids)


def test_table():
    for change in ({"keys": X.tolist()}, {"values": X[0]}, {"chunk_size": 2.5}, {"exclude": [0]}):
        given: dict[str, Any] = {"query": QUERY, "keys": X, "values": X, "top_k": 3, **change}
        with pytest.raises((TypeError, ValueError), match=f"Expected '{next(iter(change))}' to"):
            parameter_free_attention(**given)
    with pytest.raises(TypeError, match="Expected 'x' to be floating point"):
        quick_gelu(X.long())
    with pytest.raises(TypeError, match="Expected 'per_class' to be an integer"):
        MemoryBank(X, labels=torch.zeros(12, dtype=torch.long)).balanced("3")  # type: ignore[arg-type]


@every_module
def test_meta_tensors_pass_where_no_value_is_read(name: str):
    module = component(name).to("meta")
    if name in ("GeometryAwareAdapter", "LowRankHeteroLinear"):
        return  # read positions and types
    assert call(name, X.to("meta"), module).device.type == "meta"


def test_not_a_number_stays_in_its_cloud():
    module = component("GeometryAwareAdapter")
    torch.nn.init.constant_(module.gate, 0.5)
    x = X.clone()
    x[9] = torch.nan
    found, expected = module(x, POS, BATCH), module(X, POS, BATCH)
    assert torch.equal(found[:7], expected[:7])
    assert bool(found[7:].isnan().any())


# ---- however a tensor lies in memory -------------------------------------------------------------


def layouts(x: Tensor) -> dict[str, Tensor]:
    """The same values, laid out otherwise."""
    wide = torch.zeros(x.size(0), 2 * x.size(1), dtype=x.dtype)
    wide[:, ::2] = x
    tall = torch.zeros(2 * x.size(0), x.size(1), dtype=x.dtype)
    tall[::2] = x
    return {"columns": x.t().contiguous().t(), "sliced": wide[:, ::2], "strided": tall[::2]}


@every_module
@pytest.mark.parametrize("layout", ["columns", "sliced", "strided"])
def test_layout(name: str, layout: str):
    torch.manual_seed(0)
    module = component(name).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    x, pos = X.double(), POS.double()
    expected = call(name, x, module)
    if name == "GeometryAwareAdapter":
        found = module(layouts(x)[layout], layouts(pos)[layout], BATCH)
    else:
        found = call(name, layouts(x)[layout], module)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", ["columns", "sliced", "strided"])
def test_layout_of_a_bank(layout: str):
    keys, query = torch.randn(30, C).double(), torch.randn(6, C).double()
    expected = MemoryBank(keys)(query, 4)
    found = MemoryBank(layouts(keys)[layout])(layouts(query)[layout], 4)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_expanded_rows():
    row, pos = X[:1].double().expand(12, C), POS.double()
    for name in SEES_X:
        module = component(name).double()
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter)
        found, expected = call(name, row, module), call(name, row.contiguous(), module)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    one_place = pos[:1].expand(12, 3)
    adapter = component("GeometryAwareAdapter").double()
    torch.nn.init.constant_(adapter.gate, 0.5)
    assert torch.equal(adapter(row, one_place, BATCH), adapter(row, one_place.contiguous(), BATCH))
