"""The tutorials with shell commands, run from their first line to the last in an empty folder."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from pyg_peft.cli import main

for package in ("jsonargparse", "lightning", "torchmetrics", "laspy", "trimesh"):
    pytest.importorskip(package, reason=f"{package} is not installed")

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXIT_CODE = re.compile(r"# exit code (\d)")
COPIES: dict[str, Any] = {"cp": shutil.copy, "mv": shutil.move}


def run_shell(text: str) -> None:
    for line in text.replace("\\\n", " ").splitlines():
        command, *words = shlex.split(line, comments=True)
        if command in COPIES:
            COPIES[command](*words)
            continue
        assert command == "pyg-peft", line
        expected = EXIT_CODE.search(line)
        assert main(words) == (int(expected[1]) if expected else 0), line


def run_page(path: Path) -> None:
    for kind, text in BLOCK.findall(path.read_text()):
        if kind == "sh":
            run_shell(text)
        else:
            exec(compile(text, path.name, "exec"), {"__name__": path.stem})


def test_the_cad_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_page(ROOT / "docs" / "tutorials" / "cad_folder.md")
    captured = capsys.readouterr()
    assert "shapes/plate/broken.stl" in captured.err and "new/broken.stl" in captured.err
    lines = Path("labels.csv").read_text().splitlines()
    assert lines[0] == "path,label,probability,ball,bolt,plate,ring"
    assert [line.split(",")[1] for line in lines[1:]] == ["bolt", "ring"]
    assert Path("adapter/report.html").stat().st_size > 10_000


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.md")), ids=lambda p: p.name)
def test_every_page_is_reached_once(path: Path):
    index = (ROOT / "docs" / "index.md").read_text()
    trees: list[str] = re.findall(r"```{toctree}\n(.*?)```", index, re.S)
    listed = [word for tree in trees for word in tree.split()]
    name = path.relative_to(ROOT / "docs").with_suffix("").as_posix()
    globbed = name.partition("/")[0] in ("nn", "api")
    assert name == "index" or globbed or listed.count(name) == 1
