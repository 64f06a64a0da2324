import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from modelnet_files import NAMES, write_modelnet
from torch_geometric.datasets import ModelNet, ShapeNet

from pyg_peft.cli import main
from pyg_peft.datasets import NpzShapes
from pyg_peft.training.data.sources import check_recorded, open_source


def write_shapenet(root):
    """A raw tree as ShapeNet-part unpacks, with two categories."""
    raw = root / "raw"
    (raw / "train_test_split").mkdir(parents=True)
    generator = np.random.default_rng(0)
    files: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for category, ids in ShapeNet.category_ids.items():
        if category not in ("Airplane", "Bag"):
            continue
        (raw / ids).mkdir()
        for split, count in (("train", 4), ("val", 2), ("test", 2)):
            for number in range(count):
                name = f"{split}{number}"
                table = np.c_[generator.random((30, 6)), np.zeros(30)]
                np.savetxt(raw / ids / f"{name}.txt", table)
                files[split].append(f'"shape_data/{ids}/{name}"')
    for split, names in files.items():
        path = raw / "train_test_split" / f"shuffled_{split}_file_list.json"
        path.write_text(f"[{', '.join(names)}]")
    for ids in ShapeNet.category_ids.values():
        (raw / ids).mkdir(exist_ok=True)
    return root


def small(data: str, output) -> list[str]:
    sizes = '{"embed_dim": 24, "depth": 1, "num_heads": 3, "num_centers": 6, "patch_size": 4}'
    return [
        *("fit", "--data", data, "--output", str(output)),
        *("--backbone", "random", "--backbone_args", sizes),
        *("--method_args", '{"k": 2, "num_prompts": 4}', "--preprocessing.num_points", "24"),
        *("--batch_size", "4", "--val_fraction", "0.34", "--options.logger", "none"),
        *("--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"),
        *("--trainer.accelerator", "cpu"),
    ]


@pytest.fixture
def command_line() -> None:
    for package in ("jsonargparse", "lightning", "torchmetrics"):
        pytest.importorskip(package, reason=f"{package} is not installed")


def test_modelnet_through_pyg(tmp_path):
    spec = f"modelnet10:{write_modelnet(tmp_path / 'mn')}"
    splits = open_source(spec)
    assert isinstance(splits.train.dataset, ModelNet)
    assert splits.class_names == (*NAMES, "toilet")
    assert (len(splits.train), len(splits.test)) == (30, 10)


@pytest.mark.usefixtures("command_line")
def test_fit_and_evaluate_on_modelnet(tmp_path):
    spec = f"modelnet10:{write_modelnet(tmp_path / 'mn')}"
    assert main(small(spec, tmp_path / "out")) == 0
    assert main(["evaluate", str(tmp_path / "out")]) == 0


def test_shapenet_through_pyg(tmp_path):
    spec = f"shapenet:{write_shapenet(tmp_path / 'sn')}"
    splits = open_source(spec, categories=["Airplane", "Bag"])
    assert splits.class_names == ("Airplane", "Bag")
    assert int(splits.train[0].y) in (0, 1) and splits.train[0].y.shape == (1,)
    assert all(split[0].x is None for split in (splits.train, splits.val, splits.test))
    with_normals = open_source(spec, categories=["Airplane", "Bag"], include_normals=True)
    assert with_normals.train[0].x.shape == (30, 3)


@pytest.mark.usefixtures("command_line")
def test_fit_on_two_categories_of_shapenet(tmp_path):
    spec = f"shapenet:{write_shapenet(tmp_path / 'sn')}"
    more = ["--data_args", '{"categories": ["Airplane", "Bag"]}']
    assert main([*small(spec, tmp_path / "out"), *more]) == 0
    assert main(["evaluate", str(tmp_path / "out")]) == 0


def test_folders_with_and_without_splits(tmp_path):
    for name in ("a/1", "a/2", "b/1"):
        for root in ("flat", "deep/train", "deep/test"):
            path = tmp_path / root / f"{name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.random.rand(20, 3))
    flat, deep = open_source(str(tmp_path / "flat")), open_source(str(tmp_path / "deep"))
    assert (len(flat.train), flat.test, flat.class_names) == (3, None, ("a", "b"))
    assert (len(deep.train), len(deep.test)) == (3, 3)


def test_npz_splits_and_folds(tmp_path):
    clouds = [np.random.rand(5, 3) for _ in range(6)]
    path = tmp_path / "set.npz"
    NpzShapes.write(path, clouds, [0, 1] * 3, class_names=["a", "b"])
    whole = open_source(str(path))
    assert len(whole.train) == 6 and whole.test is None


def test_a_class_of_ones_own():
    spec = "pyg_peft.datasets.ProceduralShapes"
    splits = open_source(spec, train={"num_shapes": 12}, test={"split": "test", "num_shapes": 12})
    assert len(splits.train) == 12 and not torch.equal(splits.train[0].pos, splits.test[0].pos)
    with pytest.raises(ValueError, match="'data_args' of a class path"):
        open_source(spec, num_shapes=3)


@pytest.mark.parametrize("spec", ["nowhere", "missing.npz", "no.such.Class", "pyg_peft.Nothing"])
def test_unknown_sources_list_the_known(spec):
    with pytest.raises(ValueError, match="Expected 'data'"):
        open_source(spec)


# ---- no file names code ----------------------------------------------------------------------


class NoDataSet:
    """Would show that it was called."""

    def __init__(self, path: str) -> None:
        Path(path).write_text("called")


def write_there(path: str) -> None:
    Path(path).write_text("called")


@pytest.mark.parametrize("name", ["os.system", "own_sets.NoDataSet", "own_sets.write_there"])
def test_a_class_path_names_a_data_set_and_is_checked_before_it_is_called(
    name, tmp_path, monkeypatch
):
    own = ModuleType("own_sets")
    own.__dict__.update(NoDataSet=NoDataSet, write_there=write_there)
    monkeypatch.setitem(sys.modules, "own_sets", own)
    options = {"train": {"path": str(tmp_path / "x")}, "test": {"path": str(tmp_path / "x")}}
    with pytest.raises(ValueError, match=r"a subclass of torch\.utils\.data\.Dataset"):
        open_source(name, **options)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("os.system", {"train": {"command": "touch x"}}, "no file may name code"),
        ("package.module.Class", {}, "no file may name code"),
        ("nowhere.npz", {}, "to be on this machine"),
        ("modelnet10:nowhere", {}, "to be on this machine"),
        ("modelnet10:http://example.org/x", {}, "to be on this machine"),
        ("scanobjectnn:\\\\machine\\share", {}, "to be on this machine"),
        ("//machine/share", {}, "to be on this machine"),
        ("{}", {"cache": "elsewhere"}, r"writes, fetches or runs .*got cache"),
        ("shapenet:{}", {"force_reload": True, "transform": "x"}, "got force_reload, transform"),
        ("procedural:99999999999", {}, "to be at most 10,000,000"),
        (7, {}, "by a text"),
        ("{}", [1], "'data_args' by an object"),
    ],
)
def test_what_a_file_may_not_name(spec, options, message, tmp_path):
    spec = spec.replace("{}", str(tmp_path)) if isinstance(spec, str) else spec
    with pytest.raises(ValueError, match=message):
        check_recorded(spec, options, "result.json")


def test_what_a_file_may_name(tmp_path):
    check_recorded(str(tmp_path), {"num_points": 64, "cache": False}, "result.json")
    check_recorded(f"modelnet10:{tmp_path}", {}, "result.json")
    check_recorded("procedural:48", {"seed": 1}, "result.json")


class Runs:
    """Writes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return write_there, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", ["modelnet10", "shapenet"])
def test_a_processed_file_of_pyg_that_runs_code_is_refused(kind, zipped, tmp_path):
    root = tmp_path / kind
    for name in ("training", "test", "pre_transform", "cha_air_train"):
        path = root / "processed" / f"{name}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(Runs(str(tmp_path / "x")), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="with nothing in it that runs"):
        open_source(f"{kind}:{root}")
    assert not (tmp_path / "x").exists()


@pytest.mark.usefixtures("command_line")
def test_evaluate_never_runs_what_a_folder_names(tmp_path, capsys):
    out, mark = tmp_path / "out", tmp_path / "mark"
    assert main(small("procedural:48", out)) == 0
    result = json.loads((out / "result.json").read_text())
    attacks = [
        ("os.system", {"train": {"command": f"touch {mark}"}, "test": {"command": "x"}}),
        ("own_sets.write_there", {"train": {"path": str(mark)}}),
    ]
    for data, options in attacks:
        result["run"] |= {"data": data, "data_args": options}
        (out / "result.json").write_text(json.dumps(result))
        assert main(["evaluate", str(out)]) == 2
        assert "no file may name code" in capsys.readouterr().err
        # Nor are a file's arguments handed to a class that a person typed.
        assert main(["evaluate", str(out), "--data", data]) == 2
        assert not mark.exists()
    for run in ("[]", '{"data": "procedural:48", "seed": "x"}', "[" * 100_000):
        (out / "result.json").write_text(f'{{"run": {run}}}')
        assert main(["evaluate", str(out)]) == 2
        assert "result.json" in capsys.readouterr().err
