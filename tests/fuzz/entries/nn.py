"""Strategies for ``pyg_peft.nn``: each component is built, woken, and called."""

from typing import Any

import numpy as np
import torch
from fuzz import dice as st
from fuzz import oracles
from fuzz.dice import Draw
from fuzz.strategies import (
    Args,
    Const,
    Count,
    Made,
    Mask,
    Maybe,
    Real,
    Spec,
    Whole,
    clouds,
    entry,
    floats,
)
from torch import Tensor

from pyg_peft import nn
from pyg_peft.testing import randomize_

WIDTH = st.integers(1, 9)


_BUILT: dict[str, Any] = {}


def build(kind: Any, args: Args, like: Any) -> Any:
    """A module with random weights, the same each time, in eval mode and the input's type.

    The last ones are kept: most cases build what the one before has built.
    """
    wide = isinstance(like, Tensor) and like.dtype == torch.float64
    key = f"{kind} {wide} {sorted(args.items())}"
    if key not in _BUILT:
        if len(_BUILT) > 50:
            _BUILT.clear()
        _BUILT[key] = _build(kind, args, wide)
    return _BUILT[key]


def _build(kind: Any, args: Args, wide: bool) -> Any:
    torch.manual_seed(0)
    module = kind(**args)
    randomize_(module, torch.Generator().manual_seed(0)).eval()
    return module.double() if wide else module


def as_numbers(x: Any) -> np.ndarray:
    x = torch.as_tensor(x)
    x = x.to_dense() if x.layout != torch.strided else x
    return x.double().numpy()


def gelu(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return x / (1 + np.exp(-1.702 * x))


# ---- rows by themselves --------------------------------------------------------------------------


def check_gelu(args: Args, result: Any) -> str | None:
    return oracles.near(result, gelu(as_numbers(args["x"])))


@entry("nn.quick_gelu", call=nn.quick_gelu, check=check_gelu)
def quick_gelu(draw: Draw) -> dict[str, Spec]:
    return {"x": floats(draw, tuple(draw(st.lists(st.integers(0, 4), max_size=3))))}


def call_bottleneck(x: Any, **args: Any) -> Any:
    module = build(nn.Bottleneck, args, x)
    return module(x), module.state_dict()


def check_bottleneck(args: Args, result: Any) -> str | None:
    out, held = result
    w = {key: value.double().numpy() for key, value in held.items()}
    x = as_numbers(args["x"])
    h = gelu(x @ w["down.weight"].T + w["down.bias"]) @ w["up.weight"].T + w["up.bias"]
    return oracles.near(out, x + float(args["scale"]) * h)


@entry("nn.Bottleneck", call=call_bottleneck, check=check_bottleneck)
def bottleneck(draw: Draw) -> dict[str, Spec]:
    channels = draw(WIDTH)
    shape = draw(st.lists(st.integers(0, 4), min_size=1, max_size=2))
    return {
        "x": floats(draw, (*shape, channels)),
        "channels": Count(channels),
        "bottleneck_channels": Count(draw(st.integers(1, channels)), high=channels),
        "scale": Real(draw(st.sampled_from((0.0, 0.7, -1.0)))),
        "dropout": Real(draw(st.sampled_from((0.0, 0.5))), low=0.0, high=1.0 - 1e-9),
    }


def call_low_rank(x: Any, **args: Any) -> Any:
    module = build(nn.LowRankLinear, args, x)
    return module(x), module.delta_weight()


def check_low_rank(args: Args, result: Any) -> str | None:
    out, delta = result
    x = as_numbers(args["x"])
    return oracles.near(out, x @ delta.detach().double().numpy().T, scale=np.abs(x).sum())


@entry("nn.LowRankLinear", call=call_low_rank, check=check_low_rank)
def low_rank(draw: Draw) -> dict[str, Spec]:
    wide, out = draw(WIDTH), draw(WIDTH)
    return {
        "x": floats(draw, (draw(st.integers(0, 4)), wide)),
        "in_channels": Count(wide),
        "out_channels": Count(out),
        "rank": Count(draw(st.integers(1, min(wide, out))), high=min(wide, out)),
        "alpha": Real(draw(st.sampled_from((None, 4.0))), low=0.0, open=True, optional=True),
        "dropout": Real(0.0, low=0.0, high=1.0 - 1e-9),
    }


def call_hetero(x: Any, type_vec: Any, **args: Any) -> Any:
    module = build(nn.LowRankHeteroLinear, args, x)
    return module(x, type_vec), module.delta_weight()


def check_hetero(args: Args, result: Any) -> str | None:
    out, delta = result
    x, delta = as_numbers(args["x"]), delta.detach().double().numpy()
    types = torch.as_tensor(args["type_vec"]).tolist()
    assert len(types) == len(x), "another number of types than of rows was taken"
    assert all(0 <= t < int(args["num_types"]) for t in types), "a type out of range was taken"
    rows = [row @ delta[t] for row, t in zip(x, types, strict=True)]
    return oracles.near(out, np.array(rows).reshape(len(x), delta.shape[2]), scale=np.abs(x).sum())


@entry("nn.LowRankHeteroLinear", call=call_hetero, check=check_hetero)
def hetero(draw: Draw) -> dict[str, Spec]:
    wide, out, types = draw(WIDTH), draw(WIDTH), draw(st.integers(1, 3))
    rows = draw(st.integers(0, 5))
    return {
        "x": floats(draw, (rows, wide)),
        "type_vec": Whole(
            tuple(draw(st.integers(0, types - 1)) for _ in range(rows)), (rows,), high=types
        ),
        "in_channels": Count(wide),
        "out_channels": Count(out),
        "num_types": Count(types),
        "rank": Count(draw(st.integers(1, min(wide, out))), high=min(wide, out)),
        "alpha": Real(None, low=0.0, open=True, optional=True),
        "dropout": Real(0.0, low=0.0, high=1.0 - 1e-9),
    }


# ---- prompts -------------------------------------------------------------------------------------


def call_tokens(batch_size: Any, **args: Any) -> Any:
    module = build(nn.PromptTokens, args, None)
    return module(batch_size), module.weight


def check_tokens(args: Args, result: Any) -> str | None:
    out, weight = result
    expected = np.repeat(weight.detach().double().numpy()[None], int(args["batch_size"]), 0)
    return oracles.near(out, expected)


@entry("nn.PromptTokens", call=call_tokens, check=check_tokens)
def prompt_tokens(draw: Draw) -> dict[str, Spec]:
    return {
        "batch_size": Count(draw(st.integers(0, 4)), low=0),
        "num_prompts": Count(draw(WIDTH)),
        "channels": Count(draw(WIDTH)),
        "std": Real(draw(st.sampled_from((0.0, 0.02, 1.0))), low=0.0),
    }


def call_prompt(batch_size: Any, prior: Any, **args: Any) -> Any:
    module = build(nn.PointPriorPrompt, args, prior)
    return module(batch_size, prior), module.state_dict()


def check_prompt(args: Args, result: Any) -> str | None:
    out, held = result
    w = {key: value.double().numpy() for key, value in held.items()}
    tokens = np.repeat(w["tokens.weight"][None], int(args["batch_size"]), 0)
    if args["prior"] is None:
        return oracles.near(out, tokens)
    x = as_numbers(args["prior"])
    h = gelu(x @ w["bottleneck.down.weight"].T + w["bottleneck.down.bias"])
    h = h @ w["bottleneck.up.weight"].T + w["bottleneck.up.bias"]
    return oracles.near(out, tokens + x + h)


@entry("nn.PointPriorPrompt", call=call_prompt, check=check_prompt)
def prompt(draw: Draw) -> dict[str, Spec]:
    number, prompts, wide = draw(st.integers(0, 3)), draw(st.integers(1, 4)), draw(WIDTH)
    return {
        "prior": Maybe(floats(draw, (number, prompts, wide)), draw(st.booleans())),
        "batch_size": Count(number, low=0),
        "channels": Count(wide),
        "num_prompts": Count(prompts),
        "bottleneck_channels": Count(draw(st.integers(1, wide)), high=wide),
    }


# ---- attention -----------------------------------------------------------------------------------


def check_attention(args: Args, result: Any) -> str | None:
    out, score, index = result
    expected, best = oracles.attention(args)
    query, keys = as_numbers(args["query"]), as_numbers(args["keys"])
    if not np.isfinite(keys).all():
        return None  # not checked, as the docstring says
    # Scores that differ by rounding alone may change places; what they are worth may not.
    length = np.linalg.norm(query, axis=1, keepdims=True)
    exact = (query / np.maximum(length, 1e-12)) @ keys.T
    for row, chosen in enumerate(index.tolist()):
        if len(set(chosen)) < len(chosen):
            return f"the rows {chosen} repeat"
        if args["exclude"] is not None and int(args["exclude"][row]) in chosen:
            return f"the excluded row {int(args['exclude'][row])} was found"
    problem = oracles.near(-score, np.array(best).reshape(score.shape), "-score")
    if problem is None and len(query) and _untied(exact, int(args["top_k"])):
        problem = oracles.near(out, expected)
    return problem


def _untied(score: np.ndarray, k: int) -> bool:
    if score.shape[1] <= k:
        return True
    ordered = -np.sort(-score, axis=1)
    return bool((ordered[:, k - 1] - ordered[:, k] > 1e-3 * (1 + np.abs(ordered[:, k]))).all())


@entry("nn.parameter_free_attention", call=nn.parameter_free_attention, check=check_attention)
def attention(draw: Draw) -> dict[str, Spec]:
    questions, rows, wide = draw(st.integers(0, 4)), draw(st.integers(2, 8)), draw(WIDTH)
    return {
        "query": floats(draw, (questions, wide)),
        "keys": floats(draw, (rows, wide)),
        "values": floats(draw, (rows, draw(WIDTH))),
        "top_k": Count(draw(st.integers(1, rows - 1)), high=rows),
        "exclude": Maybe(
            Whole(
                tuple(draw(st.integers(-1, rows - 1)) for _ in range(questions)),
                (questions,),
                high=rows,
            ),
            draw(st.booleans()),
        ),
        "chunk_size": Count(draw(st.integers(1, 9)), capped=True),
    }


def call_neighbors(x: Any, mask: Any, **args: Any) -> Any:
    module = build(nn.NeighborAttention, args, x)
    return module(x, mask), module.state_dict()


def check_neighbors(args: Args, result: Any) -> str | None:
    out, held = result
    w = {key: value.double().numpy() for key, value in held.items()}
    wide, heads = int(args["attention_channels"]), int(args["num_heads"])
    each = wide // heads
    x = as_numbers(args["x"])
    expected = np.zeros(x.shape)
    seen = np.ones(x.shape[:2], bool)
    for s, rows in enumerate(x):
        # In the precision of 'x', whose rounding decides far from the origin.
        plain = torch.nn.functional.layer_norm(torch.as_tensor(args["x"])[s], rows.shape[-1:])
        normal = plain.double().numpy() * w["norm.weight"] + w["norm.bias"]
        qkv = (normal @ w["qkv.weight"].T).reshape(len(rows), 3, heads, each)
        members = np.ones(len(rows), bool) if args["mask"] is None else args["mask"][s].numpy()
        seen[s] = members
        if not members.any():
            continue
        out_heads = []
        for h in range(heads):
            q, k, v = qkv[:, 0, h], qkv[members, 1, h], qkv[members, 2, h]
            score = q @ k.T / np.sqrt(wide)
            weight = np.exp(score - score.max(-1, keepdims=True))
            out_heads.append(weight / weight.sum(-1, keepdims=True) @ v)
        joined = np.concatenate(out_heads, axis=-1)
        expected[s] = joined @ w["proj.weight"].T + w["proj.bias"]
    if tuple(out.shape) != expected.shape:
        return f"shape {list(out.shape)} instead of {list(expected.shape)}"
    rows = torch.from_numpy(seen)
    return oracles.near(out[rows], expected[seen])


@entry("nn.NeighborAttention", call=call_neighbors, check=check_neighbors)
def neighbors(draw: Draw) -> dict[str, Spec]:
    sets, size, wide = draw(st.integers(0, 3)), draw(st.integers(1, 5)), draw(st.integers(2, 9))
    heads = draw(st.integers(1, 3))
    mask = tuple(draw(st.booleans()) for _ in range(sets * size))
    return {
        "x": floats(draw, (sets, size, wide)),
        "mask": Maybe(Mask(mask, (sets, size)), draw(st.booleans())),
        "channels": Count(wide),
        "attention_channels": Count(heads * draw(st.integers(1, 4))),
        "num_heads": Count(heads),
    }


# ---- the adapter of neighborhoods ----------------------------------------------------------------


def call_adapter(x: Any, pos: Any, batch: Any, batch_size: Any, **args: Any) -> Any:
    module = build(nn.GeometryAwareAdapter, args, x)
    return module(x, pos, batch, batch_size=batch_size)


def check_adapter(args: Args, result: Any) -> str | None:
    """Each cloud gives what it gives alone, and woken it is no identity."""
    x = torch.as_tensor(args["x"])
    if result.shape != x.shape:
        return f"shape {list(result.shape)} instead of {list(x.shape)}"
    names = ("x", "pos", "batch", "batch_size")
    built = {name: value for name, value in args.items() if name not in names}
    cloud = torch.tensor(oracles.ids(args["batch"], len(x)), dtype=torch.long)
    for number in cloud.unique().tolist():
        rows = (cloud == number).nonzero().flatten()
        pos = torch.as_tensor(args["pos"])
        alone = call_adapter(x[rows], pos[rows], None, None, **built)
        problem = oracles.near(result[rows], alone.detach().double().numpy(), "cloud alone")
        if problem:
            return problem
    return None


@entry("nn.GeometryAwareAdapter", call=call_adapter, check=check_adapter)
def adapter(draw: Draw) -> dict[str, Spec]:
    cloud, wide = clouds(draw), draw(st.integers(2, 8))
    heads = draw(st.integers(1, 2))
    return {
        "x": floats(draw, (cloud.num_points, wide)),
        "pos": cloud.pos(draw),
        "batch": cloud.batch(),
        "batch_size": cloud.batch_size(),
        "channels": Count(wide),
        "bottleneck_channels": Count(draw(st.integers(1, wide)), high=wide),
        "k": Count(draw(st.integers(1, 6)), capped=True),
        "ratio": Real(draw(st.sampled_from((0.3, 0.5, 1.0))), 0.0, 1.0, open=True),
        "num_interp": Count(draw(st.sampled_from((None, 1, 3))), capped=True, optional=True),
        "attention_channels": Count(2 * heads),
        "num_heads": Count(heads),
        "propagation_scale": Real(0.3),
        "center_scale": Real(0.3),
        "scale": Real(1.0),
    }


# ---- memory bank ---------------------------------------------------------------------------------


def call_bank(
    keys: Any, values: Any, labels: Any, bank_id: Any, query: Any, top_k: Any, sample_id: Any
) -> Any:
    bank = nn.MemoryBank(keys, values, labels=labels, sample_id=bank_id)
    digest = bank.hash
    if digest != nn.MemoryBank(keys, values, labels=labels, sample_id=bank_id).hash:
        raise AssertionError("two banks of one content have different hashes")
    return bank(query, top_k, sample_id)


def check_bank(args: Args, result: Any) -> str | None:
    values = args["keys"] if args["values"] is None else args["values"]
    exclude = None
    if args["sample_id"] is not None:
        held = args["bank_id"].tolist()
        exclude = [held.index(i) if i in held else -1 for i in args["sample_id"].tolist()]
    asked = {**args, "values": values, "exclude": exclude}
    expected, _ = oracles.attention(asked)
    problem = oracles.near(result[:, 0], as_numbers(args["query"]), "query")
    query, keys = as_numbers(args["query"]), as_numbers(args["keys"])
    length = np.linalg.norm(query, axis=1, keepdims=True)
    exact = (query / np.maximum(length, 1e-12)) @ keys.T
    if exclude is not None:
        for row, out in enumerate(exclude):
            exact[row, out] = -np.inf if out >= 0 else exact[row, out]
    if problem or not len(query) or not _untied(exact, int(args["top_k"])):
        return problem
    return oracles.near(result[:, 1], expected, "weighted sum")


@entry("nn.MemoryBank", call=call_bank, check=check_bank, also=("top_k", "exclude"))
def memory_bank(draw: Draw) -> dict[str, Spec]:
    rows, wide, asked = draw(st.integers(2, 8)), draw(WIDTH), draw(st.integers(0, 3))
    step = draw(st.integers(1, 3))
    has_ids = draw(st.booleans())
    ids = tuple(range(0, rows * step, step))
    wanted = tuple(draw(st.integers(0, rows * step)) for _ in range(asked))
    return {
        "keys": floats(draw, (rows, wide)),
        "values": Maybe(floats(draw, (rows, wide)), draw(st.booleans())),
        "labels": Maybe(Whole((0,) * rows, (rows,)), draw(st.booleans())),
        "bank_id": Maybe(Whole(ids, (rows,)), has_ids),
        "query": floats(draw, (asked, wide)),
        "top_k": Count(draw(st.integers(1, rows - 1)), high=rows),
        "sample_id": Maybe(Whole(wanted, (asked,)), has_ids),
    }


def balance(per_class: Any, generator: Any, labels: tuple[int, ...]) -> Any:
    bank = nn.MemoryBank(torch.randn(len(labels), 3), labels=torch.tensor(labels))
    return bank.balanced(per_class, generator=generator)


def check_balance(args: Args, result: Any) -> str | None:
    for label in set(args["labels"]):
        due = min(int(args["per_class"]), args["labels"].count(label))
        found = int((result.labels == label).sum())
        if found != due:
            return f"{found} rows of class {label} instead of {due}"
    return None


@entry("nn.MemoryBank balanced", call=balance, check=check_balance)
def balanced(draw: Draw) -> dict[str, Spec]:
    return {
        "per_class": Count(draw(st.integers(1, 4)), capped=True),
        "generator": Maybe(Made(torch.Generator), draw(st.booleans())),
        "labels": Const(tuple(draw(st.lists(st.integers(0, 2), min_size=1, max_size=9)))),
    }


__all__ = ["build"]
