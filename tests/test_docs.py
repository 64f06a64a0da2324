"""Every example in docstrings, the documentation and the README runs and prints what it says."""

import doctest
import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

import pyg_peft

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(pyg_peft.__path__[0])
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
FENCE = re.compile(r"^```(?:python|pycon)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def module_name(path: Path) -> str:
    dotted = path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".")
    return dotted.removesuffix(".__init__")


MODULES = [module_name(p) for p in sorted(PACKAGE.rglob("*.py")) if ">>> " in p.read_text()]
WRITTEN = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [path for path in WRITTEN if ">>> " in path.read_text()]


class Finder(doctest.DocTestFinder):
    """Also finds functions that a decorator, such as the shape checker's, has wrapped."""

    def _from_module(self, module: ModuleType | None, object: object) -> bool:
        return module is not None and getattr(object, "__module__", None) == module.__name__


def run(test: doctest.DocTest, report: list[str]) -> None:
    torch.manual_seed(0)
    doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(test, out=report.append)


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} is for an extra: {error}")
    monkeypatch.chdir(tmp_path)
    report: list[str] = []
    tests = Finder().find(module, name, extraglobs={"torch": torch})
    lines = Path(str(module.__file__)).read_text().splitlines()
    written = sum(line.lstrip().startswith(">>> ") for line in lines)
    assert sum(len(test.examples) for test in tests) == written, "an example is not found"
    for test in tests:
        run(test, report)
    assert not report, "".join(report)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_pages(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = "\n".join(block for block in FENCE.findall(page.read_text()) if ">>> " in block)
    assert text, f"{page.name} has an example outside of a python fence"
    monkeypatch.chdir(tmp_path)
    report: list[str] = []
    run(doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0), report)
    assert not report, "".join(report)
