"""Files with channels: what fit reads of them, predict and evaluate read without being told."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import SIZES, fit

from pyg_peft.checkpoint import read_adapter, write_adapter
from pyg_peft.cli import main, predict
from pyg_peft.cli.saved import open_adapter
from pyg_peft.datasets import ShapeFolder

for package in ("jsonargparse", "lightning", "torchmetrics"):
    pytest.importorskip(package, reason=f"{package} is not installed")

READ: dict[str, Any] = {
    "channels": ["intensity"],
    "columns": ["x", "y", "z", "intensity"],
    "fill": 0.5,
}


def write_folder(root: Path, splits: tuple[str, ...]) -> Path:
    """Two classes that nothing but the fourth column tells apart."""
    generator = np.random.default_rng(0)
    for split in splits:
        for name, value in (("bright", 1.0), ("dark", -1.0)):
            (root / split / name).mkdir(parents=True)
            for number in range(6):
                table = np.c_[generator.normal(size=(40, 3)), np.full(40, value)]
                np.save(root / split / name / f"{number}.npy", table)
    return root


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("channels")
    data = write_folder(folder / "shapes", ("train", "test"))
    sizes = json.dumps({**json.loads(SIZES), "in_channels": 1})
    more = ("--data_args", json.dumps(READ), "--backbone_args", sizes, "--method")
    method = (
        "full_fine_tuning",
        "--method_args",
        "null",
        "--options.lr",
        "0.003",
        "--batch_size",
        "4",
    )
    assert main(fit(data, folder / "adapter", *more, *method)) == 0
    return folder / "adapter", data


def test_the_adapter_records_how_files_are_read(fitted):
    adapter, _ = fitted
    recorded = json.loads((adapter / "adapter_config.json").read_text())["preprocessing"]
    assert recorded["read_args"] == {"num_points": None, **READ}


def test_predict_reads_as_training_did(fitted, capsys):
    adapter, data = fitted
    assert main(["predict", str(adapter), str(data / "test"), "--top", "1"]) == 0
    assert capsys.readouterr().out.count(".npy") == 12
    # The folder of the data set holds its cache as well, which is hidden and no cloud.
    found = predict.run(str(adapter), [str(data)])
    saved = open_adapter(str(adapter), None, {})
    shapes: Any = ShapeFolder(data, num_points=None, normalize=False, **READ)
    assert [path for path, _ in found] == [data / name for name in shapes.files]
    for item, (_, probabilities) in zip(shapes, found, strict=True):
        cloud = saved.preprocessing.evaluation()(item)
        expected = saved.model(x=cloud.x, pos=cloud.pos).softmax(-1)[0]
        torch.testing.assert_close(probabilities, expected, atol=1e-4, rtol=1e-4)


def test_what_is_given_wins_and_the_rest_stays(fitted, tmp_path):
    adapter, data = fitted
    table = np.load(data / "test" / "dark" / "0.npy")
    np.save(tmp_path / "turned.npy", table[:, [3, 0, 1, 2]])
    np.save(tmp_path / "plain.npy", table)
    columns = {"columns": ["intensity", "x", "y", "z"]}
    ((_, plain),) = predict.run(str(adapter), [str(tmp_path / "plain.npy")])
    turned = [str(tmp_path / "turned.npy")]
    ((_, given),) = predict.run(str(adapter), turned, read_args=columns)
    ((_, wrong),) = predict.run(str(adapter), turned)
    torch.testing.assert_close(given, plain)
    assert not torch.allclose(wrong, plain, atol=1e-3)


def test_a_mesh_has_the_points_that_it_has_in_a_folder(fitted, tmp_path):
    """Also where the model's own preprocessing keeps all points, or more than training had."""
    file = read_adapter(fitted[0])
    file.config["preprocessing"] |= {"read_args": {**READ, "num_points": 48}, "num_points": None}
    write_adapter(tmp_path / "adapter", file.tensors, file.config, "")
    path = tmp_path / "shapes" / "bright" / "mesh.off"
    path.parent.mkdir(parents=True)
    path.write_text("OFF\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n")
    (cloud,) = ShapeFolder(tmp_path / "shapes", num_points=48, normalize=False, **READ)
    saved = open_adapter(str(tmp_path / "adapter"), None, {})
    cloud = saved.preprocessing.evaluation()(cloud)
    expected = saved.model(x=cloud.x, pos=cloud.pos).softmax(-1)[0]
    ((_, found),) = predict.run(str(tmp_path / "adapter"), [str(path)])
    torch.testing.assert_close(found, expected)
    for other in ({"num_points": 47}, {"mesh_points": 47}):
        ((_, other_points),) = predict.run(str(tmp_path / "adapter"), [str(path)], read_args=other)
        assert not torch.equal(other_points, expected)


def test_columns_are_those_of_tables_only(fitted, tmp_path, capsys):
    adapter, _ = fitted
    (tmp_path / "mesh.off").write_text("OFF\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n")
    assert main(["predict", str(adapter), str(tmp_path)]) == 0
    assert "mesh.off" in capsys.readouterr().out


def test_evaluate_reads_another_folder_as_training_did(fitted, tmp_path, capsys):
    adapter, _ = fitted
    assert main(["evaluate", str(adapter)]) == 0
    own = capsys.readouterr().out
    other = write_folder(tmp_path / "other", ("train", "test"))
    assert main(["evaluate", str(adapter), "--data", str(other)]) == 0
    assert capsys.readouterr().out == own


def test_adapters_from_before(fitted, tmp_path, capsys):
    file = read_adapter(fitted[0])
    del file.config["preprocessing"]["read_args"]
    file.config["class_names"].append("third")
    write_adapter(tmp_path, file.tensors, file.config, "")
    path = str(fitted[1] / "test" / "dark" / "0.npy")
    assert main(["predict", str(tmp_path), path]) == 2
    assert "to name the 2 classes" in capsys.readouterr().err
    file.config["class_names"].pop()
    write_adapter(tmp_path, file.tensors, file.config, "")
    assert main(["predict", str(tmp_path), path]) == 2
    assert main(["predict", str(tmp_path), path, "--read_args", json.dumps(READ)]) == 0
    assert "0.npy   " in capsys.readouterr().out
