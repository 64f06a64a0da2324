"""The demo, small: its report, its pictures, its adapters, with all methods or some."""

import base64
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from commands import environment

from pyg_peft.cli import main
from pyg_peft.datasets.npz.furniture import FILE

for needed in ("lightning", "jsonargparse", "matplotlib"):
    pytest.importorskip(needed, reason=f"{needed} is not installed")

from pyg_peft.cli.demo_report import HEADING, Outcome, Run, as_lines, verdict  # noqa: E402
from pyg_peft.training.fitting.run import FitReport  # noqa: E402
from pyg_peft.training.tasks.classification import Evaluation  # noqa: E402

SMALL = ["--num_shapes", "44", "--num_points", "64", "--epochs", "1"]
METHODS = ("point_peft", "linear_probe", "full_fine_tuning")


def images(page: str) -> list[bytes]:
    return [
        base64.b64decode(text) for text in re.findall(r'src="data:image/png;base64,(.+?)"', page)
    ]


def rows(page: str) -> dict[str, list[str]]:
    """The cells of the table by method."""
    found = re.findall(r"<tr[^>]*>((?:<td>.*?</td>)+)</tr>", page)
    cells = [re.findall("<td>(.*?)</td>", row) for row in found]
    return {name: others for name, *others in cells}


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "demo"
    assert main(["demo", "--output", str(out), "--seeds", "2", *SMALL]) == 0
    text = capsys.readouterr().out
    assert "ship with the package" in text and "loaded again" in text
    assert len(text.splitlines()) < 60 and "Epoch" not in text and "it/s" not in text
    page = (out / "report.html").read_text()
    assert set(rows(page)) == set(METHODS)
    for method in METHODS:
        assert f"\n{method}, seed 1: validation" in text
        assert rows(page)[method][0].count(" ± ") == 1
        for seed in (0, 1):
            assert (out / method / f"seed_{seed}" / "adapter_model.safetensors").is_file()
    assert "The highest mean test accuracy has" in text and "of its training time" in text
    assert "training time" in page and "standard error" in page
    found = images(page)
    assert len(found) == page.count("<img") == len(list(out.glob("*.png"))) == 5
    assert all(image.startswith(b"\x89PNG") and len(image) > 5_000 for image in found)
    assert "Where the prompts look" in page
    # Nothing is fetched: no script, and no style sheet or picture besides its own.
    assert not re.search(r"<script|<link|url\(|href=|src=\"http", page)
    assert page.count("https://creativecommons.org/") == 4
    assert (out / "CREDITS.md").read_text() == (FILE.parent / "LICENSES.md").read_text()


def test_demo_of_some_methods_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "demo"
    command = ["demo", "--output", str(out), "--seeds", "1", *SMALL]
    assert main([*command, "--methods", '["linear_probe"]']) == 0
    page = (out / "report.html").read_text()
    assert set(rows(page)) == {"linear_probe"} and "point_peft" not in page
    assert len(images(page)) == 4 and "Where the prompts look" not in page
    assert main([*command, "--methods", '["bitfit", "linear_probe"]']) == 0
    again = (out / "report.html").read_text()
    assert set(rows(again)) == {"bitfit", "linear_probe"}
    # Its training time too: that of the run that trained it.
    assert rows(again)["linear_probe"] == rows(page)["linear_probe"]
    assert main([*command, "--methods", '["nothing"]']) == 2
    assert "(got nothing)" in capsys.readouterr().err
    # Other options than what is there: refused before anything is trained or written anew.
    assert main([*command, "--methods", '["vpt", "linear_probe"]', "--epochs", "2"]) == 2
    assert "max_epochs 1 instead of 2" in capsys.readouterr().err
    assert (out / "report.html").read_text() == again and not (out / "vpt").exists()


def outcome(method: str, *accuracies: int) -> Outcome:
    runs: list[Run] = []
    for right in accuracies:
        found = Evaluation(torch.tensor([[right, 10 - right], [0, 10]]))
        report = FitReport(found, found, epoch=1, curves={"val_accuracy": [0.5, right / 10]})
        runs.append(Run(report, 3_000_000, 2_000_000, 2_000_000, 4096, 1024, 12.0 + right))
    return Outcome(method, runs)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_table_fits_any_width(width: int):
    outcomes = [outcome("full_fine_tuning", 1, 3), outcome("point_peft", 5, 6)]
    lines = as_lines(outcomes, width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert all(name in text for name in HEADING)
    assert all(cell in text for one in outcomes for cell in one.cells())
    blocks = text.count("method")
    assert blocks == text.count("point_peft") and (blocks == 1) == (width == 200)


def test_the_verdict_names_the_best():
    peft, full = outcome("point_peft", 5, 6), outcome("full_fine_tuning", 9, 8)
    best, compared = verdict([peft, full])
    assert "has full_fine_tuning: 92.5 ± 3.5 %" in best
    assert "15.0 points behind" in compared and "standard error 5.0" in compared
    assert "takes 85 % of its training time" in compared
    assert "points above" in verdict([full, outcome("point_peft", 10, 10)])[1]
    assert verdict([peft]) == [] and len(verdict([peft, outcome("lora", 5, 6)])) == 1
    assert full.curve == pytest.approx([0.5, 0.85]) and full.evaluation.count == 40


@pytest.mark.slow
def test_the_whole_demo(tmp_path: Path):
    out = tmp_path / "demo"
    started = time.monotonic()
    run_demo(out)
    # Five minutes on two free cores; a loaded machine may take five times as long.
    assert time.monotonic() - started < 25 * 60
    found = rows((out / "report.html").read_text())
    times = {method: int(cells[3].removesuffix(" s")) for method, cells in found.items()}
    assert times["point_peft"] < times["full_fine_tuning"]
    accuracies = {method: float(cells[0].split()[0]) for method, cells in found.items()}
    assert accuracies["point_peft"] > 50 and accuracies["linear_probe"] > 50


@pytest.mark.slow
def test_a_killed_demo_continues_with_the_same_numbers(tmp_path: Path):
    options = ["--seeds", "1", *SMALL]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_demo(whole, *options)
    process = subprocess.Popen(
        command(killed, *options), env=environment(), stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not (killed / "linear_probe" / "seed_0").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    run_demo(killed, *options)
    pages = [rows((out / "report.html").read_text()) for out in (whole, killed)]
    for method in METHODS:  # but for the time
        first, second = ([*page[method][:3], *page[method][4:]] for page in pages)
        assert first == second


def command(out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "pyg_peft.cli", "demo", "--output", str(out), *options]


def run_demo(out: Path, *options: str) -> None:
    done = subprocess.run(command(out, *options), env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len((done.stdout + done.stderr).splitlines()) < 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--num_shapes", "43"), "Expected 'num_shapes' to"),
        (("--num_points", "2000"), "Expected 'num_points' to lie in [1, 1024]"),
        (("--seeds", "0"), "Expected 'seeds' to"),
        (("--lr", "0"), "'lr' to be"),
    ],
)
def test_mistakes_before_anything_is_written(tmp_path, capsys, options, message):
    assert main(["demo", "--output", str(tmp_path / "demo"), *SMALL, *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_pictures_need_matplotlib_from_the_start(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["demo", "--output", str(tmp_path / "demo"), *SMALL]) == 2
    assert "'matplotlib' is needed here" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
