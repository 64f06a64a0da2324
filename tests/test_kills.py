"""Fifty SIGKILLs at random moments: what is on disk is whole, and who goes on ends the same.

The moments are drawn, from a seed, over the time that the same work takes undisturbed, so that a
kill may hit anything: imports that are left, reading, training, writing, the last step before the
end. At least half of the kills must hit work that is not yet done; ``kill`` says whether.
"""

import json
import logging
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import logged, write_set
from killed_jobs import WRITERS, Children, run_fit, run_pretraining, run_writers
from safetensors.torch import load_file
from tuned import tiny_base

from pyg_peft.checkpoint import WEIGHTS
from pyg_peft.datasets import ShapeFolder
from pyg_peft.model import PeftModel
from pyg_peft.nn import MemoryBank
from pyg_peft.tensor_file import read_tensors

for needed in ("jsonargparse", "lightning", "torchmetrics", "matplotlib"):
    pytest.importorskip(needed, reason=f"{needed} is not installed")
pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells how long another process has worked"
)

open_folder: Any = ShapeFolder  # PyG types an item as a union

RUN_KILLS = (1, 2, 3, 1, 2, 3)  # of each run of fit, and of pretrain
WRITER_KILLS = {"adapter": 8, "bank": 6, "features": 4, "folder": 4, "set": 4}
TURNS = {"adapter": 40, "bank": 16, "features": 24, "folder": 40, "set": 24}


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Children]:
    """Children of a server that finds the modules of the tests where this process does."""
    with pytest.MonkeyPatch.context() as patch:
        here = [str(Path(__file__).parent / "support"), *filter(None, sys.path)]
        patch.setenv("PYTHONPATH", os.pathsep.join(here))
        yield Children(tmp_path_factory.mktemp("children"))


def files_of(folder: Path) -> list[str]:
    """Every file below a folder, temporary ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def check_whole(folder: Path) -> None:
    """Open each file that has its own name; what is half raises. A log may end within a line."""
    for path in folder.rglob("*"):
        if path.name.endswith(".tmp") or not path.is_file():
            continue
        if path.suffix in (".ckpt", ".pth"):
            torch.load(path, weights_only=True)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            whole, _, _ = path.read_text().rpartition("\n")
            for line in whole.splitlines():
                json.loads(line)
        elif path.name == WEIGHTS:
            read_tensors(path, "an adapter", 1)
        elif path.name.startswith("memory_bank."):
            MemoryBank.load(path)
        else:
            assert path.name == "README.md" and path.read_text().endswith("\n"), path


def test_there_are_fifty():
    assert 2 * sum(RUN_KILLS) + sum(WRITER_KILLS.values()) == 50
    assert WRITERS.keys() == WRITER_KILLS.keys() == TURNS.keys()


def kill_and_resume(children: Children, job: Any, data: str, folder: Path, equals: Any) -> None:
    """Kill a run once or more often before it may end; do so for several runs."""
    whole, moments, live = folder / "whole", random.Random(0), 0
    calm = children.finish(job, data, str(whole))
    check_whole(whole)
    for number, kills in enumerate(RUN_KILLS):
        killed = folder / f"killed {number}"
        for _ in range(kills):
            live += children.kill(job, data, str(killed), after=moments.uniform(0, calm))
            if killed.exists():
                check_whole(killed)
        children.finish(job, data, str(killed))
        equals(whole, killed)
        assert files_of(killed) == files_of(whole), "something half is left"
        # PyG renders a layer's code to a file there; a process removes it as it ends.
        scrap = [name for name in files_of(children.scrap) if not name.endswith(".py")]
        assert scrap == [], "something is left among temporary files"
    print(f"{live} of {sum(RUN_KILLS)} kills hit a live run")
    assert live >= sum(RUN_KILLS) / 2


@pytest.mark.slow
def test_fit(tmp_path: Path, children: Children):
    def equals(whole: Path, killed: Path) -> None:
        first, second = (load_file(folder / WEIGHTS) for folder in (whole, killed))
        assert first.keys() == second.keys()
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
        first, second = (json.loads((f / "result.json").read_text()) for f in (whole, killed))
        assert first == second

    data = str(write_set(tmp_path / "set.npz"))
    kill_and_resume(children, run_fit, data, tmp_path / "runs", equals)


@pytest.mark.slow
def test_pretrain(tmp_path: Path, children: Children):
    def equals(whole: Path, killed: Path) -> None:
        assert logged(whole) == logged(killed)
        first, second = (
            torch.load(folder / "checkpoint.pth", weights_only=True)["model"]
            for folder in (whole, killed)
        )
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())

    kill_and_resume(children, run_pretraining, "procedural:32", tmp_path / "runs", equals)


def contents(kind: str, folder: Path, caplog: pytest.LogCaptureFixture) -> Any:
    """What a reader finds, or ``None`` if nothing is there; it has to be whole."""
    if kind == "adapter":
        if not (folder / "adapter" / WEIGHTS).exists():
            return None
        loaded = PeftModel.from_pretrained(tiny_base(), folder / "adapter")  # with its bank
        assert loaded.memory_bank is not None
        return (folder / "adapter" / WEIGHTS).read_bytes(), loaded.memory_bank.hash
    if kind == "folder":
        if not [path for path in (folder / "cache").glob("*") if path.suffix == ".npz"]:
            return None
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            cached = open_folder(folder / "shapes", cache=folder / "cache")
        assert not caplog.records, "the cache was damaged"
        plain = open_folder(folder / "shapes", cache=False)
        assert all(torch.equal(a.pos, b.pos) for a, b in zip(cached, plain, strict=True))
        return [len(item.pos) for item in cached]
    (name,) = {"bank": ["bank.safetensors"], "features": ["features.safetensors"]}.get(
        kind, ["set.npz"]
    )
    return (folder / name).read_bytes() if (folder / name).exists() else None


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRITERS)
def test_writers(kind: str, tmp_path: Path, children: Children, caplog: pytest.LogCaptureFixture):
    clean, calm, moments = [], 0.0, random.Random(0)
    for turns in (1, 2):
        folder = tmp_path / f"clean {turns}"
        children.finish(run_writers, kind, str(folder), turns)
        clean.append(contents(kind, folder, caplog))
    assert None not in clean and clean[0] != clean[1]
    killed, live = tmp_path / "killed", 0
    calm = children.finish(run_writers, kind, str(tmp_path / "calm"), TURNS[kind])
    for _ in range(WRITER_KILLS[kind]):
        after = moments.uniform(0, calm)
        live += children.kill(run_writers, kind, str(killed), TURNS[kind], after=after)
        assert contents(kind, killed, caplog) in (None, *clean)
    children.finish(run_writers, kind, str(killed), 1)
    assert contents(kind, killed, caplog) == clean[0]
    assert files_of(killed) == files_of(tmp_path / "clean 1"), "something half is left"
    print(f"{live} of {WRITER_KILLS[kind]} kills hit a live writer")
    assert live >= WRITER_KILLS[kind] / 2
