"""`fit`: which epoch it keeps, what it writes when, and what it refuses before it writes."""

import json
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch_geometric.data import Data

pytest.importorskip("lightning", reason="lightning is not installed")
pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")

from lightning.pytorch.trainer.states import TrainerFn

from pyg_peft import FullFineTuningConfig, LoRAConfig, PeftModel, get_peft_model
from pyg_peft.backbones import PointMAE
from pyg_peft.errors import CheckpointError
from pyg_peft.storage import claim_folder
from pyg_peft.training.fitting import callbacks
from pyg_peft.training.fitting import run as fitting
from pyg_peft.training.fitting.callbacks import KeptEpoch
from pyg_peft.training.fitting.data_module import ShapeDataModule
from pyg_peft.training.fitting.peft_module import PeftModule
from pyg_peft.training.fitting.run import FitOptions, FitReport, fit
from pyg_peft.training.runs import checkpoint_files
from pyg_peft.training.runs.resuming import BEST

SIZES: dict[str, Any] = {"embed_dim": 12, "depth": 1, "num_heads": 3, "num_centers": 4}
QUIET: dict[str, Any] = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


def clouds(count: int, seed: int = 0) -> list[Data]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Data(pos=torch.rand(24, 3, generator=generator), y=torch.tensor([n % 2]))
        for n in range(count)
    ]


def data(train: int = 11, **options: Any) -> ShapeDataModule:
    options = {"batch_size": 4, "class_names": ["a", "b"], **options}
    val = options.pop("val", clouds(4, 1))
    return ShapeDataModule(clouds(train), val, clouds(4, 2), **options)


def model() -> PeftModel:
    torch.manual_seed(0)
    return get_peft_model(PointMAE(2, **SIZES, patch_size=4), LoRAConfig(rank=2))


def run(folder: Path, splits: ShapeDataModule | None = None, **more: Any) -> FitReport:
    trainer = {**QUIET, "max_epochs": 3, **more.pop("trainer", {})}
    options = more.pop("options", FitOptions(logger="none"))
    own = more.pop("model", None) or model()
    return fit(own, splits or data(), folder, options=options, trainer=trainer, **more)


# ---- which epoch (B8) -------------------------------------------------------------------------


class Trainer:
    """As much of Lightning's as the callback asks."""

    sanity_checking = False
    current_epoch = 0
    callback_metrics: dict[str, float]

    def __init__(self) -> None:
        self.state = type("State", (), {"fn": TrainerFn.FITTING})
        self.strategy = type("Strategy", (), {"broadcast": staticmethod(lambda value: value)})
        self.saved: list[int] = []

    def save_checkpoint(self, path: Path) -> None:
        self.saved.append(self.current_epoch)


def kept(epochs: list[tuple[float, float]], mode: Any = "max") -> int:
    trainer: Any = Trainer()
    callback = KeptEpoch(Path("folder"), "val_accuracy", mode)
    for number, (accuracy, loss) in enumerate(epochs, start=1):
        trainer.current_epoch = number
        trainer.callback_metrics = {"val_accuracy": accuracy, "val_loss": loss}
        callback.on_validation_end(trainer, None)
    return trainer.saved[-1]


def test_of_equal_accuracies_the_lower_validation_loss_decides():
    assert kept([(0.5, 1.0), (0.9, 0.5), (0.9, 0.3), (0.9, 0.4), (0.8, 0.1)]) == 3
    assert kept([(0.9, 0.5), (0.9, 0.5)]) == 1, "the earlier of equal ones"
    nan = float("nan")
    assert kept([(0.9, nan), (0.9, 0.5)]) == 2 and kept([(nan, 0.1), (0.1, 0.9)]) == 2


def test_of_errors_the_smallest_is_best():
    assert kept([(0.5, 1.0), (0.2, 0.5), (0.2, 0.3), (0.3, 0.1)], "min") == 3
    assert kept([(float("nan"), 0.1), (0.9, 0.9)], "min") == 2


def test_the_report_is_of_that_epoch_from_one(tmp_path: Path):
    report = run(tmp_path)
    pairs = list(zip(report.curves["val_accuracy"], report.curves["val_loss"], strict=True))
    best = max(range(3), key=lambda epoch: (pairs[epoch][0], -pairs[epoch][1]))
    assert report.epoch == best + 1 and report.chosen_by == "val_accuracy"
    assert report.val is not None and report.val.accuracy == pytest.approx(pairs[best][0])


@pytest.mark.parametrize(("bias", "labels", "best"), [(3.0, (0, 1), 3), (0.0, (0, 0), 1)])
def test_fit_keeps_the_lower_loss_of_equal_accuracies(
    tmp_path: Path, bias: float, labels: tuple[int, int], best: int
):
    """Each cloud is in the validation set with both labels, so that half of them are right.

    Balanced training of a biased head lowers the loss, and training on one class raises it.
    """
    twice = [Data(pos=c.pos, y=torch.tensor([label])) for c in clouds(4, 1) for label in (0, 1)]
    train = [Data(pos=c.pos, y=torch.tensor([labels[n % 2]])) for n, c in enumerate(clouds(12))]
    torch.manual_seed(0)
    base = PointMAE(2, **SIZES, patch_size=4)
    with torch.no_grad():
        base.get_parameter("head.layers.8.bias").copy_(torch.tensor([bias, 0.0]))
    splits = ShapeDataModule(train, twice, twice, batch_size=4, class_names=["a", "b"])
    own = get_peft_model(base, LoRAConfig(rank=2))
    report = run(tmp_path, splits, model=own, options=FitOptions(logger="none", lr=1e-3))
    losses = report.curves["val_loss"]
    assert report.curves["val_accuracy"] == [0.5, 0.5, 0.5]
    assert report.epoch == best == 1 + losses.index(min(losses))
    assert report.val is not None and report.val.accuracy == 0.5
    kept = torch.load(tmp_path / BEST, weights_only=True)
    assert kept["epoch"] == best - 1


# ---- all clouds (B7, C18) ---------------------------------------------------------------------


def test_every_cloud_is_learned_from_in_every_epoch(tmp_path: Path, monkeypatch: Any):
    seen: list[list[int]] = []
    step = PeftModule.training_step

    def watched(module: PeftModule, batch: Any, batch_idx: int) -> Any:
        seen.append(batch.sample_id.tolist())
        return step(module, batch, batch_idx)

    monkeypatch.setattr(PeftModule, "training_step", watched)
    run(tmp_path, data(11), trainer={"max_epochs": 2})
    assert [len(batch) for batch in seen] == [4, 4, 3] * 2
    assert sorted(chain(*seen[:3])) == sorted(chain(*seen[3:])) == list(range(11))


def test_training_on_everything_keeps_the_last_epoch(tmp_path: Path):
    splits = data(11, val=None, val_fraction=0)
    assert len(splits.train_set) == 11 and not splits.validates
    with pytest.raises(ValueError, match="'val_fraction' is 0"):
        splits.val_dataloader()
    report = run(tmp_path, splits)
    assert report.val is None and report.chosen_by is None and report.epoch == 3
    assert report.test is not None and report.test.count == 4
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()
    assert not any(name.startswith("val_") for name in report.curves)
    again = run(tmp_path, data(11, val=None, val_fraction=0), resume=True)
    assert torch.equal(again.test.confusion, report.test.confusion)  # pyright: ignore


def test_val_fraction_is_named():
    for value in (1, -0.1, 2.0):
        with pytest.raises(ValueError, match="Expected 'val_fraction' to lie between 0 and 1"):
            data(val=None, val_fraction=value)
    with pytest.raises(ValueError, match="Expected 'val_fraction' to be a finite number"):
        data(val=None, val_fraction=float("nan"))


@pytest.mark.parametrize("splits", [{"batch_size": 1}, {"train": 1}])
def test_batches_of_one_are_refused_where_batch_norm_trains_on_them(
    tmp_path: Path, splits: dict[str, Any]
):
    own = model()
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    modes = [module.training for module in own.modules()]
    with pytest.raises(ValueError, match=r"'batch_size' to be 2 or more.*the batch norm '.*head"):
        run(tmp_path / "new", data(**splits), model=own)
    assert not (tmp_path / "new").exists()
    assert all(torch.equal(before[name], t) for name, t in own.state_dict().items())
    assert modes == [module.training for module in own.modules()]


class NoNorm(nn.Module):
    """A model of clouds without a batch norm over clouds."""

    def __init__(self) -> None:
        super().__init__()
        self.points = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 2)

    def forward(self, data: Data) -> torch.Tensor:
        from torch_geometric.nn import global_mean_pool

        return self.head(global_mean_pool(self.points(data.pos), data.batch))  # pyright: ignore


def test_batches_of_one_are_taken_where_no_batch_norm_sees_clouds(tmp_path: Path):
    own = get_peft_model(NoNorm(), FullFineTuningConfig())
    assert run(tmp_path, data(batch_size=1), model=own, trainer={"max_epochs": 1}).epoch == 1


# ---- files (C19) ------------------------------------------------------------------------------


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def stop_after(folder: Path, epochs: int, monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
    """A run that is interrupted in the epoch after so many."""
    real = callbacks.Curves.on_train_epoch_end

    def stop(self: Any, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == epochs:
            raise KeyboardInterrupt
        real(self, trainer, pl_module)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.Curves, "on_train_epoch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            run(folder, **more)


def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    whole = run(tmp_path / "whole")
    folder = tmp_path / "stopped"
    stop_after(folder, 2, monkeypatch)
    last = folder / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    for damaged in (content[: len(content) // 2], b"", flipped(content)):
        copy = tmp_path / f"copy{len(damaged)}"
        shutil.copytree(folder, copy)
        (copy / "checkpoints" / "last.ckpt").write_bytes(damaged)
        (copy / "checkpoints" / ".last.ckpt.12345678.tmp").write_bytes(b"of a killed writer")
        caplog.clear()
        report = run(copy, resume=True)
        assert "going on from the checkpoint before it" in caplog.text
        assert "last_previous.ckpt" in caplog.text
        assert report.curves == whole.curves and report.epoch == whole.epoch
        expected = adapter(tmp_path / "whole")
        assert all(torch.equal(expected[name], t) for name, t in adapter(copy).items())
        assert not list((copy / "checkpoints").glob(".*.tmp"))
    last.write_bytes(b"")
    (folder / "checkpoints" / "last_previous.ckpt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"last.ckpt' to be a whole checkpoint"):
        run(folder, resume=True)


def flipped(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


def test_a_damaged_best_checkpoint_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stop_after(tmp_path, 2, monkeypatch)
    best = tmp_path / "checkpoints" / "best.ckpt"
    best.write_bytes(best.read_bytes()[:99])
    with pytest.raises(CheckpointError, match=r"best.ckpt' to be a whole checkpoint"):
        run(tmp_path, resume=True)
    best.unlink()
    with pytest.raises(CheckpointError, match=r"best.ckpt' to hold the best epoch"):
        run(tmp_path, resume=True)


def test_a_full_disk_leaves_the_checkpoint_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stop_after(tmp_path, 1, monkeypatch)
    folder = tmp_path / "checkpoints"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    real = Path.write_bytes

    def full(path: Path, content: Any) -> int:
        real(path, bytes(content)[:100])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*ckpt'"):
            run(tmp_path, resume=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert run(tmp_path, resume=True).curves == run(tmp_path / "whole").curves


def test_a_kill_between_the_two_renames_leaves_one_that_is_whole(tmp_path: Path):
    path = tmp_path / "last.ckpt"
    for number in range(3):
        checkpoint_files.save_checkpoint({"number": number}, path, keep_previous=True)
    found, state = checkpoint_files.read_latest(path)
    assert found == path and state["number"] == 2
    path.unlink()
    found, state = checkpoint_files.read_latest(path)
    assert found == tmp_path / "last_previous.ckpt" and state["number"] == 1


def test_a_second_writer_is_refused(tmp_path: Path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    with claim_folder(folder):
        with pytest.raises(ValueError, match=r"to have one writer at a time .*'.*checkpoints'"):
            run(tmp_path)
        assert not list(folder.iterdir())
    run(tmp_path)


# ---- folders of earlier versions --------------------------------------------------------------


def test_a_run_of_an_earlier_version_goes_on_as_it_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Its last batch was left out, and Lightning's own callback kept the best epoch."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"

    def as_before(**more: Any) -> ShapeDataModule:
        splits = data(11, **more)
        splits.drop_last = True
        return splits

    monkeypatch.setattr(fitting, "_use_clouds", lambda splits, resumed: None)
    expected = run(whole, as_before())
    stop_after(stopped, 2, monkeypatch, splits=as_before())
    monkeypatch.undo()
    checkpoints = stopped / "checkpoints"
    described = json.loads((checkpoints / "run.json").read_text())
    del described["every_cloud"]
    (checkpoints / "run.json").write_text(json.dumps(described))
    state = torch.load(checkpoints / "last.ckpt", weights_only=True)
    del state["callbacks"]["KeptEpoch"]
    state["callbacks"]["ModelCheckpoint{'monitor': 'val_accuracy'}"] = {"best_model_score": 0.5}
    torch.save(state, checkpoints / "last.ckpt")
    (checkpoints / "last_previous.ckpt").unlink()
    report = run(stopped, resume=True)
    assert "left out a last batch" in caplog.text
    assert report.curves == expected.curves and report.epoch == expected.epoch
    assert all(torch.equal(adapter(whole)[name], t) for name, t in adapter(stopped).items())


# ---- epochs from one (C18) --------------------------------------------------------------------


def test_logs_and_the_bar_count_epochs_from_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trainer = {"enable_progress_bar": True, "max_epochs": 2}
    run(tmp_path, options=FitOptions(logger="csv"), trainer=trainer)
    rows = (tmp_path / "logs" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("epoch")
    assert {row.split(",")[column] for row in rows[1:]} == {"1", "2"}
    bar = "".join(capsys.readouterr())
    assert "Epoch 1" in bar and "Epoch 2" in bar and "Epoch 0" not in bar


# ---- types (C23) ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": nn.Linear(2, 2)}, "'model' to be a PeftModel"),
        ({"data": [1]}, "'data' to be a ShapeDataModule"),
        ({"folder": 3}, "'folder' to be a path"),
        ({"options": {"lr": 1}}, "'options' to be a FitOptions"),
        ({"trainer": [1]}, "'trainer' to be a mapping"),
        ({"trainer": {"max_epochs": 1.5}}, "'max_epochs' to be an integer"),
        ({"resume": "yes"}, "'resume' to be True or False"),
        ({"metadata": [1]}, "'metadata' to be a mapping"),
        ({"caches": [1]}, "'caches' to be a mapping"),
    ],
)
def test_types_of_fit(tmp_path: Path, arguments: dict[str, Any], message: str):
    given: dict[str, Any] = {
        "model": model(),
        "data": data(),
        "folder": tmp_path / "new",
        **arguments,
    }
    with pytest.raises(TypeError, match=f"Expected {message}"):
        fit(**given)
    assert not (tmp_path / "new").exists()


def test_metadata_replaces_nothing_that_fit_saves(tmp_path: Path):
    metadata = {"num_points": 3, "task_name": "segmentation", "note": "mine"}
    with pytest.raises(ValueError, match=r"that fit sets itself \(got \['num_points', 'task_na"):
        run(tmp_path / "new", metadata=metadata)
    assert not (tmp_path / "new").exists()


def test_another_task_does_not_continue_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run(tmp_path, trainer={"max_epochs": 1})
    described = json.loads((tmp_path / "checkpoints" / "run.json").read_text())
    assert described["task"] == "classification"
    del described["task"]  # as of versions before the task was recorded
    (tmp_path / "checkpoints" / "run.json").write_text(json.dumps(described))
    run(tmp_path, trainer={"max_epochs": 1}, resume=True)
    described["task"] = "other"
    (tmp_path / "checkpoints" / "run.json").write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match="task 'other' instead of 'classification'"):
        run(tmp_path, trainer={"max_epochs": 1}, resume=True)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("batch_size", 2.5, "an integer"),
        ("batch_size", "3", "an integer"),
        ("batch_size", True, "an integer"),
        ("num_views", 1.5, "an integer"),
        ("num_workers", None, "an integer"),
        ("seed", "a", "an integer"),
        ("val_fraction", "0.1", "a number"),
        ("preprocessing", {"num_points": 3}, "a Preprocessing"),
        ("augmentation", "rotate", "a transform"),
        ("val", 3, "a data set"),
    ],
)
def test_types_of_the_data_module(name: str, value: Any, message: str):
    with pytest.raises(TypeError, match=f"Expected '{name}' to be {message}"):
        data(**{name: value})
