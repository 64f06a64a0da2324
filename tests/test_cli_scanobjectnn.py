"""ScanObjectNN through the commands, from files of the authors' layout that are written here."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import fit

from pyg_peft.cli import main, predict
from pyg_peft.datasets import ScanObjectNN
from pyg_peft.training.data.sources import open_source

for package in ("jsonargparse", "lightning", "torchmetrics"):
    pytest.importorskip(package, reason=f"{package} is not installed")
h5py = pytest.importorskip("h5py", reason="h5py is not installed")

COUNTS = {"training": 45, "test": 20}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Objects of 64 points off the origin, larger than the unit sphere: nothing is normalized."""
    folder = tmp_path_factory.mktemp("scan") / "h5_files" / "main_split"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for word, count in COUNTS.items():
        path = folder / f"{word}_objectdataset_augmentedrot_scale75.h5"
        with h5py.File(path, "w") as file:
            file["data"] = (generator.normal(size=(count, 64, 3)) * 3 + 5).astype(np.float32)
            file["label"] = (np.arange(count) % 15).astype(np.int32)
            file["mask"] = np.zeros((count, 64), np.int32)
    return folder.parents[1]


def test_fit_evaluate_and_predict(root, tmp_path, capsys):
    out = tmp_path / "adapter"
    more = ("--preprocessing.up_axis", "y")
    assert main(fit(f"scanobjectnn:{root}", out, *more, epochs=1)) == 0
    assert "20 test, 15 classes" in capsys.readouterr().out
    result = json.loads((out / "result.json").read_text())
    assert result["test"]["count"] == 20
    assert main(["evaluate", str(out), "--per_class", "true"]) == 0
    text = capsys.readouterr().out
    assert f"test accuracy {100 * result['test']['accuracy']:.2f} %" in text and "toilet" in text

    # Prediction treats the points of an object as evaluation did.
    dataset = ScanObjectNN(root, "test", normalize=False)
    files = [str(tmp_path / f"{number:02d}.npy") for number in range(20)]
    for file, item in zip(files, dataset, strict=True):
        pos = item.pos
        assert pos is not None
        np.save(file, pos.numpy())
    found = [int(row.argmax()) for _, row in predict.run(str(out), files)]
    right = sum(a == b for a, b in zip(found, dataset.labels.tolist(), strict=True))
    # A file's mean is taken away in float64 first, so the last bits may differ: by a cloud at most.
    assert abs(right / 20 - result["test"]["accuracy"]) < 0.051


def test_only_the_preprocessing_normalizes(root):
    splits = open_source(f"scanobjectnn:{root}")
    assert splits.train[0].pos.mean() > 3 and splits.test[0].pos.mean() > 3
    assert open_source(f"scanobjectnn:{root}", normalize=True).train[0].pos.norm(dim=1).max() < 1.01


def test_variants_and_what_is_missing(root, tmp_path, capsys):
    data = f"scanobjectnn:{root}"
    args = ("--data_args", '{"variant": "OBJ_BG"}')
    assert main(fit(data, tmp_path, *args)) == 2
    assert "to hold 'main_split/training_objectdataset.h5'" in capsys.readouterr().err
    assert main(fit(data, tmp_path, "--data_args", '{"varient": "OBJ_BG"}')) == 2
    error = capsys.readouterr().err
    assert "Expected 'data_args' to be arguments of the data set" in error and "varient" in error
    assert not list(tmp_path.iterdir())
