"""Public names resolve, are documented, and cost nothing until they are used."""

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pyg_peft

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = [
    "pyg_peft",
    "pyg_peft.datasets",
    "pyg_peft.geometry",
    "pyg_peft.backbones",
    "pyg_peft.nn",
    "pyg_peft.trainable",
    "pyg_peft.checkpoint",
    "pyg_peft.tuners",
    "pyg_peft.model",
    "pyg_peft.testing",
    "pyg_peft.errors",
    "pyg_peft.symmetries",
]
WITH_EXTRAS = {"pyg_peft.training": "lightning", "pyg_peft.viz": "matplotlib"}
HEAVY = ["scipy", "lightning", "huggingface_hub", "matplotlib", "trimesh", "h5py", "torchmetrics"]


def load(package: str):
    if package in WITH_EXTRAS:
        pytest.importorskip(WITH_EXTRAS[package])
    return importlib.import_module(package)


@pytest.fixture(scope="module")
def pages() -> str:
    """All pages of the documentation that a person wrote."""
    written = [path for path in (ROOT / "docs").rglob("*.md") if path.parent.name != "api"]
    return "\n".join(path.read_text() for path in written)


@pytest.mark.parametrize("package", [*PACKAGES, *WITH_EXTRAS])
def test_every_name_resolves_and_is_documented(package: str, pages: str):
    module = load(package)
    assert module.__doc__, f"{package} has no docstring"
    assert len(set(module.__all__)) == len(module.__all__)
    assert set(module.__all__) <= set(dir(module)), "an API page would be empty"
    mute: list[str] = []
    homeless: list[str] = []
    for name in module.__all__:
        value = getattr(module, name)
        if (inspect.isclass(value) or inspect.isroutine(value)) and not value.__doc__:
            mute.append(name)
        if not name.startswith("__") and not re.search(rf"\b{re.escape(name)}\b", pages):
            homeless.append(name)
    assert not mute, f"Without a docstring in {package}: {mute}"
    assert not homeless, f"On no page of the documentation, from {package}: {homeless}"


def test_lazy_names_are_the_static_ones():
    assert sorted(pyg_peft.__all__) == sorted([*pyg_peft._HOME, "__version__"])
    assert set(pyg_peft.__all__) <= set(dir(pyg_peft))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        pyg_peft.nonsense  # noqa: B018


def test_api_pages_cover_every_package():
    api = "\n".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md"))
    missing = [p for p in [*PACKAGES[1:], *WITH_EXTRAS] if f"automodule:: {p}\n" not in api]
    assert not missing, f"No page in docs/api for {missing}"


def loaded_after(statement: str) -> set[str]:
    """Run a statement in a fresh interpreter and return the top packages that it loaded."""
    code = f"{statement}; import sys; print(*{{m.partition('.')[0] for m in sys.modules}})"
    command = [sys.executable, "-W", "ignore", "-c", code]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def test_a_component_loads_nothing_heavy():
    before = loaded_after("import torch_geometric")
    after = loaded_after("from pyg_peft import GeometryAwareAdapter")
    assert not set(HEAVY) & (after - before)
    assert not {"scipy", "lightning", "huggingface_hub"} & after


def test_the_package_itself_loads_nothing():
    assert not {"torch", "numpy", "torch_geometric"} & loaded_after("import pyg_peft")


def test_names_stay_where_the_documentation_had_them():
    pytest.importorskip("lightning")
    from pyg_peft import training
    from pyg_peft.backbones.weights import map_point_mae_keys
    from pyg_peft.training.fitting import fit

    assert fit is training.fit and callable(map_point_mae_keys)
    with pytest.warns(DeprecationWarning, match=r"from pyg_peft\.training"):
        former = importlib.import_module("pyg_peft.training.segmentation_evaluation")
    assert former.evaluate_parts is training.evaluate_parts
