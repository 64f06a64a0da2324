"""Public names resolve, have an entry on an API page, and cost nothing until they are used."""

import ast
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

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


@pytest.mark.parametrize("package", [*PACKAGES, *WITH_EXTRAS])
def test_every_name_resolves(package: str):
    module = load(package)
    assert module.__doc__, f"{package} has no docstring"
    assert len(set(module.__all__)) == len(module.__all__)
    assert set(module.__all__) <= set(dir(module)), "an API page would be empty"


def test_lazy_names_are_the_static_ones():
    assert sorted(pyg_peft.__all__) == sorted([*pyg_peft._HOME, "__version__"])
    assert set(pyg_peft.__all__) <= set(dir(pyg_peft))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        pyg_peft.nonsense  # noqa: B018


# ---- entries of the API pages --------------------------------------------------------------------

API = sorted((ROOT / "docs" / "api").glob("*.md"))
DIRECTIVE = re.compile(r"^\.\. auto(\w+):: ([\w.]+)\n((?:   :[\w-]+:.*\n)*)", re.MULTILINE)


def entries(page: Path) -> Iterator[tuple[str, Any]]:
    """What autodoc renders on a page: the name of each entry and its object."""
    for kind, path, options in DIRECTIVE.findall(page.read_text()):
        if kind != "module":
            owner, _, name = path.rpartition(".")
            yield name, getattr(load(owner), name)
            continue
        module = load(path)
        for name in module.__all__ if ":members:" in options else ():
            value = getattr(module, name)
            if is_code(value):
                if value.__doc__:
                    yield name, value
            elif name in data_with_a_text(module):
                yield name, value


def is_code(value: Any) -> bool:
    """Whether a value is a class or function of this package, and no constant or alias."""
    kind = inspect.isclass(value) or inspect.isroutine(value)
    return kind and value.__module__.startswith("pyg_peft")


def data_with_a_text(module: ModuleType) -> set[str]:
    """Constants with a ``#:`` comment above or a string below, which autodoc needs to show them."""
    source = inspect.getsource(module)
    lines, body = source.splitlines(), ast.parse(source).body
    found: set[str] = set()
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            below = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if below or lines[node.lineno - 2].startswith("#:"):
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def shown(pages: list[Path]) -> set[tuple[str, int]]:
    return {(name, id(value)) for page in pages for name, value in entries(page)}


@pytest.mark.parametrize("package", [*PACKAGES, *WITH_EXTRAS])
def test_every_name_has_an_entry_with_a_signature(package: str):
    module = load(package)
    need = [extra for extra in WITH_EXTRAS.values() if importlib.util.find_spec(extra) is None]
    pages = [p for p in API if not (need and any(name in p.read_text() for name in WITH_EXTRAS))]
    found = shown(pages)
    public = {name: getattr(module, name) for name in module.__all__ if not name.startswith("__")}
    missing = [name for name, value in public.items() if (name, id(value)) not in found]
    assert not missing, f"On no page of docs/api, from {package}: {missing}"
    for name, value in public.items():
        if is_code(value) and not (inspect.isclass(value) and issubclass(value, Exception)):
            assert inspect.signature(value) is not None, name


@pytest.mark.parametrize("page", API, ids=lambda page: page.stem)
def test_every_api_page_has_entries(page: Path):
    assert list(entries(page))


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
