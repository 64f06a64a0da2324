"""Interrupts, full disks, folders that cannot be written to, and two writers at once."""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import environment, fit, logged, pretrain, write_set
from safetensors.torch import load_file

for package in ("jsonargparse", "lightning", "torchmetrics"):
    pytest.importorskip(package, reason=f"{package} is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals and limits are those of Unix"),
]
EPOCHS = 4
_DROP_CAPABILITY, _OVERRIDE_PERMISSIONS = 24, 1  # of Linux: PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
CLOUDS = "procedural:20"


def command(name: str, data: Path, folder: Path, *more: str) -> list[str]:
    """A command that takes some seconds and leaves something after the first of them."""
    if name == "fit":
        return fit(data, folder, "--num_workers", "1", *more, epochs=EPOCHS)
    options = ("--options.epochs=60", "--options.checkpoint_minutes=0", "--device=cpu")
    return pretrain(CLOUDS, folder, *options, *more)


def start(arguments: list[str], limit: Callable[[], Any] | None = None) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pyg_peft.cli", *arguments],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
        start_new_session=True,
    )


def finish(child: "subprocess.Popen[str]") -> tuple[int, str]:
    _, error = child.communicate(timeout=300)
    return child.returncode, error


def saved(name: str, folder: Path) -> Path:
    """What the command goes on from."""
    return folder / ("checkpoints/last.ckpt" if name == "fit" else "checkpoint.pth")


def wait_for(path: Path, child: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + 240
    while not path.exists() and child.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    assert path.exists() and child.poll() is None, child.communicate()[1]


def weights(name: str, folder: Path) -> dict[str, torch.Tensor]:
    if name == "fit":
        return load_file(folder / "adapter_model.safetensors")
    return torch.load(folder / "checkpoint.pth", weights_only=True)["model"]


def assert_same(name: str, folder: Path, whole: Path) -> None:
    expected, found = weights(name, whole), weights(name, folder)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    if name == "pretrain":
        assert logged(folder) == logged(whole)
    else:
        results = [json.loads((one / "result.json").read_text()) for one in (folder, whole)]
        assert results[0] == results[1]


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob(".*.tmp"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("data") / "set.npz", 36)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What undisturbed commands leave."""
    place = tmp_path_factory.mktemp("whole")
    for name in ("fit", "pretrain"):
        assert finish(start(command(name, data, place / name)))[0] == 0
    return {name: place / name for name in ("fit", "pretrain")}


@pytest.mark.parametrize("name", ["fit", "pretrain"])
def test_an_interrupt_is_one_line_that_says_how_to_go_on(
    name: str, data: Path, whole: dict[str, Path], tmp_path: Path
):
    folder = tmp_path / "run"
    child = start(command(name, data, folder))
    wait_for(saved(name, folder), child)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does, to the workers too
    code, error = finish(child)
    assert code == 130
    lines = [line for line in error.splitlines() if "interrupted" in line]
    assert len(lines) == 1 and "Traceback" not in error, error
    line = lines[0]
    assert line.startswith(f"pyg-peft {name}: interrupted; to resume: pyg-peft {name} "), line
    assert line.endswith(" --resume true") == (name == "fit")
    said = line.partition("to resume: ")[2]
    again = f"{sys.executable} -m pyg_peft.cli {said.removeprefix('pyg-peft ')}"
    subprocess.run(again, shell=True, env=environment(), check=True, stdout=subprocess.DEVNULL)
    assert_same(name, folder, whole[name])


@pytest.mark.parametrize("name", ["fit", "pretrain"])
def test_a_full_disk_leaves_whole_files_and_the_run_goes_on(
    name: str, data: Path, whole: dict[str, Path], tmp_path: Path
):
    """No file may grow past the limit, which is less than a checkpoint needs."""
    folder = tmp_path / "run"
    child = start(command(name, data, folder))
    wait_for(saved(name, folder), child)
    child.send_signal(signal.SIGKILL)
    finish(child)
    largest = saved(name, folder).stat().st_size // 2

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    before = weights_of(folder)
    more = ("--resume", "true") if name == "fit" else ()
    code, error = finish(start(command(name, data, folder, *more), limit))
    assert code == 2 and "Traceback" not in error, error
    assert (f"pyg-peft {name}: [Errno" in error and ".ckpt" in error) or ".pth" in error, error
    assert weights_of(folder) == before, "nothing is replaced by a part of it"
    assert not leftovers(folder)
    assert finish(start(command(name, data, folder, *more)))[0] == 0
    assert_same(name, folder, whole[name])


def weights_of(folder: Path) -> dict[str, bytes]:
    found = [*folder.rglob("*.ckpt"), *folder.rglob("*.pth")]
    return {str(path): path.read_bytes() for path in found}


@pytest.mark.parametrize("name", ["fit", "pretrain"])
def test_two_writers_at_once(name: str, data: Path, whole: dict[str, Path], tmp_path: Path):
    """The second is refused, and the first is none the worse for it."""
    folder = tmp_path / "run"
    first = start(command(name, data, folder))
    wait_for(saved(name, folder), first)
    more = ("--resume", "true") if name == "fit" else ()
    os.killpg(first.pid, signal.SIGSTOP)  # so that it is not done before the second has begun
    try:
        code, error = finish(start(command(name, data, folder, *more)))
    finally:
        os.killpg(first.pid, signal.SIGCONT)
    assert finish(first)[0] == 0
    assert code == 2 and "to have one writer at a time" in error, error
    assert_same(name, folder, whole[name])


@pytest.mark.parametrize("name", ["fit", "pretrain"])
def test_two_writers_that_begin_together(name: str, data: Path, tmp_path: Path):
    folder = tmp_path / "run"
    children = [start(command(name, data, folder)) for _ in range(2)]
    ends = [finish(child) for child in children]
    assert 0 in [code for code, _ in ends], ends
    for code, error in ends:
        assert code == 0 or (
            code == 2 and ("one writer at a time" in error or "to hold no run" in error)
        ), error
    assert weights(name, folder) and not leftovers(folder)


@pytest.mark.parametrize("name", ["fit", "pretrain"])
def test_a_folder_that_cannot_be_written_to(name: str, data: Path, tmp_path: Path):
    """Refused in one line."""
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o555)
    child = start(command(name, data, folder / "run"), obedient())
    code, error = finish(child)
    assert code == 2 and "Permission denied" in error and "Traceback" not in error, error
    assert str(folder / "run") in error
    assert not any(folder.iterdir())


def obedient() -> Callable[[], None] | None:
    """Let permissions hold for a child even if it is root, whom they do not keep out otherwise."""
    if os.getuid() != 0:
        return None
    libc = ctypes.CDLL(None)

    def drop() -> None:
        if libc.prctl(_DROP_CAPABILITY, _OVERRIDE_PERMISSIONS, 0, 0, 0) != 0:
            raise OSError("root cannot be kept out here")

    return drop


SAVERS = """
import os, sys
import torch
from torch_geometric.data import Data
from pyg_peft import LoRAConfig, MemoryBank, get_peft_model
from pyg_peft.backbones import PointMAE
from pyg_peft.training.data.cache import FeatureCache
from torch_geometric.loader import DataLoader

torch.manual_seed(0)
base = PointMAE(2, embed_dim=12, depth=1, num_heads=3, num_centers=4, patch_size=4).eval()
items = [
    Data(pos=torch.rand(24, 3), y=torch.tensor([n % 2]), sample_id=torch.tensor([n]))
    for n in range(6)
]
loader = DataLoader(items, batch_size=3)
what, path = sys.argv[1:]
if what == "bank":
    thing = MemoryBank.from_loader(base, loader)
else:
    thing = get_peft_model(base, LoRAConfig(rank=2)).eval()
if what == "cache":
    model, thing = thing, FeatureCache(thing)
    for data in loader:
        thing(data)
print("ready", flush=True)
sys.stdin.readline()
try:
    thing.save_pretrained(path) if what == "adapter" else thing.save(path)
except OSError as error:
    print("OSError", error, flush=True)
    sys.exit(3)
"""


def saver(what: str, path: Path, limit: Callable[[], None] | None = None) -> Any:
    child = subprocess.Popen(
        [sys.executable, "-c", SAVERS, what, str(path)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    return child


def files(path: Path) -> dict[str, bytes]:
    found = path.rglob("*") if path.is_dir() else [path]
    return {one.name: one.read_bytes() for one in found if one.is_file()}


@pytest.mark.parametrize("what", ["adapter", "bank", "cache"])
def test_saving_to_a_full_disk_leaves_what_was_there(what: str, tmp_path: Path):
    path = tmp_path / "saved"
    assert saver(what, path).communicate("\n")[0] == ""
    before = files(path)
    assert before
    small = min(256, *(len(content) // 2 for content in before.values()))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (small, small))

    child = saver(what, path, limit)
    out, _ = child.communicate("\n")
    assert child.returncode == 3 and out.startswith("OSError"), out
    assert files(path) == before
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("what", ["adapter", "bank", "cache"])
def test_two_savers_at_once_leave_one_whole_result(what: str, tmp_path: Path):
    path, alone = tmp_path / "saved", tmp_path / "alone"
    children = [saver(what, path) for _ in range(2)]
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    for child in children:
        child.communicate()  # which closes its pipes
    assert [child.returncode for child in children] == [0, 0]
    assert saver(what, alone).communicate("\n")[0] == ""
    assert sorted(files(path)) == sorted(files(alone)) if path.is_dir() else path.exists()
    expected, found = (
        {name: content for name, content in files(one).items() if name.endswith("tensors")}
        for one in (alone, path)
    )
    assert expected == found
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("what", ["adapter", "bank", "cache"])
def test_saving_where_nothing_can_be_written(what: str, tmp_path: Path):
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o555)
    child = saver(what, folder / "saved", obedient())
    out, _ = child.communicate("\n")
    assert child.returncode == 3 and "Permission denied" in out and not any(folder.iterdir())
