import argparse
import json
import signal
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import logged

from pyg_peft.backbones import PointMAE, PointMAEPretraining
from pyg_peft.backbones.weights.recorded_sizes import read_sizes
from pyg_peft.datasets import ProceduralStream
from pyg_peft.errors import CheckpointError
from pyg_peft.storage import claim_folder
from pyg_peft.training.pretraining.corpus import Corpus, ViewOptions
from pyg_peft.training.pretraining.run import (
    CHECKPOINT,
    PretrainOptions,
    pretrain,
    steps_of_epoch,
)

SIZES = {"embed_dim": 12, "depth": 2, "num_heads": 3, "num_centers": 6, "patch_size": 4}
OPTIONS: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 4,
    "log_every": 1,
    "checkpoint_minutes": 0.0,  # after every step
    "views": ViewOptions(num_points=24),
}


# Not a fork: autograd refuses to run in one.
KILLED = """
import os, signal, sys
import torch

sys.path[:0] = {folders!r}
import test_pretrain as test
import pyg_peft.training.runs.checkpoint_files as files
import pyg_peft.training.pretraining.run as module

torch.set_num_threads(1)
left, real = [{writes}], module.write_atomic

def half(temporary):
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

def die(path, write):
    left[0] -= 1
    real(path, write if left[0] else half)

module.write_atomic = files.write_atomic = die
options = test.PretrainOptions(**test.OPTIONS, bf16={bf16})
module.pretrain(test.network(), test.corpus(), {folder!r}, options)
"""


def corpus() -> Corpus:
    generator = torch.Generator().manual_seed(0)
    sizes = (30, 24, 40, 9, 33, 28, 30, 50, 31)
    return Corpus(torch.randn(size, 3, generator=generator) for size in sizes)


def network(**sizes: int) -> PointMAEPretraining:
    torch.manual_seed(0)
    # drop-path on: its draws must survive the kill too
    return PointMAEPretraining(
        **{**SIZES, **sizes}, decoder_depth=1, decoder_num_heads=3, drop_path=0.3
    )


@pytest.mark.slow
@pytest.mark.parametrize("bf16", [False, True])
def test_killed_three_times_and_resumed_equals_undisturbed(tmp_path, bf16):
    options = PretrainOptions(**OPTIONS, bf16=bf16)
    whole = network()
    report = pretrain(whole, corpus(), tmp_path / "whole", options)
    assert report.finished and report.total_steps == 9

    killed = tmp_path / "killed"
    here = Path(__file__).parent
    folders = [str(here), str(here.parent / "support")]
    # The log is written first, then a checkpoint after each step; that of the last step named dies.
    for writes, steps in ((3, 2), (2, 2), (4, 4)):
        script = KILLED.format(folders=folders, folder=str(killed), bf16=bf16, writes=writes)
        child = subprocess.run([sys.executable, "-c", script], check=False)
        assert child.returncode == -signal.SIGKILL
        assert len(logged(killed)) == steps
        assert len(list(killed.glob(".*.tmp"))) == 1, "what was being written, and no older one"
    resumed = network()
    assert pretrain(resumed, corpus(), killed, options).loss == report.loss
    assert not list(killed.glob(".*.tmp"))
    again = pretrain(network(), corpus(), killed, options)
    assert again.finished and again.loss == report.loss
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert logged(killed) == logged(tmp_path / "whole")


def test_time_budget_stops_with_a_checkpoint_that_goes_on(tmp_path):
    model = network()
    report = pretrain(model, corpus(), tmp_path, PretrainOptions(**OPTIONS, max_minutes=0.0))
    assert report.step == 0 and not report.finished
    assert pretrain(model, corpus(), tmp_path, PretrainOptions(**OPTIONS)).finished


def test_the_checkpoint_is_a_backbone(tmp_path):
    model = network()
    pretrain(model, corpus(), tmp_path, PretrainOptions(**OPTIONS))
    sizes = read_sizes(tmp_path / CHECKPOINT)
    assert sizes["num_centers"] == 6
    keep = {key: sizes[key] for key in ("num_heads", "num_centers", "patch_size")}
    backbone = PointMAE.from_checkpoint(tmp_path / CHECKPOINT, 5, **keep)
    assert torch.equal(backbone.norm.weight, model.norm.weight)


def test_another_run_in_the_folder_is_refused(tmp_path):
    pretrain(network(), corpus(), tmp_path, PretrainOptions(**OPTIONS))
    with pytest.raises(CheckpointError, match="to belong to this run"):
        pretrain(network(), corpus(), tmp_path, PretrainOptions(**OPTIONS, lr=1.0))


def test_another_corpus_in_the_folder_is_refused(tmp_path):
    pretrain(network(), corpus(), tmp_path, PretrainOptions(**OPTIONS))
    turned = Corpus(cloud.flip(1) for cloud in corpus().clouds)
    with pytest.raises(CheckpointError, match=r"corpus\.(reach|first)"):
        pretrain(network(), turned, tmp_path, PretrainOptions(**OPTIONS))


def test_an_endless_corpus_resumes_with_the_shapes_that_are_next(tmp_path):
    endless, options = Corpus([], [(ProceduralStream(64), 9)]), PretrainOptions(**OPTIONS)
    whole, again = network(), network()
    pretrain(whole, endless, tmp_path / "whole", options)

    def stop(_: PointMAEPretraining, epochs: int) -> dict[str, float]:
        if epochs == 2:
            raise InterruptedError
        return {}

    with pytest.raises(InterruptedError):
        pretrain(network(), endless, tmp_path / "stopped", options, stop)
    pretrain(again, endless, tmp_path / "stopped", options)
    for name, weight in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    assert logged(tmp_path / "stopped") == logged(tmp_path / "whole")


def test_every_cloud_is_in_every_epoch_and_the_log_counts_from_one(tmp_path, monkeypatch):
    seen: list[list[int]] = []
    real = Corpus.batch

    def batch(self, rows, *more):
        seen.append(list(rows))
        return real(self, rows, *more)

    monkeypatch.setattr(Corpus, "batch", batch)
    report = pretrain(network(), corpus(), tmp_path, PretrainOptions(**OPTIONS))
    assert report.total_steps == 9 and [len(rows) for rows in seen] == [3, 3, 3] * 3
    for epoch in range(3):
        rows = seen[3 * epoch : 3 * epoch + 3]
        assert sorted(chain(*rows)) == list(range(9))
    assert [line["epoch"] for line in logged(tmp_path)] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert steps_of_epoch(9, 4) == 3 and steps_of_epoch(9, 4, every_cloud=False) == 2


def test_a_run_of_an_earlier_version_goes_on_as_it_was_begun(tmp_path, caplog):
    """It left a last batch out, and counted epochs from 0."""
    options = PretrainOptions(**OPTIONS)
    pretrain(network(), corpus(), tmp_path, options)
    path = tmp_path / CHECKPOINT
    state = torch.load(path, weights_only=True)
    del state["every_cloud"], state["first_epoch"]
    lines = [{**json.loads(line), "epoch": 0} for line in state["lines"][:2]]
    state |= {"step": 2, "lines": [json.dumps(line) for line in lines]}
    torch.save(state, path)
    report = pretrain(network(), corpus(), tmp_path, options)
    assert report.finished and report.total_steps == 6
    assert "1 of 9 clouds are left out of each epoch" in caplog.text
    assert [line["epoch"] for line in logged(tmp_path)] == [1, 1, 2, 2, 3, 3]


def stop_at(epoch: int):
    def stop(_: PointMAEPretraining, epochs: int) -> dict[str, float]:
        if epochs == epoch:
            raise InterruptedError
        return {}

    return stop


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog):
    options = PretrainOptions(**OPTIONS)
    whole = network()
    pretrain(whole, corpus(), tmp_path / "whole", options)
    folder = tmp_path / "stopped"
    with pytest.raises(InterruptedError):
        pretrain(network(), corpus(), folder, options, stop_at(2))
    path = folder / CHECKPOINT
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    again = network()
    pretrain(again, corpus(), folder, options)
    assert "going on from the checkpoint before it" in caplog.text
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert logged(folder) == logged(tmp_path / "whole")
    for name in (CHECKPOINT, "checkpoint_previous.pth"):
        (folder / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"checkpoint.pth' to be a whole checkpoint"):
        pretrain(network(), corpus(), folder, options)


def test_a_second_writer_is_refused(tmp_path):
    options = PretrainOptions(**OPTIONS)
    with claim_folder(tmp_path), pytest.raises(ValueError, match="to have one writer at a time"):
        pretrain(network(), corpus(), tmp_path, options)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("epochs", 1.5), ("batch_size", "8"), ("log_every", True), ("seed", None)),
        *(("lr", "fast"), ("max_minutes", "1"), ("bf16", 1), ("views", {"num_points": 3})),
    ],
)
def test_settings_of_another_type(name, value):
    with pytest.raises(TypeError, match=f"Expected '{name}' to be "):
        PretrainOptions(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("num_points", 2.5), ("turn_degrees", "a"), ("shift", None)]
)
def test_views_of_another_type(name, value):
    with pytest.raises(TypeError, match=f"Expected '{name}' to be "):
        ViewOptions(**{name: value})


def test_types_of_pretrain(tmp_path):
    options = PretrainOptions(**OPTIONS)
    given: dict[str, Any] = {
        "model": network(),
        "corpus": corpus(),
        "folder": tmp_path / "new",
        "options": options,
    }
    wrong: dict[str, Any] = {"model": 1, "corpus": [1], "folder": 3, "options": {}}
    for name, value in wrong.items():
        with pytest.raises(TypeError, match=f"Expected '{name}' to be "):
            pretrain(**{**given, name: value})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("epochs", 0), ("lr", 0.0), ("lr", float("nan")), ("clip_norm", -1.0)),
        *(("weight_decay", -0.1), ("warmup_epochs", -1.0), ("lr_floor", 1.1)),
        *(("max_minutes", float("nan")), ("checkpoint_minutes", -1.0)),
    ],
)
def test_settings_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"Expected '{name}'"):
        PretrainOptions(**{name: value})


def test_a_mask_that_hides_nothing():
    with pytest.raises(ValueError, match=r"'mask_ratio' to hide one patch of 6"):
        PointMAEPretraining(**SIZES, mask_ratio=0.1)


@pytest.mark.parametrize("content", [{"model": {}}, [1, 2]])
def test_a_foreign_checkpoint_is_refused(tmp_path, content):
    torch.save(content, tmp_path / CHECKPOINT)
    with pytest.raises(CheckpointError, match="to be a checkpoint of pretrain"):
        pretrain(network(), corpus(), tmp_path, PretrainOptions(**OPTIONS))


def test_a_run_that_diverges_says_so(tmp_path):
    with pytest.raises(FloatingPointError, match="with a smaller 'lr'"):
        pretrain(network(), corpus(), tmp_path, PretrainOptions(**OPTIONS, lr=1e30))


def test_too_few_clouds(tmp_path):
    with pytest.raises(ValueError, match="'batch_size' to be at most the 9 clouds"):
        pretrain(network(), corpus(), tmp_path, PretrainOptions(batch_size=10))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("step", "3", "another kind of value under step"),
        ("seconds", None, "another kind of value under seconds"),
        ("lines", [1], "another kind of value under lines"),
        ("identity", [], "another kind of value under identity"),
        ("model", {}, "the tensors of this run"),
        ("model", 3, "the tensors of this run"),
        ("optimizer", {"state": 1}, "the tensors of this run"),
    ],
)
def test_a_malformed_checkpoint_is_refused_by_the_name_of_what_is_wrong(
    tmp_path, name, value, message
):
    options = PretrainOptions(**OPTIONS)
    pretrain(network(), corpus(), tmp_path, options)
    state = torch.load(tmp_path / CHECKPOINT)
    torch.save({**state, name: value}, tmp_path / CHECKPOINT)
    with pytest.raises(CheckpointError, match=message):
        pretrain(network(), corpus(), tmp_path, options)


def test_sizes_are_read_where_there_are_some(tmp_path):
    path = tmp_path / "a.pth"
    for identity in (None, {}, {"model": 3}):
        torch.save({"identity": identity}, path)
        assert read_sizes(path) == {}
    torch.save({"identity": {"model": {"num_heads": "3"}}}, path)
    with pytest.raises(CheckpointError, match=r"'identity\.model'"):
        read_sizes(path)
    torch.save({"identity": {"model": {"num_heads": 3}}, "a": argparse.Namespace(b=1)}, path)
    assert read_sizes(path) == {"num_heads": 3}
