"""Predictions of files: formats, outputs, broken files, and what an adapter does not record."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import fit, write_set

from pyg_peft.cli import main, predict
from pyg_peft.cli.device import find_device
from pyg_peft.cli.saved import open_adapter

for package in ("jsonargparse", "lightning", "torchmetrics"):
    pytest.importorskip(package, reason=f"{package} is not installed")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("predict")
    assert main(fit(write_set(folder / "set.npz", 24), folder / "adapter", epochs=1)) == 0
    return str(folder / "adapter")


@pytest.fixture
def clouds(tmp_path: Path) -> Path:
    """Five clouds and a file that is damaged."""
    folder = tmp_path / "clouds"
    folder.mkdir()
    for number in range(5):
        np.save(folder / f"{number}.npy", np.random.default_rng(number).random((60, 3)))
    (folder / "bad.off").write_text("OFF\n")
    return folder


def files(folder: Path) -> list[str]:
    return [str(folder / f"{number}.npy") for number in range(5)]


def complaint(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    return capsys.readouterr().err


def test_json_and_csv_hold_the_probabilities(adapter, clouds, capsys):
    found = predict.run(adapter, files(clouds), batch_size=2)
    capsys.readouterr()
    names = open_adapter(adapter, None, {}).class_names
    assert main(["predict", adapter, *files(clouds), "--format", "json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert main(["predict", adapter, *files(clouds), "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [entry["path"] for entry in entries] == [row["path"] for row in rows] == files(clouds)
    for (_, row), entry, line in zip(found, entries, rows, strict=True):
        assert list(entry["probabilities"]) == list(names)
        torch.testing.assert_close(torch.tensor(list(entry["probabilities"].values())), row)
        assert entry["label"] == line["label"] == names[int(row.argmax())]
        assert {name: float(line[name]) for name in names} == entry["probabilities"]
        assert float(line["probability"]) == max(entry["probabilities"].values())


@pytest.mark.parametrize(("name", "form"), [("a.json", None), ("a.csv", None), ("a.txt", "text")])
def test_output_is_the_text_that_is_printed_otherwise(
    adapter, clouds, tmp_path, capsys, name, form
):
    output = tmp_path / name
    more = [] if form is None else ["--format", form]
    assert main(["predict", adapter, *files(clouds), "--output", str(output), *more]) == 0
    assert capsys.readouterr().out == f"5 results: {output}\n"
    form = form or output.suffix[1:]
    assert main(["predict", adapter, *files(clouds), "--format", form]) == 0
    assert output.read_text() == capsys.readouterr().out


def test_a_broken_file_ends_everything_or_is_left_out(adapter, clouds, tmp_path, capsys):
    output = tmp_path / "a.json"
    ask = ["predict", adapter, str(clouds), "--output", str(output), "--batch_size", "2"]
    found = complaint(capsys, ask)
    assert "bad.off' to be a readable .off file" in found and not output.exists()
    (clouds / "worse.stl").write_bytes(b"")
    assert "the 7 files to be readable (got 2 that are not)" in complaint(capsys, ask)
    assert main([*ask, "--skip_errors", "true"]) == 1
    found = capsys.readouterr().err
    assert "2 of 7 files have no prediction:\n" in found
    assert "bad.off" in found and "worse.stl" in found
    assert [entry["path"] for entry in json.loads(output.read_text())] == files(clouds)


def test_files_are_read_a_batch_at_a_time(adapter, clouds, monkeypatch):
    from pyg_peft.cli.predicting import clouds as module

    events: list[str] = []
    read, result = module.read_file, module.result_of
    monkeypatch.setattr(module, "read_file", lambda *args: (events.append("read"), read(*args))[1])
    monkeypatch.setattr(
        module, "result_of", lambda *args: (events.append("result"), result(*args))[1]
    )
    predict.run(adapter, files(clouds), batch_size=2)
    assert "".join(event[2] for event in events) == "aassaassas"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--output", "nowhere/a.json"), "'output' to be in a folder that exists"),
        (("--output", "{}/0.npy"), "'output' to be none of the input files"),
        (("--output", "{}"), "'output' to be a file (got the folder"),
        (("--output", "{}/../old.json"), "which exists): --overwrite true replaces it"),
        (("--output", "a.json", "--format", "csv"), "'format' to be that of 'a.json'"),
        (("--format", "xml"), "'format' to be one of text, json, csv (got 'xml')"),
        (("--device", "cuda:99"), "'device' to be 'auto' or a device"),
        (("--device", "toaster"), "'device' to be 'auto' or a device"),
        (("--device", "meta"), "'device' to be a CPU or a CUDA device"),
        (("--preprocessing", '{"points": 3}'), "'preprocessing' to be among num_points"),
        (("--preprocessing", '{"num_points": 0}'), "'num_points' to be >= 1"),
        (("--class_names", '["a"]'), "'class_names' to name the 3 classes"),
        (("--output_type", "doc"), "'output_type' to be one of same"),
    ],
)
def test_mistakes_come_before_a_file_is_read(
    adapter, clouds, tmp_path, monkeypatch, capsys, more, message
):
    from pyg_peft.cli.predicting import clouds as module

    monkeypatch.setattr(module, "read_file", lambda *_: pytest.fail("a file was read"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.json").write_text("old")
    filled = [text.replace("{}", str(clouds)) for text in more]
    assert message in complaint(capsys, ["predict", adapter, *files(clouds), *filled])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clouds", "old.json"]
    assert (tmp_path / "old.json").read_text() == "old"


def test_overwrite_replaces_the_file(adapter, clouds, tmp_path):
    (tmp_path / "a.csv").write_text("old")
    more = ["--output", str(tmp_path / "a.csv"), "--overwrite", "true"]
    assert main(["predict", adapter, *files(clouds), *more]) == 0
    assert (tmp_path / "a.csv").read_text().startswith("path,label,probability,")


def test_given_settings_win_over_recorded_ones(adapter, clouds, tmp_path):
    names = '["a", "b", "c"]'
    more = ["--preprocessing.num_points", "20", "--class_names", names]
    output = tmp_path / "a.json"
    assert main(["predict", adapter, files(clouds)[0], *more, "--output", str(output)]) == 0
    (entry,) = json.loads(output.read_text())
    assert list(entry["probabilities"]) == ["a", "b", "c"]
    ((_, usual),) = predict.run(adapter, files(clouds)[:1])
    assert not np.allclose(list(entry["probabilities"].values()), usual.numpy(), atol=1e-4)


def test_an_adapter_without_names_and_preprocessing(adapter, clouds, tmp_path, capsys):
    saved = open_adapter(adapter, None, {})
    saved.model.save_pretrained(tmp_path / "bare")
    weights = tmp_path / "base.pth"
    torch.save(saved.model.unload().state_dict(), weights)
    ask = ["predict", str(tmp_path / "bare"), *files(clouds)]
    assert "does not record the weights of its base" in complaint(capsys, ask)
    ask += ["--class_names", json.dumps(list(saved.class_names))]
    ask += ["--preprocessing.num_points", "48", "--format", "json", "--backbone", str(weights)]
    plain = predict.run(adapter, files(clouds))
    capsys.readouterr()
    assert main(ask) == 0
    captured = capsys.readouterr()
    assert "assumed" not in captured.err
    for entry, (_, row) in zip(json.loads(captured.out), plain, strict=True):
        torch.testing.assert_close(torch.tensor(list(entry["probabilities"].values())), row)


def test_devices():
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_evaluate_takes_the_same_options(adapter, capsys):
    more = ["--device", "cpu", "--preprocessing", '{"num_points": 24}']
    assert main(["evaluate", adapter, *more]) == 0
    assert "'device' to be 'auto'" in complaint(
        capsys, ["evaluate", adapter, "--device", "toaster"]
    )
