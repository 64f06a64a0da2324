"""The demo, small: its report, its pictures, its adapters, with all methods or some."""

import base64
import re
import sys
from pathlib import Path

import pytest

from pyg_peft.cli import main

for needed in ("lightning", "jsonargparse", "matplotlib"):
    pytest.importorskip(needed, reason=f"{needed} is not installed")

SMALL = ["--num_shapes", "24", "--num_points", "64", "--epochs", "1"]


def images(page: str) -> list[bytes]:
    return [
        base64.b64decode(text) for text in re.findall(r'src="data:image/png;base64,(.+?)"', page)
    ]


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "demo"
    assert main(["demo", "--output", str(out), *SMALL]) == 0
    text = capsys.readouterr().out
    assert "which ships with the package" in text and "loaded again" in text
    page = (out / "report.html").read_text()
    for method in ("point_peft", "linear_probe", "full_fine_tuning"):
        assert f"\n{method} " in text and f"<td>{method}</td>" in page
        assert (out / method / "adapter_model.safetensors").is_file()
    found = images(page)
    assert len(found) == page.count("<img") == len(list(out.glob("*.png"))) == 5
    assert all(image.startswith(b"\x89PNG") and len(image) > 5_000 for image in found)
    assert "Where the prompts look" in page
    # Nothing is fetched: no address, no script, no style sheet besides its own.
    assert not re.search(r"https?://|<script|<link|url\(", page)


def test_demo_of_some_methods_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "demo"
    command = ["demo", "--output", str(out), *SMALL]
    assert main([*command, "--methods", '["linear_probe"]']) == 0
    page = (out / "report.html").read_text()
    assert "<td>linear_probe</td>" in page and "point_peft" not in page
    assert len(images(page)) == 4 and "Where the prompts look" not in page
    assert main([*command, "--methods", '["bitfit", "linear_probe"]']) == 0
    again = (out / "report.html").read_text()
    row = r"<tr><td>linear_probe</td>(.*?)<td>\d+</td></tr>"
    first = re.search(row.replace("<tr>", "<tr.*?>"), page)
    second = re.search(row, again)
    assert first and second and first[1] == second[1], "a finished method is shown as it was"
    assert main([*command, "--methods", '["nothing"]']) == 2
    assert "(got nothing)" in capsys.readouterr().err
    # Other options than what is there: refused before anything is trained or written anew.
    assert main([*command, "--methods", '["vpt", "linear_probe"]', "--epochs", "2"]) == 2
    assert "max_epochs 1 instead of 2" in capsys.readouterr().err
    assert (out / "report.html").read_text() == again and not (out / "vpt").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [(("--num_shapes", "11"), "'num_shapes' to be at least 12"), (("--lr", "0"), "'lr' to be")],
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
