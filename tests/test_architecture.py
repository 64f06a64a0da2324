"""The house of the design: who may import whom."""

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "pyg_peft"
ROOMS = {
    "datasets": 1,
    "geometry": 2,
    "backbones": 3,
    "nn": 4,
    "trainable": 5,
    "checkpoint": 6,
    "tuners": 7,
    "model": 8,
}
FOUNDATIONS = {"typing", "errors", "storage", "symmetries", "tensor_file"}
UNNUMBERED = {"loading", "deployment", "training", "cli", "viz", "testing"}
# Inside a room, the folders (or files) of a row may import those of the rows above; not each other.
INSIDE = {
    "datasets": [["formats", "procedural"], ["npz"], ["folders"], ["scenes"]],
    "geometry": [["layout"], ["ordering"], ["search"], ["pyg"]],
    "backbones": [
        ["layers", "weights"],
        ["flat_backbone"],
        ["point_mae", "pointnet", "pointnet2", "point_transformer", "dgcnn"],
    ],
    "tuners": [["engine"], ["tokens", "graphs"], ["methods"]],
    "training": [
        *(["data"], ["evaluation"], ["tasks"], ["runs"], ["fitting"]),
        ["pretraining", "comparing"],
    ],
}
# What a numbered room may import when it is loaded; anything else only inside a function, on use.
LIGHT = {"torch", "torch_geometric", "numpy", "safetensors", "tqdm", "jaxtyping", "pyg_peft"}

FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(node: ast.AST, path: Path) -> Iterator[str]:
    """Yield the absolute dotted names that an import statement asks for."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        package = ["pyg_peft", *path.relative_to(PACKAGE).parts[:-1]]
        base = package[: len(package) - node.level + 1] if node.level else []
        module = ".".join([*base, *([node.module] if node.module else [])])
        yield from (f"{module}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and room of every import from this package, wherever in the file it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        for name in imported(node, path):
            parts = name.split(".")
            if parts[0] == "pyg_peft":
                yield getattr(node, "lineno", 0), parts[1] if len(parts) > 1 else ""


def imports_at_load(body: list[ast.stmt], path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and top package of the imports that run when the module is loaded."""
    for node in body:
        for name in imported(node, path):
            yield node.lineno, name.split(".")[0]
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        for field in ("body", "orelse", "handlers", "finalbody"):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                inner = getattr(node, field, [])
                yield from imports_at_load(inner if isinstance(inner, list) else [], path)


def misplaced(path: Path) -> list[str]:
    """List the imports of one file that go uphill."""
    room = room_of(path)
    complaints: list[str] = []
    for line, target in own_imports(path):
        if target in FOUNDATIONS or target == room:
            continue
        if room in FOUNDATIONS or (room in ROOMS and ROOMS.get(target, 99) >= ROOMS[room]):
            complaints.append(f"{name_of(path)}:{line} imports {target or 'the top package'}")
    return complaints


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_downhill(path: Path):
    if path != PACKAGE / "__init__.py":
        assert not misplaced(path)


def row_of(room: str, name: str) -> tuple[int, str] | None:
    """Row and name of a folder or file inside a room; ``None`` where no order is set."""
    for row, names in enumerate(INSIDE.get(room, [])):
        if name in names:
            return row, name
    return None


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_downhill_inside_a_room(path: Path):
    room, inside = path.relative_to(PACKAGE).parts[0], path.relative_to(PACKAGE).parts[1:]
    own = row_of(room, inside[0].removesuffix(".py")) if inside else None
    if own is None:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        for name in imported(node, path):
            parts = name.split(".")
            target = row_of(room, parts[2]) if parts[:2] == ["pyg_peft", room] else None
            if target is not None and target[1] != own[1]:
                assert target[0] < own[0], f"{name_of(path)}:{getattr(node, 'lineno', 0)}: {name}"


def test_every_folder_has_its_row():
    for room, rows in INSIDE.items():
        folders = {p.name for p in (PACKAGE / room).iterdir() if (p / "__init__.py").exists()}
        assert folders <= {name for row in rows for name in row}, room


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_circles():
    """Not even inside functions or for the type checker: files can be read in one order."""
    modules = {module_of(path): path for path in FILES}
    wanted: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text())):
            for target in imported(node, path):
                module = target if target in modules else target.rpartition(".")[0]
                if module in modules and module != name:
                    wanted[name].add(module)
    tuple(TopologicalSorter(wanted).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_rooms_load_light_packages_only(path: Path):
    if room_of(path) in ROOMS:
        body = ast.parse(path.read_text()).body
        allowed = LIGHT | set(sys.stdlib_module_names)
        loads = imports_at_load(body, path)
        heavy = [f"{line}: {top}" for line, top in loads if top not in allowed]
        assert not heavy, f"{name_of(path)} loads {heavy}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_device_and_no_global_seed(path: Path):
    if room_of(path) not in ROOMS:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert not called.endswith(".cuda"), f"{name_of(path)}:{node.lineno} names a device"
            assert called != "torch.manual_seed", f"{name_of(path)}:{node.lineno} seeds globally"


def test_every_room_is_known():
    entries = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or p.is_dir()}
    known = set(ROOMS) | FOUNDATIONS | UNNUMBERED | {"__init__", "__main__", "__pycache__"}
    assert entries <= known, f"Rooms that the design does not name: {sorted(entries - known)}"


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("geometry/x.py", "from pyg_peft.nn import Bottleneck"),
        ("nn/x.py", "from ..tuners import config"),
        ("nn/x.py", "def f():\n    import pyg_peft.training"),
        ("tuners/x.py", "from pyg_peft import model"),
        ("errors.py", "from pyg_peft import geometry"),
    ],
)
def test_the_guard_itself(room: str, line: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Path, "read_text", lambda self: line)
    assert misplaced(PACKAGE / room)
