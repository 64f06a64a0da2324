"""What core dependencies alone give: whatever needs more says in one line how to install it.

Absence is simulated, so that these tests say the same in every environment.
"""

import subprocess
import sys
from pathlib import Path

import pytest

import pyg_peft
from pyg_peft.cli import COMMANDS, main

ROOT = Path(pyg_peft.__path__[0]).parent
OF_TRAIN = ("jsonargparse", "lightning", "torchmetrics")


def run_without(packages: tuple[str, ...], code: str) -> str:
    """Run code in a fresh interpreter where an import of ``packages`` fails; return its output."""
    absent = f"import sys; sys.modules.update(dict.fromkeys({packages!r}))"
    command = [sys.executable, "-W", "ignore", "-c", f"{absent}\n{code}"]
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    return done.stdout


def test_the_command_itself_needs_nothing(capsys):
    assert main(["bake"]) == 2
    assert "(got 'bake')" in capsys.readouterr().err
    assert main([]) == 0
    usage = capsys.readouterr().out
    assert all(f"\n  {name} " in usage for name in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pyg-peft {pyg_peft.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_names_the_extra(name, capsys, monkeypatch):
    for package in OF_TRAIN:
        monkeypatch.setitem(sys.modules, package, None)
    assert main([name]) == 2
    first, hint, end = capsys.readouterr().err.split("\n")
    assert first == (
        f"pyg-peft {name}: 'jsonargparse' is needed here and not installed: "
        "pip install 'pyg-peft[train]'"
    )
    assert (hint, end) == ("(--traceback shows where)", "")


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("lightning", "ShapeDataModule"),
        ("lightning", "PeftModule"),
        ("torchmetrics", "MacroAccuracy"),
    ],
)
def test_training_names_the_extra(package, name):
    code = f"""
import pyg_peft.training
from pyg_peft.errors import MissingExtraError
try:
    pyg_peft.training.{name}
except MissingExtraError as error:
    print(error.package, error)
"""
    expected = f"{package} '{package}' is needed here and not installed: "
    assert run_without((package,), code) == expected + "pip install 'pyg-peft[train]'\n"
