"""Every command on a page of the documentation has options that exist and values that fit them."""

import re
import shlex
from pathlib import Path

import pytest

from pyg_peft.cli import COMMANDS, make_parser

for package in ("jsonargparse", "lightning", "torchmetrics"):
    pytest.importorskip(package, reason=f"{package} is not installed")

ROOT = Path(__file__).resolve().parent.parent
SHELL = re.compile(r"^```(?:sh|bash|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
YAML = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
CLI = ROOT / "docs" / "cli.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(page: Path) -> list[list[str]]:
    """The commands of a page, split as a shell splits them."""
    lines = "\n".join(SHELL.findall(page.read_text())).replace("\\\n", " ").splitlines()
    split = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [words[1:] for words in split if words[:1] == ["pyg-peft"]]


WRITTEN = [(page, words) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize(
    ("page", "words"), WRITTEN, ids=[f"{page.stem}: {' '.join(words)}" for page, words in WRITTEN]
)
def test_commands_parse(page, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(YAML.findall(CLI.read_text())[0])
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    if not words or words == ["--help"]:
        return
    name, *arguments = words
    parser, _ = make_parser(name)
    if "--print_config" in arguments or "--help" in arguments:
        with pytest.raises(SystemExit):
            parser.parse_args(arguments)
        assert "max_epochs: 50" in capsys.readouterr().out
    else:
        parser.parse_args(arguments)


def test_the_page_shows_every_command():
    assert {words[0] for words in commands(CLI)} == set(COMMANDS)


def test_options_after_the_file_win(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(YAML.findall(CLI.read_text())[0])
    parser, _ = make_parser("fit")
    found = parser.parse_args(["--config", "run.yaml", "--seed", "1"])
    assert found.seed == 1 and found.output == "adapter/" and found.trainer.max_epochs == 50
    assert found.method_args == {"num_prompts": 10, "bottleneck_channels": 16}
