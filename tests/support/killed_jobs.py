"""What is killed at random moments, and the children that do it.

A child is forked from a server that has imported everything (a command of its own would import
torch for seconds), so that it begins at once and the moment of its death lies within its work.
"""

import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import commands
import numpy as np
import torch
from torch_geometric.loader import DataLoader
from tuned import SIZES, Way, tiny_bank, tiny_base

from pyg_peft.datasets import NpzShapes, ProceduralShapes, ShapeFolder
from pyg_peft.nn import MemoryBank
from pyg_peft.training.data.cache import FeatureCache

Writers = tuple[Callable[[], object], Callable[[], object]]

CALM = 300.0  # seconds after which a child hangs


# ---- runs --------------------------------------------------------------------------------------


def run_fit(begin: Callable[[], None], data: str, folder: str) -> None:
    """Tune with a memory bank; go on where ``folder`` is."""
    from pyg_peft.cli import main

    begin()
    assert main(commands.fit(data, Path(folder), "--resume", "true", epochs=4)) == 0


def run_pretraining(begin: Callable[[], None], data: str, folder: str) -> None:
    """Pre-train with some checkpoints, not one a step; go on where ``folder`` is."""
    from pyg_peft.cli import main

    options = ("epochs=12", "log_every=1", "checkpoint_minutes=0.0015")
    more = [f"--options.{option}" for option in options]
    begin()
    assert main(commands.pretrain(data, Path(folder), *more, "--device=cpu")) == 0


# ---- writers -----------------------------------------------------------------------------------


def adapter_writers(folder: Path) -> Writers:
    """Two adapters, each with a bank of its own, that are saved to the same folder."""
    models = [Way("point_peft", True).awake(seed) for seed in (1, 2)]
    models[1].memory_banks["default"] = tiny_bank(6)
    first, second = (partial(model.save_pretrained, folder / "adapter") for model in models)
    return first, second


def bank_writers(folder: Path) -> Writers:
    """Two backbones, whose features are collected and saved to the same file."""

    def make(seed: int) -> Callable[[], object]:
        base = tiny_base(seed)
        loader = DataLoader(_shapes(), batch_size=8)

        def write() -> None:
            bank = MemoryBank.from_loader(base, loader)
            for _ in range(6):  # so that writing is no small part of it
                bank.save(folder / "bank.safetensors")

        return write

    return make(0), make(1)


def feature_writers(folder: Path) -> Writers:
    """Two models, whose frozen features are computed and saved to the same file."""

    def make(seed: int) -> Callable[[], object]:
        model = Way("point_peft", True).attach(tiny_base(seed)).eval()
        batch = next(iter(DataLoader(_shapes(), batch_size=12)))

        def write() -> None:
            cache = FeatureCache(model, "a transform")
            cache(batch)
            for _ in range(4):
                cache.save(folder / "features.safetensors")

        return write

    return make(1), make(2)


def folder_writers(folder: Path) -> Writers:
    """A folder of which one file changes, so that it is parsed anew and its cache is replaced."""
    root, drawn = folder / "shapes", np.random.default_rng(0)
    for name in ("cup/0.npy", "cup/1.npy", "bowl/0.npy"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(root / name, drawn.normal(size=(400, 3)))

    def write(size: int) -> None:
        spare = root / ".changed.npy"
        np.save(spare, np.random.default_rng(size).normal(size=(size, 3)))
        os.replace(spare, root / "cup/0.npy")
        ShapeFolder(root, cache=folder / "cache")

    return partial(write, 300), partial(write, 350)


def set_writers(folder: Path) -> Writers:
    """Two sets that are written to the same file."""

    def write(seed: int) -> None:
        drawn = np.random.default_rng(seed)
        clouds = [drawn.normal(size=(500, 3)) for _ in range(20)]
        NpzShapes.write(folder / "set.npz", clouds, [0, 1] * 10, class_names=["cup", "bowl"])

    return partial(write, 1), partial(write, 2)


WRITERS: dict[str, Callable[[Path], Writers]] = {
    "adapter": adapter_writers,
    "bank": bank_writers,
    "features": feature_writers,
    "folder": folder_writers,
    "set": set_writers,
}


def run_writers(begin: Callable[[], None], kind: str, folder: str, turns: int) -> None:
    """Let the two writers of a kind take turns."""
    writers = WRITERS[kind](Path(folder))
    begin()
    for turn in range(turns):
        writers[turn % 2]()


def _shapes() -> Any:
    return ProceduralShapes(num_shapes=12, num_points=max(SIZES) + 50)


# ---- children ----------------------------------------------------------------------------------


def _child(job: Callable[..., None], arguments: tuple[Any, ...], to: Connection, scrap: str):
    os.environ["TMPDIR"] = tempfile.tempdir = scrap  # so that what others leave there is seen
    handle = os.open(Path(scrap).parent / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    torch.set_num_threads(1)
    job(lambda: to.send(time.process_time()), *arguments)
    to.send(time.process_time())


class Children:
    """Runs jobs in children that begin at once.

    Moments are in seconds of the child's processor, not of the wall: however busy the machine is,
    the same share of the work is done.

    Args:
        folder: Receives a folder for their temporary files and the output of the latest one.
    """

    def __init__(self, folder: Path) -> None:
        self.scrap, self.output = folder / "scrap", folder / "output.txt"
        self.scrap.mkdir(parents=True)
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload([__name__, "pyg_peft.cli.fit", "pyg_peft.cli.pretrain"])

    def finish(self, job: Callable[..., None], *arguments: Any) -> float:
        """Run a job to its end, and return how many seconds it worked."""
        with self._begun(job, arguments) as (child, here, begun):
            child.join(CALM)
            assert child.exitcode == 0, f"exit code {child.exitcode}: {self.output.read_text()}"
            return here.recv() - begun

    def kill(self, job: Callable[..., None], *arguments: Any, after: float) -> bool:
        """Kill a job once it has worked so many seconds; return whether it was at work."""
        with self._begun(job, arguments) as (child, _, begun):
            limit = time.monotonic() + CALM
            while child.is_alive() and _worked(child.pid) < begun + after:
                assert time.monotonic() < limit, f"it hangs: {self.output.read_text()}"
                time.sleep(0.001)
            child.kill()
            child.join(CALM)
            assert child.exitcode in (0, -9), f"{child.exitcode}: {self.output.read_text()}"
            return child.exitcode == -9

    @contextmanager
    def _begun(
        self, job: Callable[..., None], arguments: tuple[Any, ...]
    ) -> Generator[tuple[Any, Connection, float]]:
        here, there = self.context.Pipe(duplex=False)
        scrap = str(self.scrap)
        child = self.context.Process(target=_child, args=(job, arguments, there, scrap))
        child.start()
        there.close()
        try:
            assert here.poll(CALM), f"it does not begin: {self.output.read_text()}"
            yield child, here, here.recv()
        finally:
            here.close()
            child.kill()
            child.join()
            child.close()


def _worked(pid: int | None) -> float:
    """Seconds that a process has had of the processor; without end if it is gone."""
    assert pid is not None
    try:
        return time.clock_gettime(~pid << 3 | 2)  # as clock_getcpuclockid(3) of Linux makes it
    except OSError:
        return math.inf
