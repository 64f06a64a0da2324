"""The compiled libraries, where installed: they are asked indeed, and agree with our functions."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from geometry_cases import pairs, points, slow_knn
from torch import Tensor

from pyg_peft.geometry import available_backends, farthest_point_sample, knn, use_backend
from pyg_peft.geometry.pyg.searches import pyg_fps, pyg_knn, pyg_nearest, pyg_radius

BATCH = torch.tensor([0] * 60 + [2] * 40)


def cloud(kind: str = "random") -> Tensor:
    return points(kind, 100, torch.Generator().manual_seed(0), torch.float32)


def counted(function: Callable[..., Any], calls: list[str]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        calls.append(function.__name__)
        return function(*args, **kwargs)

    return wrapper


@pytest.fixture
def torch_cluster():
    return pytest.importorskip("torch_cluster", reason="torch_cluster is not installed")


def test_torch_cluster_is_asked(torch_cluster: Any, monkeypatch: pytest.MonkeyPatch):
    calls: list[str] = []
    monkeypatch.setattr(torch_cluster, "knn", counted(torch_cluster.knn, calls))
    monkeypatch.setattr(torch_cluster, "fps", counted(torch_cluster.fps, calls))
    pos = cloud()
    expected = knn(pos, pos, 5, BATCH, BATCH), farthest_point_sample(pos, 9, BATCH)
    assert calls == []
    with use_backend("torch_cluster"):
        assert torch.equal(knn(pos, pos, 5, BATCH, BATCH), expected[0])
        assert calls == ["knn"]
        assert torch.equal(farthest_point_sample(pos, 9, BATCH), expected[1])
    assert calls == ["knn", "fps"]


@pytest.mark.parametrize("kind", ["random", "far"])
def test_pygs_functions_equal_torch_clusters(torch_cluster: Any, kind: str):
    x, ptr = cloud(kind), torch.tensor([0, 60, 60, 100])
    y, batch_y, ptr_y = x[::3] + 0.25, BATCH[::3].contiguous(), torch.tensor([0, 20, 20, 34])
    assert torch.equal(pyg_knn(x, y, ptr, ptr_y, 4), torch_cluster.knn(x, y, 4, BATCH, batch_y))
    found = pyg_radius(x, y, ptr, ptr_y, 0.8, 100)
    theirs = torch_cluster.radius(x, y, 0.8, BATCH, batch_y, 100)
    assert sorted(pairs(found)) == sorted(pairs(theirs))
    assert torch.equal(pyg_nearest(y, x, ptr_y, ptr), torch_cluster.nearest(y, x, batch_y, BATCH))
    full = torch.cat([torch.zeros(60), torch.ones(40)]).long()
    assert torch.equal(
        pyg_fps(x, torch.tensor([0, 60, 100]), 0.3, False),
        torch_cluster.fps(x, full, 0.3, random_start=False),
    )


def test_pyg_lib_is_asked(monkeypatch: pytest.MonkeyPatch):
    """Its wheels are not on the package index: a stand-in with its calls takes its place."""
    import sys

    from pyg_peft.geometry.search import backends

    calls: list[str] = []

    def stand_in_knn(x: Tensor, y: Tensor, ptr_x: Tensor, ptr_y: Tensor, k: int) -> Tensor:
        calls.append("knn")
        batch = torch.arange(ptr_x.numel() - 1)
        clouds = batch.repeat_interleave(ptr_x.diff()), batch.repeat_interleave(ptr_y.diff())
        return torch.tensor(slow_knn(x, y, k, *clouds)).view(-1, 2).t().flip(0)

    def stand_in_fps(src: Tensor, ptr: Tensor, ratio: float, random_start: bool) -> Tensor:
        calls.append("fps")
        with use_backend("dense"):
            return pyg_fps(src, ptr, ratio, random_start)

    library = SimpleNamespace(ops=SimpleNamespace(knn=stand_in_knn, fps=stand_in_fps))
    pos = cloud()
    expected = knn(pos, pos, 5, BATCH, BATCH), farthest_point_sample(pos, 9, BATCH)
    known = backends._is_installed
    monkeypatch.setitem(sys.modules, "pyg_lib", library)
    monkeypatch.setattr(
        backends, "_is_installed", lambda package: package == "pyg_lib" or known(package)
    )
    assert "pyg_lib" in available_backends("fps")
    with use_backend("pyg_lib"):
        assert torch.equal(knn(pos, pos, 5, BATCH, BATCH), expected[0])
        assert torch.equal(farthest_point_sample(pos, 9, BATCH), expected[1])
    assert calls == ["knn", "fps"]
