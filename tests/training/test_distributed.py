"""Several processes train one adapter: what is used, averaged, written, resumed and refused."""

# pyright: reportMissingImports=false

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import environment, fit, write_set
from torch import nn

from pyg_peft import LinearProbeConfig, LoRAConfig, PeftModel, get_peft_model
from pyg_peft.backbones import PointMAE
from pyg_peft.datasets import ProceduralShapes
from pyg_peft.errors import CheckpointError
from pyg_peft.training import average_batch_norms
from pyg_peft.training.runs.batch_norms import running_statistics

for package in ("jsonargparse", "lightning", "torchmetrics"):
    pytest.importorskip(package, reason=f"{package} is not installed")

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "distributed"
SUPPORT = ROOT / "tests" / "support"
SHAPES = 16


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def watched(folder: Path, processes: int, *command: str, still: bool = True) -> list[Any]:
    """Run a command in some processes of torchrun, and return what each of them recorded."""
    records = folder / f"records{processes}"
    records.mkdir(parents=True)
    arguments = ["--nproc_per_node", str(processes), "--master_port", free_port()]
    watch = [str(SUPPORT / "watch_rank.py"), str(records), *(["--still"] if still else [])]
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *arguments, *watch, *command],
        cwd=folder,
        env={**environment(), "ACCELERATE_USE_CPU": "true"},
        check=True,
        timeout=300,
    )
    return [torch.load(records / f"rank{rank}.pt") for rank in range(processes)]


def check_ranks(ranks: list[Any], alone: Any) -> None:
    """Check two ranks against one process on the joint batches."""
    for name, tensor in ranks[0]["adapter"].items():
        assert torch.equal(tensor, ranks[1]["adapter"][name]), name
    joint = [sorted(a + b) for a, b in zip(*(rank["batches"] for rank in ranks), strict=True)]
    assert joint == [sorted(batch) for batch in alone["batches"]]
    assert alone["grads"].keys() == alone["before"].keys()
    for name, grad in alone["grads"].items():
        assert torch.equal(alone["before"][name], ranks[0]["before"][name]), name
        torch.testing.assert_close(ranks[0]["grads"][name], grad, rtol=1e-3, atol=1e-6, msg=name)
        assert torch.equal(ranks[0]["grads"][name], ranks[1]["grads"][name]), name
    assert any("adapter_model" in path for path in ranks[0]["written"])
    assert ranks[1]["written"] == []


def check_epoch(ranks: list[Any], count: int) -> None:
    """Check that one epoch used each cloud once."""
    used = [cloud for rank in ranks for batch in rank["batches"] for cloud in batch]
    assert len(used) == len(set(used)) == count


def check_saved(folder: Path, adapter: dict[str, torch.Tensor]) -> None:
    """Check that the saved adapter, loaded in this process, has the logits of the ranks'."""
    shapes = ProceduralShapes("test", num_shapes=4, num_points=512)

    def base() -> PointMAE:
        return PointMAE.from_pretrained("point-mae-tiny", shapes.num_classes)

    loaded = PeftModel.from_pretrained(base(), folder).eval()
    pos = torch.cat([shape.pos for shape in shapes])
    batch = torch.arange(4).repeat_interleave(512)
    with torch.no_grad():
        logits = loaded(pos=pos, batch=batch)
        for tensor in loaded.state_dict(keep_vars=True).values():
            if tensor.requires_grad:
                tensor.zero_()
        loaded.load_state_dict({**loaded.state_dict(), **adapter})
        assert torch.equal(loaded(pos=pos, batch=batch), logits)
    assert logits.std() > 0


def loop(name: str, batch_size: int, *more: str) -> list[str]:
    sizes = ["--shapes", str(SHAPES), "--epochs", "1", "--batch_size", str(batch_size)]
    return [str(EXAMPLES / name), *sizes, *more]


@pytest.mark.slow
def test_torchrun_loop(tmp_path: Path):
    ranks = watched(tmp_path, 2, *loop("torchrun_loop.py", 4))
    (alone,) = watched(tmp_path, 1, *loop("torchrun_loop.py", 8, "--output", "alone"))
    check_ranks(ranks, alone)
    check_epoch(ranks, SHAPES)
    check_saved(tmp_path / "adapter", ranks[1]["adapter"])


@pytest.mark.slow
def test_statistics_of_batch_norms_are_those_of_all_ranks(tmp_path: Path):
    ranks = watched(tmp_path, 2, *loop("torchrun_loop.py", 4), still=False)
    means = [name for name in ranks[0]["adapter"] if name.endswith("running_mean")]
    assert len(means) > 2
    for name in ranks[0]["adapter"]:
        assert torch.equal(ranks[0]["adapter"][name], ranks[1]["adapter"][name]), name
    assert all(ranks[0]["adapter"][name].any() for name in means)


@pytest.mark.slow
def test_fit_under_torchrun(tmp_path: Path):
    data = write_set(tmp_path / "set.npz", 24)
    shared = ("--augmentation", "none", "--val_fraction", "0.25")
    more = (*shared, "--trainer.devices", "2", "--trainer.strategy", "ddp", "--batch_size", "3")
    ranks = watched(tmp_path, 2, "-m", "pyg_peft.cli", *fit(data, Path("out"), *more, epochs=1))
    (alone,) = watched(
        tmp_path,
        1,
        *("-m", "pyg_peft.cli"),
        *fit(data, Path("alone"), *shared, "--batch_size", "6", epochs=1),
    )
    check_ranks(ranks, alone)
    check_epoch(ranks, 12)
    found = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("out", "alone")]
    assert found[0]["val"] == pytest.approx(found[1]["val"])


@pytest.mark.slow
def test_two_nodes(tmp_path: Path):
    """Two processes that were started one by one, as on two machines."""
    data = write_set(tmp_path / "set.npz", 24)
    nodes = ("--trainer.num_nodes", "2", "--trainer.devices", "1", "--trainer.strategy", "ddp")
    command = [sys.executable, "-m", "pyg_peft.cli", *fit(data, tmp_path / "out", *nodes, epochs=1)]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    children = [
        subprocess.Popen(command, env={**environment(), **place, "NODE_RANK": str(node)})
        for node in range(2)
    ]
    assert [child.wait(timeout=300) for child in children] == [0, 0]
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()


@pytest.mark.slow
def test_resume_on_another_number_of_processes(tmp_path: Path):
    data = write_set(tmp_path / "set.npz", 24)
    two = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--batch_size", "4")
    command = [sys.executable, "-m", "pyg_peft.cli"]
    run = [*command, *fit(data, tmp_path / "out", *two, epochs=2)]
    subprocess.run(run, env=environment(), check=True, timeout=300)

    def resume(batch_size: str) -> subprocess.CompletedProcess[str]:
        more = ("--resume", "true", "--batch_size", batch_size)
        again = [*command, *fit(data, tmp_path / "out", *more, epochs=2)]
        return subprocess.run(again, env=environment(), capture_output=True, text=True)

    refused = resume("4")
    assert refused.returncode == 2 and "processes 2 instead of 1" in refused.stderr
    assert resume("8").returncode == 0


def test_what_may_differ_when_a_run_is_resumed(tmp_path: Path):
    from pyg_peft.training import ShapeDataModule
    from pyg_peft.training.runs.resuming import check_resumed, describe_run, write_run

    def describe(batch_size: int, processes: int) -> dict[str, Any]:
        clouds = ShapeDataModule(ProceduralShapes(num_shapes=36), batch_size=batch_size)
        return describe_run(small(LinearProbeConfig()), clouds, {}, {}, processes=processes)

    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir()
    torch.save({}, checkpoint)
    write_run(checkpoint, describe(4, 2))
    assert check_resumed(tmp_path, describe(8, 1)).every_cloud
    with pytest.raises(CheckpointError, match=r"processes 2 instead of 1"):
        check_resumed(tmp_path, describe(4, 1))
    described = json.loads((checkpoint.parent / "run.json").read_text())
    del described["processes"]  # as of versions before it was recorded
    (checkpoint.parent / "run.json").write_text(json.dumps(described))
    assert check_resumed(tmp_path, describe(4, 1)).every_cloud


def test_synchronized_batch_norms_are_refused(tmp_path: Path):
    from pyg_peft.training.fitting.run import FitOptions, check_run

    with pytest.raises(ValueError, match="'sync_batchnorm' to be false"):
        check_run(tmp_path / "new", FitOptions(), {"sync_batchnorm": True}, resume=False)


def small(config: Any) -> PeftModel:
    torch.manual_seed(0)
    base = PointMAE(4, embed_dim=24, depth=1, num_heads=3, num_centers=8, patch_size=4)
    return get_peft_model(base, config)


def test_statistics_of_the_active_adapter_alone():
    model = small(LinearProbeConfig())
    model.add_adapter("second", LoRAConfig(rank=2))
    names = running_statistics(model)
    assert names and all(".peft.adapters.second." in name for name in names)
    model.set_adapter("default")
    assert all(".peft.adapters.default." in name for name in running_statistics(model))
    before = {name: tensor.clone() for name, tensor in running_statistics(model).items()}
    average_batch_norms(model)  # alone: nothing to average
    assert all(torch.equal(before[n], t) for n, t in running_statistics(model).items())
    with pytest.raises(TypeError, match="'model' to be a PeftModel"):
        average_batch_norms(nn.Linear(2, 2))  # pyright: ignore[reportArgumentType]


# ---- optional packages ------------------------------------------------------------------------


@pytest.mark.slow
def test_accelerate_loop(tmp_path: Path):
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    ranks = watched(tmp_path, 2, *loop("accelerate_loop.py", 4))
    (alone,) = watched(tmp_path, 1, *loop("accelerate_loop.py", 8, "--output", "alone"))
    check_ranks(ranks, alone)
    check_epoch(ranks, SHAPES)
    check_saved(tmp_path / "adapter", ranks[1]["adapter"])


def test_accelerate_would_lose_clouds_of_a_loader_with_even_batches():
    """The page says not to pass such a loader to ``prepare``; when this fails, it may."""
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    from accelerate.data_loader import BatchSamplerShard

    from pyg_peft.training import EvenBatches

    even: Any = EvenBatches(range(92), 32)
    used = {row for rank in range(2) for batch in BatchSamplerShard(even, 2, rank) for row in batch}
    assert len(used) == 64


def with_ray(folder: Path, name: str, *arguments: str) -> str:
    pytest.importorskip("ray", reason="ray is not installed")
    command = [sys.executable, str(SUPPORT / "run_with_ray.py"), str(EXAMPLES / name), *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment(), check=True, stdout=subprocess.PIPE, text=True,
        timeout=500,
    )  # fmt: skip
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ray_fit.py", "ray_lightning.py"])
def test_ray_train(tmp_path: Path, name: str):
    sizes = ["--shapes", str(SHAPES), "--epochs", "1", "--batch_size", "4"]
    shown = with_ray(tmp_path, name, *sizes)
    assert "2 workers   validation " in shown
    base = PointMAE.from_pretrained("point-mae-tiny", ProceduralShapes(num_shapes=1).num_classes)
    PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert any((tmp_path / "ray").rglob("checkpoint_*"))


@pytest.mark.slow
def test_ray_jobs_share_one_cache(tmp_path: Path):
    methods = ["--methods", "linear_probe", "lora", "--rates", "1e-3"]
    shown = with_ray(tmp_path, "ray_jobs.py", "--shapes", str(SHAPES), "--epochs", "2", *methods)
    assert shown.count("clouds embedded again: 0\n") == 2
    for folder in ("linear_probe_0.001", "lora_0.001"):
        assert (tmp_path / "jobs" / folder / os.fspath("adapter_model.safetensors")).exists()
