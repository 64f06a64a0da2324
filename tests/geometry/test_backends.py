"""Choosing a search library by hand."""

import subprocess
import sys

import pytest
import torch
from commands import environment
from geometry_cases import KNN_BACKENDS

from pyg_peft.geometry import available_backends, knn, use_backend
from pyg_peft.geometry.search.backends import chosen_backend

POS = torch.zeros(1, 3)


def test_nesting_restores_what_was_forced_before():
    before = chosen_backend("knn", POS)
    with use_backend("dense"):
        with use_backend("scipy"):
            assert chosen_backend("knn", POS) == "scipy"
        assert chosen_backend("knn", POS) == "dense"
    assert chosen_backend("knn", POS) == before


def test_a_backend_leaves_tasks_alone_that_it_has_no_part_in():
    fps = chosen_backend("fps", POS)
    with use_backend("scipy"):
        assert chosen_backend("fps", POS) == fps


def test_an_error_restores_too():
    before = chosen_backend("knn", POS)
    with pytest.raises(RuntimeError), use_backend("dense"):
        raise RuntimeError
    assert chosen_backend("knn", POS) == before


def test_features_go_to_the_dense_search():
    assert chosen_backend("knn", torch.zeros(1, 64)) == "dense"
    assert chosen_backend("fps", POS.double()) == "dense"


def test_nanoflann_searches_on_one_thread_where_no_radius_bounds_the_search(
    monkeypatch: pytest.MonkeyPatch,
):
    pytest.importorskip("pynanoflann", reason="pynanoflann is not installed")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert chosen_backend("knn", POS) == chosen_backend("knn", POS.double()) == "nanoflann"
    assert chosen_backend("knn", POS, radius=1.0) == "scipy"
    with use_backend("nanoflann"):
        assert chosen_backend("knn", POS, radius=1.0) == "nanoflann"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert chosen_backend("knn", POS) == "scipy"


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match=r"Expected 'name' to be one of .*\(got 'faiss'\)"):
        use_backend("faiss").__enter__()
    with pytest.raises(ValueError, match="Expected 'task'"):
        available_backends("voxels")


def test_a_missing_package_is_an_import_error(monkeypatch: pytest.MonkeyPatch):
    from pyg_peft.geometry.search import backends

    monkeypatch.setattr(backends, "_is_installed", lambda package: package in ("torch", "scipy"))
    assert available_backends() == ("dense", "scipy")
    assert chosen_backend("fps", POS) == "dense"
    assert chosen_backend("knn", POS) == "scipy"
    with pytest.raises(ImportError, match="'fpsample' to be installed"):
        use_backend("fpsample").__enter__()


def test_threads_do_not_share_what_is_forced():
    from threading import Thread

    seen: list[str] = []
    before = chosen_backend("knn", POS)
    with use_backend("dense"):
        thread = Thread(target=lambda: seen.append(chosen_backend("knn", POS)))
        thread.start()
        thread.join()
    assert seen == [before]


@pytest.mark.parametrize("backend", KNN_BACKENDS)
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_nothing(backend: str, threads: int):
    generator = torch.Generator().manual_seed(0)
    pos = torch.randn(600, 3, generator=generator)
    batch = torch.tensor([0] * 100 + [1] * 100 + [2] * 3 + [4] * 397)  # ragged, with a gap
    with use_backend("dense"):
        expected = knn(pos, pos, 5, batch, batch)
        alone = knn(pos, pos, 5)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with use_backend(backend):
            assert torch.equal(knn(pos, pos, 5, batch, batch), expected)
            assert torch.equal(knn(pos, pos, 5), alone)
    finally:
        torch.set_num_threads(before)


EQUAL = """
import torch
from pyg_peft.geometry import knn, use_backend

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
for number in (25, 100, 1000):
    for _ in range(150):
        # The memory that the library takes next is full of other numbers.
        noise = torch.randn(4096, generator=generator, dtype=torch.float64)
        one = torch.randn(1, 3, generator=generator, dtype=torch.float64)
        del noise
        pos = torch.cat([torch.randn(20, 3, dtype=one.dtype), one.expand(number, 3)])
        for cloud in (pos, pos[20:]):
            with use_backend("nanoflann"):
                found = knn(cloud, cloud[:9], 5)
            with use_backend("scipy"):
                assert torch.equal(found, knn(cloud, cloud[:9], 5))
print("whole")
"""


def test_many_equal_points_do_not_end_the_process():
    pytest.importorskip("pynanoflann", reason="pynanoflann is not installed")
    command = [sys.executable, "-W", "ignore", "-c", EQUAL]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 0 and done.stdout.strip() == "whole", done.stderr[-2000:]
