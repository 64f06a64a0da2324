"""Geometry inside a compiled graph: one graph, equal to eager, at two sizes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from _pytest.mark import ParameterSet
from torch import Tensor

from pyg_peft.geometry import (
    Patches,
    Structure,
    ball_query,
    build_patches,
    build_structure,
    farthest_point_sample,
    knn,
    knn_graph,
    to_dense,
)

CALLS: dict[str, Callable[[Tensor, Tensor | None, int], Any]] = {
    "knn": lambda pos, batch, size: knn(pos, pos + 0.1, 4, batch, batch, batch_size=size),
    "knn_graph": lambda pos, batch, size: knn_graph(pos, 3, batch, batch_size=size),
    "ball_query": lambda pos, batch, size: ball_query(
        pos, pos, 0.7, 5, batch, batch, batch_size=size
    ),
    "fps": lambda pos, batch, size: farthest_point_sample(pos, 4, batch, batch_size=size),
    "build_patches": lambda pos, batch, size: build_patches(
        pos, batch, num_centers=4, patch_size=3, x=pos, batch_size=size
    ),
    "build_structure": lambda pos, batch, size: build_structure(
        pos, batch, k=3, num_centers=4, batch_size=size
    ),
    "ratio": lambda pos, batch, size: build_structure(pos, batch, k=3, ratio=0.3, batch_size=size),
    "to_dense": lambda pos, batch, size: to_dense(pos, batch, size, max_num=12),
}


def tensors(result: Any) -> list[Tensor]:
    if isinstance(result, Structure):
        back = [result.interp_index, result.interp_weight, result.interp_ptr]
        return [result.center_index, result.edge_index, *back]
    if isinstance(result, Patches):
        assert result.features is not None
        index = [result.index, result.center_index]
        return [result.points, result.center, result.features, *index]
    return list(result) if isinstance(result, tuple) else [result]


def cloud(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))


def quick(*names: str) -> list[ParameterSet]:
    """All calls, those that are not named only with the slow tests: graphs take seconds."""
    return [pytest.param(n, marks=[] if n in names else pytest.mark.slow) for n in CALLS]


@pytest.mark.parametrize("name", quick("knn_graph", "build_patches", "build_structure"))
def test_one_cloud(name: str):
    torch._dynamo.reset()
    compiled = torch.compile(CALLS[name], fullgraph=True, backend="eager")
    for count in (12, 9):
        pos = cloud(count)
        for found, expected in zip(
            tensors(compiled(pos, None, 1)), tensors(CALLS[name](pos, None, 1)), strict=True
        ):
            torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", quick("ball_query", "to_dense", "build_patches"))
def test_ragged_clouds(name: str):
    torch._dynamo.reset()
    compiled = torch.compile(CALLS[name], fullgraph=True, backend="eager")
    for sizes in ([7, 0, 5], [3, 1, 4]):
        batch = torch.arange(3).repeat_interleave(torch.tensor(sizes))
        pos = cloud(sum(sizes))
        for found, expected in zip(
            tensors(compiled(pos, batch, 4)), tensors(CALLS[name](pos, batch, 4)), strict=True
        ):
            torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.slow
def test_generated_code_equals_eager():
    torch._dynamo.reset()
    call = CALLS["build_patches"]
    pos = cloud(20)
    found = tensors(torch.compile(call, fullgraph=True)(pos, None, 1))
    for one, expected in zip(found, tensors(call(pos, None, 1)), strict=True):
        torch.testing.assert_close(one, expected, rtol=0, atol=0)


class CutAndConnect(torch.nn.Module):
    def forward(self, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        patches = build_patches(pos, batch, num_centers=3, patch_size=2, batch_size=2)
        return patches.points, knn_graph(pos, 2, batch, batch_size=2)


def test_exports():
    pos, batch = cloud(9), torch.tensor([0] * 5 + [1] * 4)
    exported = torch.export.export(CutAndConnect(), (pos, batch)).module()
    for found, expected in zip(exported(pos, batch), CutAndConnect()(pos, batch), strict=True):
        assert torch.equal(found, expected)


def test_a_batch_needs_its_size(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with pytest.raises(ValueError, match="'batch_size' to be given while a graph is compiled"):
        knn_graph(cloud(4), 2, torch.tensor([0, 0, 1, 1]))
