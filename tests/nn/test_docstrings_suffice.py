"""Every component computed anew by somebody who has read its docstring and nothing else.

Plain loops over plain numbers, in float64. A step that a docstring leaves open, or states otherwise
than it is done, shows as a difference.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

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
from pyg_peft.testing import random_clouds, randomize_

C = 6


def awake(module: Any) -> Any:
    return randomize_(module.double(), torch.Generator().manual_seed(0)).eval()


def assert_equal(found: Tensor, rows: list[Any]) -> None:
    expected = torch.tensor(rows, dtype=torch.float64).view(found.shape)
    torch.testing.assert_close(found.detach(), expected, rtol=1e-10, atol=1e-10)


# ---- vectors as lists ----------------------------------------------------------------------------


def numbers(tensor: Tensor) -> Any:
    return tensor.detach().double().tolist()


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def times(weight: list[list[float]], x: list[float]) -> list[float]:
    return [dot(row, x) for row in weight]


def plus(*vectors: list[float]) -> list[float]:
    return [sum(values) for values in zip(*vectors, strict=True)]


def scaled(factor: float, x: list[float]) -> list[float]:
    return [factor * value for value in x]


def distance(a: list[float], b: list[float]) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def q(u: float) -> float:
    return u / (1 + math.exp(-1.702 * u))


def gelu(u: float) -> float:
    return u * 0.5 * (1 + math.erf(u / math.sqrt(2)))


def softmax(scores: list[float]) -> list[float]:
    powers = [math.exp(score) for score in scores]
    return [power / sum(powers) for power in powers]


# ---- the steps that docstrings state -------------------------------------------------------------


def bottleneck(module: Any, x: list[float]) -> list[float]:
    """What is added to ``x``."""
    inner = plus(times(numbers(module.down.weight), x), numbers(module.down.bias))
    outer = times(numbers(module.up.weight), [q(value) for value in inner])
    return scaled(module.scale, plus(outer, numbers(module.up.bias)))


def attention(module: Any, rows: list[list[float]]) -> list[list[float]]:
    """What each member of a neighborhood learns from all of its members."""
    width, heads = module.attention_channels, module.num_heads
    size = width // heads
    projected: list[list[float]] = []
    for row in rows:
        mean = sum(row) / len(row)
        var = sum((value - mean) ** 2 for value in row) / len(row)
        row = [(value - mean) / math.sqrt(var + 1e-5) for value in row]
        weight, bias = numbers(module.norm.weight), numbers(module.norm.bias)
        row = [v * w + b for v, w, b in zip(row, weight, bias, strict=True)]
        projected.append(times(numbers(module.qkv.weight), row))
    out: list[list[float]] = []
    for asking in projected:
        together: list[float] = []
        for head in range(heads):
            first = head * size
            query = asking[first : first + size]
            keys = [row[width + first : width + first + size] for row in projected]
            values = [row[2 * width + first : 2 * width + first + size] for row in projected]
            weight = softmax([dot(query, key) * width**-0.5 for key in keys])
            together += plus(*[scaled(w, v) for w, v in zip(weight, values, strict=True)])
        proj = times(numbers(module.proj.weight), together)
        out.append(plus(proj, numbers(module.proj.bias)))
    return out


def sample(pos: list[list[float]], count: int) -> list[int]:
    mean = scaled(1 / len(pos), plus(*pos))
    chosen = [max(range(len(pos)), key=lambda i: distance(pos[i], mean))]
    while len(chosen) < count:
        rest = [i for i in range(len(pos)) if i not in chosen]
        chosen.append(max(rest, key=lambda i: min(distance(pos[i], pos[c]) for c in chosen)))
    return chosen


def nearest(point: list[float], pos: list[list[float]], count: int) -> list[int]:
    return sorted(range(len(pos)), key=lambda i: (distance(point, pos[i]), i))[:count]


def adapt(
    adapter: Any, clouds: list[tuple[list[list[float]], list[list[float]]]]
) -> list[list[float]]:
    """Features and positions of each cloud to the corrected features of all."""
    sampled = [sample(pos, math.ceil(adapter.ratio * len(pos))) if pos else [] for _, pos in clouds]
    largest: list[list[list[float]]] = []
    for (x, pos), centers in zip(clouds, sampled, strict=True):
        largest.append([])
        for c in centers:
            rows = [x[j] for j in nearest(pos[c], pos, adapter.k)]
            y = [plus(*pair) for pair in zip(rows, attention(adapter.attention, rows), strict=True)]
            largest[-1].append([max(column) for column in zip(*y, strict=True)])
    norm, together = adapter.norm, [row for rows in largest for row in rows]
    mean, var = numbers(norm.running_mean), numbers(norm.running_var)
    if adapter.training:
        columns = list(zip(*together, strict=True))
        mean = [sum(column) / len(column) for column in columns]
        var = [sum((v - m) ** 2 for v in c) / len(c) for c, m in zip(columns, mean, strict=True)]
    weight, bias = numbers(norm.weight), numbers(norm.bias)
    out: list[list[float]] = []
    for (x, pos), centers, rows in zip(clouds, sampled, largest, strict=True):
        z: list[list[float]] = []
        for c, row in zip(centers, rows, strict=True):
            normal = [
                (v - m) / math.sqrt(s + 1e-5) * w + b
                for v, m, s, w, b in zip(row, mean, var, weight, bias, strict=True)
            ]
            z.append(plus([gelu(v) for v in normal], scaled(adapter.center_scale, x[c])))
        places = [pos[c] for c in centers]
        for i in range(len(pos)):
            few = len(centers) if adapter.num_interp is None else adapter.num_interp
            givers = nearest(pos[i], places, few)
            v = [1 / (distance(places[c], pos[i]) ** 2 + 1e-8) for c in givers]
            received = plus(*[scaled(a / sum(v), z[c]) for a, c in zip(v, givers, strict=True)])
            h = plus(x[i], scaled(adapter.gate.item(), received))
            out.append(plus(h, bottleneck(adapter.bottleneck, h)))
    return out


# ---- against the components ----------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"k": 1, "ratio": 0.1, "num_interp": 1},
        {"k": 3, "ratio": 0.3, "num_interp": 2, "num_heads": 1},
        {"k": 5, "ratio": 0.7, "num_interp": None, "attention_channels": 4, "num_heads": 2},
        {"k": 40, "ratio": 1.0, "num_interp": 5, "scale": 0.7, "center_scale": 0.45},
    ],
    ids=str,
)
def test_geometry_aware_adapter(sizes: dict[str, Any], training: bool, generator: torch.Generator):
    adapter = awake(GeometryAwareAdapter(C, 4, **sizes)).train(training)
    counts = [9, 1, 0, 5, 17, 3]
    clouds = random_clouds(counts, C, generator=generator)
    found = adapter(clouds.x, clouds.pos, clouds.batch, batch_size=len(counts))
    pairs = zip(clouds.x.split(counts), clouds.pos.split(counts), strict=True)
    assert_equal(found, adapt(adapter, [(numbers(x), numbers(pos)) for x, pos in pairs]))


@pytest.mark.parametrize("heads", [1, 2, 6])
def test_neighbor_attention(heads: int, generator: torch.Generator):
    module = awake(NeighborAttention(C, 6, heads))
    x = torch.randn(3, 5, C, dtype=torch.float64, generator=generator)
    mask = torch.tensor([[True] * 5, [True, False, True, True, False], [False] * 4 + [True]])
    found = module(x, mask)
    for s in range(3):
        rows = numbers(x[s][mask[s]])
        assert_equal(found[s][mask[s]], attention(module, rows))


def test_bottleneck(generator: torch.Generator):
    module = awake(Bottleneck(C, 4, scale=0.7))
    x = torch.randn(5, C, dtype=torch.float64, generator=generator)
    assert_equal(module(x), [plus(row, bottleneck(module, row)) for row in numbers(x)])
    assert_equal(quick_gelu(x), [[q(value) for value in row] for row in numbers(x)])


def test_prompts(generator: torch.Generator):
    module = awake(PointPriorPrompt(C, 4, 2))
    prior = torch.randn(3, 4, C, dtype=torch.float64, generator=generator)
    tokens = numbers(module.tokens.weight)
    expected = [
        [
            plus(token, row, bottleneck(module.bottleneck, row))
            for token, row in zip(tokens, numbers(cloud), strict=True)
        ]
        for cloud in prior
    ]
    assert_equal(module(3, prior), expected)
    assert_equal(module(2), [tokens, tokens])
    plain = awake(PromptTokens(4, C))
    assert_equal(plain(2), [numbers(plain.weight)] * 2)


def retrieve(
    query: list[float], keys: list[list[float]], top_k: int, without: int
) -> tuple[list[int], list[float]]:
    """Rows and scores, best first."""
    length = max(math.sqrt(dot(query, query)), 1e-12)
    score = [dot(scaled(1 / length, query), key) for key in keys]
    rows = sorted((r for r in range(len(keys)) if r != without), key=lambda r: (-score[r], r))
    return rows[:top_k], [score[r] for r in rows[:top_k]]


@pytest.mark.parametrize("asks_for_itself", [False, True])
def test_memory_bank_and_its_attention(asks_for_itself: bool, generator: torch.Generator):
    keys = torch.randn(12, C, dtype=torch.float64, generator=generator)
    keys[7] = keys[2]  # a tie
    values = torch.randn(12, C, dtype=torch.float64, generator=generator)
    query = torch.cat([keys[:4] * 3, keys.new_zeros(1, C)])
    ids = torch.tensor([10, 12, 14, 16, 99]) if asks_for_itself else None
    own = [0, 1, 2, 3, -1] if asks_for_itself else [-1] * 5
    found = MemoryBank(keys, values, sample_id=torch.arange(12) * 2 + 10)(query, 3, ids)
    expected: list[Any] = []
    rows_of: list[Any] = []
    score_of: list[Any] = []
    for row, without in zip(numbers(query), own, strict=True):
        rows, score = retrieve(row, numbers(keys), 3, without)
        neighbors = [numbers(values[r]) for r in rows]
        mean = plus(*[scaled(a, v) for a, v in zip(softmax(score), neighbors, strict=True)])
        expected.append([row, mean, *neighbors])
        rows_of.append(rows)
        score_of.append(score)
    assert_equal(found, expected)
    out, score, index = parameter_free_attention(
        query, keys, values, 3, exclude=torch.tensor(own), chunk_size=5
    )
    assert index.tolist() == rows_of
    assert_equal(score, score_of)
    assert_equal(out, [answer[1] for answer in expected])


def test_low_rank(generator: torch.Generator):
    module = awake(LowRankLinear(C, 4, 2, alpha=3.0))
    x = torch.randn(5, C, dtype=torch.float64, generator=generator)
    down, up = numbers(module.down.weight), numbers(module.up.weight)
    assert_equal(module(x), [scaled(3.0 / 2, times(up, times(down, row))) for row in numbers(x)])


def test_low_rank_of_types(generator: torch.Generator):
    module = awake(LowRankHeteroLinear(C, 4, 3, 2, alpha=3.0))
    x = torch.randn(5, C, dtype=torch.float64, generator=generator)
    kinds = [2, 0, 0, 1, 2]
    expected = [
        scaled(3.0 / 2, times(numbers(module.up[t].T), times(numbers(module.down[t].T), row)))
        for row, t in zip(numbers(x), kinds, strict=True)
    ]
    assert_equal(module(x, torch.tensor(kinds)), expected)
