"""The built wheel works elsewhere: nothing it needs lives only in the checkout."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from pyg_peft.backbones.weights.shipped import SHIPPED

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("pyg_peft-*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that sees the wheel, and this environment's other packages behind it."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([str(python), *install], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    here = [path for path in sys.path if path.endswith("site-packages")]
    (site / "zz_borrowed.pth").write_text("\n".join(here))
    return python


def run(python: Path, *arguments: str, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(python), "-W", "ignore", *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_holds_the_package_alone(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    assert "pyg_peft/py.typed" in names
    for entry in SHIPPED.values():
        path = f"pyg_peft/backbones/pretrained_weights/{entry.file}"
        assert {path, path.replace(".safetensors", ".md")} <= set(names)
    shapes = "pyg_peft/datasets/shipped/"
    assert {f"{shapes}furniture.npz", f"{shapes}LICENSES.md"} <= set(names)
    assert any(name.endswith("/NOTICE") for name in names)
    assert wheel.stat().st_size < 8e6
    tops = {name.split("/")[0] for name in names}
    assert tops == {"pyg_peft", next(top for top in tops if top.endswith(".dist-info"))}


@pytest.mark.slow
def test_the_wheel_works_elsewhere(python: Path, tmp_path: Path):
    where = run(python, "-c", "import pyg_peft; print(pyg_peft.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(python.parent.parent)
    names = "import pyg_peft; print(len([getattr(pyg_peft, n) for n in pyg_peft.__all__]))"
    assert int(run(python, "-c", names, cwd=tmp_path)) > 10


@pytest.mark.slow
def test_the_demo_runs_elsewhere(python: Path, tmp_path: Path):
    pytest.importorskip("lightning")
    pytest.importorskip("jsonargparse")
    run(python, str(python.parent / "pyg-peft"), "demo", cwd=tmp_path)
