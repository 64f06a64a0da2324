"""What a user may get wrong: each ends in one clear line, before anything is written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import fit, write_set

from pyg_peft.cli import COMMANDS, main
from pyg_peft.datasets import NpzShapes

for package in ("jsonargparse", "lightning", "torchmetrics"):
    pytest.importorskip(package, reason=f"{package} is not installed")

SMALL_PRETRAINING = [
    *("--model.embed_dim", "24", "--model.depth", "1", "--model.num_heads", "3"),
    *("--model.num_centers", "8", "--model.patch_size", "4", "--model.decoder_depth", "1"),
    *("--options.epochs", "1", "--options.batch_size", "4", "--options.views.num_points", "32"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, an adapter, and files of every bad kind."""
    folder = tmp_path_factory.mktemp("mistakes")
    data = write_set(folder / "set.npz", 24)
    assert main(fit(data, folder / "adapter", epochs=1)) == 0
    clouds = [np.random.default_rng(n).random((20, 3)) for n in range(12)]
    for count, name in ((4, "four"), (1, "single")):
        labels = [n % count for n in range(12)]
        names = list("abcd"[:count])
        NpzShapes.write(folder / f"{name}.npz", clouds, labels, class_names=names)
    NpzShapes.write(folder / "lonely.npz", clouds[:2], [0, 1], class_names=["a", "b"])
    (folder / "empty").mkdir()
    for name in ("one/bolt/1.npy", "one/nut/2.npy"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / name, clouds[0])
    (folder / "one" / "bolt" / "bad.off").write_text("OFF\n")
    shutil.copytree(folder / "one", folder / "two")
    (folder / "two" / "nut" / "bad.ply").write_text("")
    np.save(folder / "nan.npy", np.array([[0, 0, np.nan], [1, 1, 1]]))
    (folder / "damaged.off").write_text("OFF\n999999999999 1 0\n0 0 0\n")
    np.save(folder / "none.npy", np.zeros((0, 3)))
    np.save(folder / "cloud.npy", clouds[1])
    (folder / "garbage.pth").write_bytes(b"hello world, this is no checkpoint")
    torch.save({"a": torch.zeros(2)}, folder / "foreign.pth")
    torch.save(torch.nn.Linear(2, 2), folder / "code.pth")
    (folder / "broken.yaml").write_text("data: [1,\n")
    (folder / "unknown.yaml").write_text("datta: x\n")
    shutil.copytree(folder / "adapter", folder / "damaged")
    content = bytearray((folder / "adapter" / "adapter_model.safetensors").read_bytes())
    content[-3] ^= 1
    (folder / "damaged" / "adapter_model.safetensors").write_bytes(content)
    shutil.copytree(folder / "adapter", folder / "alone")
    shutil.rmtree(folder / "alone" / "checkpoints")
    (folder / "alone" / "result.json").write_text("{")
    shutil.copytree(folder / "adapter", folder / "cut")
    (folder / "cut" / "checkpoints" / "last.ckpt").write_bytes(b"PK cut off")
    return folder


def complaint(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one line that a command ends with."""
    capsys.readouterr()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    *lines, hint = error.splitlines()
    assert "Traceback" not in error and hint.startswith("("), error
    assert lines[0].startswith(f"pyg-peft {arguments[0]}: "), error
    return "\n".join(lines)


FIT = [
    (("--data", "no.npz"), "to be a file that exists (got '", 1),
    (("--data", "nowhere"), "Expected 'data' to be one of", 10),
    (("--data", "{}/empty"), "to hold files of", 1),
    (("--data", "{}/one"), "bolt/bad.off", 2),
    (("--data", "{}/single.npz"), "to have two classes or more", 1),
    (("--data", "{}/lonely.npz"), "to have clouds to validate on", 1),
    (("--data", "procedural:x"), "to name a positive number (got 'x')", 1),
    (("--data_args", '{"flod": 1}'), "unexpected keyword argument 'flod'", 1),
    (("--data_args", '{"fold": 1}'), "to have the field 'fold'", 1),
    (("--group_field", "nope"), "to have the field 'nope'", 1),
    (("--data", "procedural:24", "--group_field", "nope"), "'group_field' for a FILE.npz", 1),
    (("--backbone", "no.pth"), "or a file that exists (got 'no.pth')", 1),
    (("--backbone", "{}/garbage.pth"), "an intact .pth file of tensors", 1),
    (("--backbone", "{}/code.pth"), "an object of 'torch.nn.modules.linear.Linear'", 1),
    (("--backbone", "{}/foreign.pth"), "a checkpoint of the Point-MAE family", 1),
    (("--backbone_args", '{"embed_dmi": 24}'), "among embed_dim", 1),
    (("--backbone_args", '{"embed_dim": "a"}'), "of the types of PointMAE's arguments", 1),
    (("--backbone_args", '{"embed_dim": 25, "num_heads": 3}'), "'num_heads' to divide 25", 1),
    (("--backbone_args", "[1]"), "backbone_args", 1),
    (("--method", "lorra"), "'method' to be one of", 1),
    (("--method", "lora", "--method_args", '{"rnk": 3}'), "got rnk", 1),
    (("--method", "lora", "--method_args", '{"rank": "a"}'), "of the types of LoRAConfig's", 1),
    (("--augmentation", "mirror"), "'augmentation' to be one of", 1),
    (("--batch_size", "0"), "'batch_size' to be >= 1", 1),
    (("--batch_size", "1"), "'batch_size' to be 2 or more", 1),
    (("--batch_size", "many"), "batch_size", 1),
    (("--val_fraction", "2"), "Expected 'val_fraction' to lie between 0 and 1", 1),
    (("--val_fraction", "-0.1"), "Expected 'val_fraction' to lie between 0 and 1", 1),
    (("--lr", "0"), "Expected 'lr' to be > 0", 1),
    (("--epochs", "0"), "Expected 'max_epochs' to be >= 1", 1),
    (("--learning_rate", "1"), "learning_rate", 1),
    (("--test_fraction", "1"), "Expected 'test_fraction' to lie between 0 and 1", 1),
    (("--device", "nope"), "Expected 'device' to be 'auto' or a device that is there", 1),
    (("--device", "cpu"), "either 'device' or 'trainer.acc", 1),
    (("--config", "{}/broken.yaml"), "config", 1),
    (("--config", "{}/unknown.yaml"), "datta", 1),
    (("--config", "no.yaml"), "no.yaml", 1),
    (("--trainer.precision", "16-true"), "positions in float32 (got '16-true')", 1),
    (("--trainer.max_epochs", "0"), "'max_epochs' to be >= 1", 1),
    (("--trainer.accelerator", "tpu"), "to fit together and this machine", 1),
    (("--options.cache", "true"), "'num_views' to be a number", 1),
    (("--options.logger", "paper"), "paper", 1),
    (("--options.lr", "-1"), "'lr' to be > 0 (got -1.0)", 1),
    (("--options.label_smoothing", "1"), "'label_smoothing' to lie in [0, 1)", 1),
]


@pytest.mark.parametrize(("more", "message", "lines"), FIT, ids=lambda value: str(value)[:60])
def test_fit(place, tmp_path, capsys, more, message, lines):
    arguments = fit(place / "set.npz", tmp_path / "new", epochs=1)
    found = complaint(capsys, [*arguments, *(text.replace("{}", str(place)) for text in more)])
    assert message in found and len(found.splitlines()) == lines, found
    assert not (tmp_path / "new").exists()


RESUME = [
    ("adapter", ("--options.lr", "0.5"), "options.lr 0.001 instead of 0.5"),
    ("adapter", ("--method", "lora", "--method_args", "null"), "'point_peft' instead of 'lora'"),
    ("adapter", ("--data", "{}/four.npz"), "classes ['block', 'cage', 'coil'] instead of"),
    (
        "adapter",
        ("--trainer.gradient_clip_val", "3"),
        "trainer.gradient_clip_val 10.0 instead of 3.0",
    ),
    ("adapter", ("--seed", "3"), "seed 0 instead of 3"),
    ("adapter", ("--augmentation", "none"), "augmentation 'ScaleTranslate' instead of 'NoneType'"),
    ("cut", (), "to be a whole checkpoint (got "),
    ("alone", (), "to hold no adapter (got one in '"),
]


@pytest.mark.parametrize(("folder", "more", "message"), RESUME)
def test_resume_what_is_another_run(place, capsys, folder, more, message):
    arguments = fit(place / "set.npz", place / folder, "--resume", "true", epochs=1)
    before = (place / folder / "adapter_model.safetensors").read_bytes()
    found = complaint(capsys, [*arguments, *(text.replace("{}", str(place)) for text in more)])
    assert message in found and "\n" not in found, found
    assert (place / folder / "adapter_model.safetensors").read_bytes() == before


def test_folders_that_are_taken(place, capsys):
    for name, message in (
        ("adapter", "to hold no run (got one in"),
        ("alone", "to hold no adapter (got one in"),
        ("set.npz", "to be a folder (got the file"),
    ):
        assert message in complaint(capsys, fit(place / "set.npz", place / name, epochs=1))


def test_the_run_is_written_beside_its_checkpoints(place):
    run = json.loads((place / "adapter" / "checkpoints" / "run.json").read_text())
    assert run["options"]["lr"] == 1e-3 and run["classes"] == ["block", "cage", "coil"]


OTHERS = [
    (("evaluate",), "adapter"),
    (("evaluate", "{}/empty"), "adapter_model.safetensors in it (got '"),
    (("evaluate", "{}/damaged"), "to match its SHA-256"),
    (("evaluate", "{}/alone"), "result.json' to be as fit wrote it"),
    (("evaluate", "{}/adapter", "--data", "{}/four.npz"), "to have the adapter's classes"),
    (("evaluate", "{}/adapter", "--backbone_args", '{"depth": 3}'), "its frozen weights differ"),
    (("evaluate", "{}/adapter", "--split", "train"), "'split' to be one of"),
    (("evaluate", "{}/adapter", "--batch_size", "0"), "'batch_size' to be >= 1"),
    (("evaluate", "{}/adapter", "--precision", "half"), "'precision' to be one of"),
    (("predict", "{}/adapter"), "files"),
    (("predict", "{}/adapter", "no.npy"), "'files' to exist (got 'no.npy')"),
    (("predict", "{}/adapter", "{}/empty"), "to hold files that end in one of"),
    (("predict", "{}/adapter", "{}/one"), "bad.off' to be a readable .off file"),
    (("predict", "{}/adapter", "{}/nan.npy"), "finite coordinates (got [0.0, 0.0, nan]"),
    (("predict", "{}/adapter", "{}/damaged.off"), "damaged.off' to be a readable .off file"),
    (("predict", "{}/adapter", "{}/none.npy"), "to have points (got none)"),
    (("predict", "{}/adapter", "{}/broken.yaml"), "to end in one of"),
    (("predict", "{}/adapter", "{}/cloud.npy", "--top", "0"), "'top' to be >= 1"),
    (("predict", "{}/adapter", "{}/cloud.npy", "--batch_size", "0"), "'batch_size' to be >= 1"),
    (("predict", "{}/adapter", "{}/cloud.npy", "--read_args", '{"colums": ["x"]}'), "colums"),
    (("inspect", "{}/damaged"), "to match its SHA-256"),
    (("inspect", "--method", "nope"), "'method' to be one of"),
    (("inspect", "--backbone_args", '{"foo": 1}'), "(got foo)"),
    (("pretrain",), "data"),
    (("pretrain", "--data", "nowhere", "--output", "{}/p"), "FOLDER that exists"),
    (("pretrain", "--data", "{}/empty", "--output", "{}/p"), "to hold files of"),
    (("pretrain", "--data", "procedural:2", "--output", "{}/p"), "at most the 2 clouds"),
    (("pretrain", "--data", "procedural:4", "--output", "x", "--model.num_heads", "5"), "divide"),
]


@pytest.mark.parametrize(("arguments", "message"), OTHERS, ids=lambda value: str(value)[:60])
def test_other_commands(place, capsys, arguments, message):
    more = SMALL_PRETRAINING if arguments[0] == "pretrain" else []
    filled = [text.replace("{}", str(place)) for text in arguments[1:]]
    found = complaint(capsys, [arguments[0], *more, *filled])
    assert message in found and "\n" not in found, found


def test_every_unreadable_file_is_named(place, capsys):
    found = complaint(capsys, ["predict", str(place / "adapter"), str(place / "two")])
    assert "the 4 files to be readable (got 2 that are not)" in found
    assert "bad.off" in found and "bad.ply" in found


def test_a_cloud_of_one_point_has_a_class(place, tmp_path, capsys):
    np.save(tmp_path / "one.npy", np.ones((1, 3)))
    assert main(["predict", str(place / "adapter"), str(tmp_path / "one.npy")]) == 0
    assert "one.npy" in capsys.readouterr().out


def test_training_on_everything_claims_nothing(place, tmp_path, capsys):
    more = ("--val_fraction", "0")
    assert main(fit(place / "set.npz", tmp_path / "all", *more, epochs=2)) == 0
    out = capsys.readouterr().out
    assert "16 clouds train, 0 validate" in out
    assert "nothing validated: the last epoch, 2, is kept" in out and "best epoch" not in out
    result = json.loads((tmp_path / "all" / "result.json").read_text())
    assert result["kept_epoch"] == 2 and result["chosen_by"] is None and "val" not in result
    found = complaint(capsys, ["evaluate", str(tmp_path / "all"), "--split", "val"])
    assert "to have clouds to validate on (got none: 'val_fraction' is 0" in found


def test_pretrain_then_fit_on_it(place, tmp_path, capsys):
    arguments = ["pretrain", *SMALL_PRETRAINING, "--output", str(tmp_path / "p"), "--data"]
    assert main([*arguments, "procedural:4"]) == 0
    found = complaint(capsys, [*arguments, "procedural:4", "--options.lr", "0.5"])
    assert "options.lr 0.001 instead of 0.5" in found and "\n" not in found
    weights = tmp_path / "p" / "checkpoint.pth"
    more = ("--backbone", str(weights), "--backbone_args", "null")
    assert main(fit(place / "set.npz", tmp_path / "adapter", *more, epochs=1)) == 0
    weights.write_bytes(b"PK cut off")
    found = complaint(capsys, [*arguments, "procedural:4"])
    assert "to be a whole checkpoint" in found and "\n" not in found
    found = complaint(capsys, ["evaluate", str(tmp_path / "adapter")])
    assert "an intact .pth file" in found


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: pyg-peft {name}" in text and "--config" in text
