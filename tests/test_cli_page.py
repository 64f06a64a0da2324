"""Commands and options on pages exist in the parsers; values of whole commands fit them."""

import re
import shlex
from argparse import ArgumentError
from pathlib import Path

import pytest

from pyg_peft.cli import COMMANDS, make_parser

for package in ("jsonargparse", "lightning", "torchmetrics"):
    pytest.importorskip(package, reason=f"{package} is not installed")

ROOT = Path(__file__).resolve().parent.parent
SHELL = re.compile(r"^```(?:sh|bash|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
YAML = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
CLI = ROOT / "docs" / "cli.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
INLINE = re.compile(r"`(pyg-peft [^`]*|--[a-z][^`]*)`")
# Before the command, and those of the command that ask or explain.
AROUND = {"--import", "--help", "--version"}
# The options there are of the examples' own scripts, and of tox, pytest and the benchmarks.
OTHER_SCRIPTS = {"examples", "CONTRIBUTING"}


def split(line: str) -> list[list[str]]:
    """The commands of a line, split as a shell splits them, without ``--import``."""
    found: list[list[str]] = []
    for part in line.split("&&"):
        words = shlex.split(part.strip().removeprefix("$ "), comments=True)
        if words[:1] == ["pyg-peft"]:
            while words[1:2] and words[1].partition("=")[0] == "--import":
                del words[1 : 2 if "=" in words[1] else 3]
            found.append(words[1:])
    return found


def commands(page: Path) -> list[list[str]]:
    """The commands in the code blocks of a page."""
    lines = "\n".join(SHELL.findall(page.read_text())).replace("\\\n", " ").splitlines()
    return [words for line in lines for words in split(line)]


def inline(page: Path) -> list[str]:
    """The commands and options within the text of a page."""
    return INLINE.findall(re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S))


def options(name: str) -> set[str]:
    return set(make_parser(name)[0]._option_string_actions) | AROUND


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_options_in_the_text_exist(page: Path):
    lone: list[str] = []
    for code in inline(page):
        if code.startswith("--"):
            lone.append(code.split()[0].partition("=")[0])
            continue
        for words in split(code):
            given = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert not words or words[0] in {*COMMANDS, *AROUND}, code
            known = options(words[0]) if words and words[0] in COMMANDS else AROUND
            assert given <= known, code
    if lone and page.stem not in OTHER_SCRIPTS:
        known = set().union(*(options(name) for name in COMMANDS))
        assert set(lone) <= known


def test_an_option_that_does_not_exist_is_found(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("`pyg-peft fit --nonsense 1`\n```sh\npyg-peft fit --dta x\n```\n")
    with pytest.raises(AssertionError, match="--nonsense"):
        test_commands_and_options_in_the_text_exist(page)
    parser, _ = make_parser("fit")
    with pytest.raises(ArgumentError):
        parser.parse_args(commands(page)[0][1:])


def test_the_page_shows_every_command():
    assert {words[0] for words in commands(CLI)} == set(COMMANDS)


def test_options_after_the_file_win(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(YAML.findall(CLI.read_text())[0])
    parser, _ = make_parser("fit")
    found = parser.parse_args(["--config", "run.yaml", "--seed", "1"])
    assert found.seed == 1 and found.output == "adapter/" and found.trainer.max_epochs == 50
    assert found.method_args == {"num_prompts": 10, "bottleneck_channels": 16}
