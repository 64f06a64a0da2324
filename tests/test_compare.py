"""``pyg-peft compare`` from end to end on tiny data, and the report of ``fit``."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyg_peft.cli import main
from pyg_peft.cli.comparing.experiment import name_data
from pyg_peft.cli.comparing.tables import blocks, tex
from pyg_peft.cli.presets import expand_preset, find_preset, list_presets
from pyg_peft.cli.report.page import Page
from pyg_peft.datasets import NpzShapes
from pyg_peft.storage import claim_folder

for needed in ("lightning", "jsonargparse", "matplotlib"):
    pytest.importorskip(needed, reason=f"{needed} is not installed")

SIZES = '{"embed_dim": 12, "depth": 2, "num_heads": 3, "num_centers": 4, "patch_size": 4}'
NAMES = ("<b>box</b>", "line & co", "$ball$")
MODEL = ["--backbone", "random", "--backbone_args", SIZES, "--preprocessing.num_points", "24"]
SMALL = [*MODEL, "--epochs", "1", "--seeds", "2", "--rates", "[0.001, 0.01]", "--batch_size", "8"]
METHODS = "vpt,linear_probe,bitfit"


def write(path: Path, seed: int) -> Path:
    generator = np.random.default_rng(seed)
    shapes = {"box": (1, 1, 1), "line": (1, 0.05, 0.05), "ball": (1, 0.5, 0.1)}
    clouds = [generator.random((24, 3)) * scale for scale in shapes.values() for _ in range(12)]
    labels = [number for number in range(3) for _ in range(12)]
    NpzShapes.write(path, clouds, labels, class_names=NAMES)
    return path


def compare(out: Path, *more: str, methods: str = METHODS) -> int:
    return main(["compare", "--output", str(out), "--methods", methods, *SMALL, *more])


def rows(out: Path) -> list[dict[str, str]]:
    """The results without what the machine decides."""
    found = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    for row in found:
        for name in ("seconds", "cpu_seconds", "peak_mebibytes"):
            del row[name]
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("compare")
    files = [str(write(folder / f"{name}.npz", seed)) for seed, name in enumerate(("one", "two"))]
    data = [f"--data={file}" for file in files]
    assert compare(folder / "out", *data, "--jobs", "1") == 0
    return folder / "out", data


def test_the_outputs(finished: tuple[Path, list[str]]):
    out, _ = finished
    assert len(rows(out)) == 2 * 3 * 2
    assert {row["data"] for row in rows(out)} == {"one", "two"}
    assert all(int(row["test_clouds"]) > 0 for row in rows(out))
    text = (out / "table.tex").read_text()
    assert r"linear\_probe" in text and r"\toprule" in text and text.count(r"\pm") == 6
    page = (out / "report.html").read_text()
    assert not re.search(r"https?://|<script|<link|url\(|<b>box", page)
    assert "&lt;b&gt;box&lt;/b&gt;" in page and "line &amp; co" in page
    for heading in (
        *("All data sets", "Learning curves", "Class by class", "What is taken for what"),
        *("The most confident mistakes", "Where the prompts look", "Time and memory"),
    ):
        assert f">{heading}<" in page, heading
    assert "Nemenyi" in page and page.count("<img") >= 2 * 7
    assert not (out / "features").exists() and not list(out.glob(".part_*"))
    # The adapters of the chosen rates are there, and nothing else of the search.
    assert len(list(out.glob("adapters/*/*/*"))) == 2 * 3 * 2


def test_finished_results_are_shown_again(finished, capsys):
    out, data = finished
    before = rows(out)
    assert compare(out, *data, "--jobs", "1") == 0
    text = capsys.readouterr().out
    assert rows(out) == before and "] one" not in text and "18 of 18 runs are there" in text
    assert all(len(line) <= 80 for line in text.splitlines() if str(out) not in line)
    assert "Friedman" in text and "less vpt" in text


def test_a_killed_comparison_ends_with_the_same_numbers(finished, tmp_path, capsys):
    out, data = finished
    one = data[:1]
    first, second = tmp_path / "first", tmp_path / "second"
    assert compare(first, *one, "--jobs", "1", methods="vpt,bitfit") == 0
    expected = [
        row for row in rows(out) if row["data"] == "one" and row["method"] != "linear_probe"
    ]
    assert rows(first) == expected, "methods and data do not see each other"
    # As if killed: a search half done, a run and a test that left no result, and scratch files.
    for name in ("vpt/seed0_lr0.01", "vpt/seed1_test", "vpt/seed0_test", "bitfit/seed1_test"):
        (first / "cells" / "one" / f"{name}.json").unlink()
    for path in (first / "cells" / "one" / "bitfit").glob("seed1_lr*.json"):
        path.unlink()
    (first / ".part_old").mkdir()
    for path in ("results.csv", "report.html"):
        (first / path).unlink()
    assert compare(first, *one, "--jobs", "1", methods="vpt,bitfit") == 0
    assert rows(first) == expected and not (first / ".part_old").exists()
    assert compare(second, *one, "--jobs", "2", methods="vpt,bitfit") == 0
    assert rows(second) == expected, "the same with two processes"


def test_adapters_predict(finished, capsys):
    out, _ = finished
    adapter = next(iter(out.glob("adapters/one/vpt/seed0_*")))
    cloud = out.parent / "cloud.npy"
    np.save(cloud, np.random.default_rng(0).random((24, 3)))
    assert main(["predict", str(adapter), str(cloud)]) == 0
    assert "cloud.npy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--methods", "nothing"], "(got nothing)"),
        (["--reference", "lora"], "'reference' to be one of"),
        (["--rates", "[0.1, 0.1]"], "different learning rates"),
        (["--method_args", '{"lora": {"rank": 2}}'], "'method_args' to be settings of"),
        (["--test_fraction", "1.5"], "'test_fraction'"),
        (["--shots", "2", "--group_field", "x"], "'group_field' to be None"),
        (["--shots", "20"], "'shots' to leave each class"),
        (["--seeds", "0"], "'seeds'"),
        (["--jobs", "0"], "'jobs'"),
        (["--augmentation", "spin"], "'augmentation' to be one of"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(finished, tmp_path, capsys, more, message):
    _, data = finished
    assert compare(tmp_path / "new", data[0], *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_another_comparison_is_refused(finished, tmp_path, capsys):
    out, data = finished
    before = rows(out)
    assert compare(out, *data, "--epochs", "2") == 2
    assert "epochs 1 instead of 2" in capsys.readouterr().err
    assert compare(out, *data, "--data", data[0].partition("=")[2]) == 2
    assert "different data sets" in capsys.readouterr().err
    (tmp_path / "file.txt").write_text("mine")
    assert compare(tmp_path, data[0]) == 2
    assert "which holds other files" in capsys.readouterr().err
    with claim_folder(out):
        assert compare(out, *data) == 2
    assert "one writer at a time" in capsys.readouterr().err
    assert rows(out) == before


def test_names_of_data():
    found = name_data(["a/set.npz", "b/set.npz", "modelnet10:/data", "my.module.Shapes"])
    assert list(found) == ["set", "set_2", "modelnet10", "my_module"]


def test_a_wide_table_is_broken_and_not_cut():
    table = [["name", *"abc"], ["first\x1b", "1" * 30, "2" * 30, "3" * 30]]
    lines = blocks(table, width=50)
    assert max(map(len, lines)) <= 50 and "\x1b" not in "".join(lines)
    assert all(digit * 30 in "\n".join(lines) for digit in "123")
    assert sum(line.startswith("first") for line in lines) == 3


def test_what_is_escaped():
    assert tex(r"50 % of_a\b~") == r"50 \% of\_a\textbackslash{}b\textasciitilde{}"
    page = Page("<title>")
    page.table([["<th>"], ["</table>"]])
    page.paragraph("a & b")
    assert "</table>" not in page.text().partition("&lt;/table&gt;")[0].rpartition("<table>")[2]
    assert "&lt;title&gt;" in page.text() and "a &amp; b" in page.text()


# ---- fit -----------------------------------------------------------------------------------------


def test_fit_writes_a_report(tmp_path, capsys, monkeypatch):
    data = [f"--data={write(tmp_path / 'set.npz', 0)}"]
    small = [*MODEL, "--epochs", "1", "--batch_size", "8", "--options.logger", "none"]
    command = ["fit", data[0], *small, "--method", "vpt"]
    assert main([*command, "--output", str(tmp_path / "with")]) == 0
    page = (tmp_path / "with" / "report.html").read_text()
    for heading in ("Learning curves", "Class by class", "Where the prompts look"):
        assert f">{heading}<" in page
    assert not re.search(r"https?://|<script|<link|<b>box", page)
    assert main([*command, "--output", str(tmp_path / "off"), "--report", "false"]) == 0
    assert not (tmp_path / "off" / "report.html").exists()
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    capsys.readouterr()
    assert main([*command, "--output", str(tmp_path / "without")]) == 0
    assert "no report.html is written" in capsys.readouterr().out
    assert (tmp_path / "without" / "result.json").is_file()


def test_presets(tmp_path, capsys):
    assert list_presets() == [
        *("modelnet40_few_shot", "point_mae_scanobjectnn", "point_peft_scanobjectnn")
    ]
    found = expand_preset(["--lr=0.1", "--preset=point_peft_scanobjectnn"])
    assert found == ["--config", str(find_preset("point_peft_scanobjectnn")), "--lr=0.1"]
    for wrong in (["--preset", "none"], ["--preset", "a", "--preset", "b"], ["--preset"]):
        with pytest.raises(ValueError, match="Expected 'preset'"):
            expand_preset(wrong)
    data = [f"--data={write(tmp_path / 'set.npz', 0)}"]
    command = ["fit", "--preset", "modelnet40_few_shot", data[0], *MODEL, "--epochs", "1"]
    command += ["--method", "vpt"]
    command += ["--episode.ways", "2", "--episode.shots", "5", "--episode.queries", "2"]
    out = tmp_path / "episode"
    assert main([*command, "--output", str(out), "--report", "false"]) == 0
    result: dict[str, Any] = json.loads((out / "result.json").read_text())
    assert result["clouds"] == {"train": 10, "val": 0, "test": 4}
    run = result["run"]
    assert run["method"] == "vpt" and run["options"]["warmup_epochs"] == 10
    assert run["trainer"]["max_epochs"] == 1, "options that are given win"
    assert run["episode"] == {"ways": 2, "shots": 5, "queries": 2, "number": 0}
    (tmp_path / "run.yaml").write_text("preset: point_mae_scanobjectnn\n")
    command = ["fit", "--config", str(tmp_path / "run.yaml"), data[0]]
    assert main([*command, "--output", str(tmp_path / "x")]) == 2
    assert "on the command line" in capsys.readouterr().err
