"""README is short and generated tables are true; CONTRIBUTING names what exists."""

import configparser
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from flat_backbones import CASES, CHANNELS, Case

from pyg_peft import __version__, get_peft_model
from pyg_peft.testing import random_clouds
from pyg_peft.tuners import METHODS

ROOT = Path(__file__).resolve().parent.parent
README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
SMALL: dict[str, dict[str, Any]] = {
    "adapter": {"bottleneck_channels": 2},
    "point_peft": {"bottleneck_channels": 2, "k": 3},
}


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme_tables", ROOT / "docs" / "tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["methods", "accuracy", "symmetries"])
def test_tables_are_those_of_today(tables: ModuleType, name: str):
    page = tables.PAGES[name].read_text()
    written = tables.insert(page, name, tables.TABLES[name]())
    assert page == written, "run python docs/tables.py --write"


def test_a_page_without_the_comments(tables: ModuleType):
    with pytest.raises(ValueError, match="<!-- methods: begin -->"):
        tables.insert("# a page", "methods", "| a |")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_methods_run_where_the_table_places_them(tables: ModuleType, case: Case, generator: Any):
    clouds = random_clouds([9, 20, 7], CHANNELS, generator=generator)
    with torch.device("meta"):  # in the sizes of the table
        base = case.model(2)
    ways = {name: tables.placement(base, config) for name, config in METHODS.items()}
    assert set(ways.values()) == {"default", "targets", ""}
    for name, way in ways.items():
        if way:
            targets: dict[str, Any] = {"target_modules": ("levels.*",)} if way == "targets" else {}
            config = METHODS[name](**SMALL.get(name, {}), **targets)
            model = get_peft_model(case.make(), config)
            assert case.call(model, clouds).isfinite().all(), name


def test_one_minute():
    assert len(README.read_text().split()) < 900


def test_the_citation_is_of_this_version():
    assert f"version = {{{__version__}}}" in README.read_text()


@pytest.mark.parametrize("page", [README, CONTRIBUTING], ids=lambda page: page.name)
def test_links_lead_to_files(page: Path):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    files = [link for link in links if "://" not in link]
    assert files and all((ROOT / link).is_file() for link in files)


def test_contributing_names_files_that_exist():
    names = set(re.findall(r"`([a-z_]+/[\w/]*(?:\.py|\.json|/))`", CONTRIBUTING.read_text()))
    missing = [n for n in names if not (ROOT / n).exists() and not (ROOT / "pyg_peft" / n).exists()]
    assert len(names) > 40 and not missing


def test_contributing_has_every_environment():
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    environments = {name.removeprefix("testenv:") for name in tox.sections() if ":" in name}
    table = CONTRIBUTING.read_text().partition("| environment |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == environments - {".pkg"}
