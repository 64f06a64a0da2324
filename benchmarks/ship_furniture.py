"""Make the shapes that ship with the package, and their credits, from the shared demo set.

    python benchmarks/ship_furniture.py ../shared/data/furniture

Written are ``furniture.npz`` and ``LICENSES.md`` in ``pyg_peft/datasets/shipped``. Left out are the
shapes of :data:`LEFT_OUT`. Everything else is kept: the points and their order, the labels, the
split by design groups, and the credit lines. Coordinates are rounded to 1/1024 of the radius.
"""

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np

from pyg_peft.datasets.npz import furniture
from pyg_peft.storage import write_atomic

STEPS = 1024  # of a coordinate in a unit of length
# Why a shape of the demo set is not shipped. The README of the set names the first two groups.
# Its list of near-copies names files without their folders: both shapes named sofa2 are left out.
LEFT_OUT = {
    "may be a near-copy of a ModelNet shape": (
        *("BlendSwap-CC-0/L_shaped_sofa", "BlendSwap-CC-0/bed3", "BlendSwap-CC-0/couch2"),
        *("BlendSwap-CC-0/sofa2", "BlendSwap-CC-BY/sofa2", "BlendSwap-CC-0/winchesterSofa"),
        *("BlendSwap-CC-0/drawersCabinet", "BlendSwap-CC-BY/couch3"),
        *("KatorLegaz/mid-century-bench-sofa", "Scopia/clear_sofa", "Scopia/table4"),
        *("Scopia/burlap_sofa", "Scopia/leather_sofa"),
    ),
    "models furniture of a brand": (
        *("BlendSwap-CC-0/bedsideTable2", "BlendSwap-CC-0/bedWithTexture"),
        *("BlendSwap-CC-0/shelves", "BlendSwap-CC-0/verticalShelves"),
        *("BlendSwap-CC-0/wardrobeWithSlidingDoors", "BlendSwap-CC-BY/childChair"),
    ),
    "models a well-known design, or names a maker": (
        *("BlendSwap-CC-0/thonet", "BlendSwap-CC-0/sillaBlanca", "BlendSwap-CC-0/osakaChair"),
        *("BlendSwap-CC-BY/cafe_set_tonon_chair", "BlendSwap-CC-BY/cafe_set_tonon_table"),
        "BlendSwap-CC-0/tetrapak",
    ),
}
# Fields with a value for each shape.
PER_SHAPE = ("label", "split", "ids", "group", "licence", "creator", "title", "source")
CHANGES = """\
Changed by pyg_peft: {left_out} shapes left out, coordinates rounded to 1/{steps} of the radius. No
author endorses this either. The shapes keep the licenses below; the license of the package does not
cover them.
"""


def select(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays of the shipped shapes.

    Raises:
        ValueError: If a shape to leave out is not in the set.
    """
    ids = arrays["ids"].tolist()
    left_out = {name for names in LEFT_OUT.values() for name in names}
    missing = sorted(left_out - set(ids))
    if missing:
        raise ValueError(f"Expected the shapes to leave out to be in the set (got no {missing})")
    rows = [row for row, name in enumerate(ids) if name not in left_out]
    kept: dict[str, Any] = dict(arrays)
    kept |= {name: arrays[name][rows] for name in PER_SHAPE}
    fine = arrays["xyz"][rows].astype(np.float64) * float(arrays["scale"])
    kept |= {"xyz": np.rint(fine * STEPS).astype(np.int16), "scale": np.float32(1 / STEPS)}
    return kept


def credits(text: str, ids: list[str]) -> str:
    """Return the credits of ``ids``: the lines of the original about all shapes, and theirs.

    Raises:
        ValueError: If a shape has no line of its own.
    """
    known = {line.split()[1]: line for line in text.splitlines() if line.startswith("- ")}
    missing = sorted(set(ids) - set(known))
    if missing:
        raise ValueError(f"Expected a credit line for every shape (got none for {missing})")
    kept: list[str] = []
    for line in text.splitlines():
        if line.startswith("# "):
            line = "# Licenses and credits of furniture.npz"
        if line.startswith("- "):
            if line.split()[1] not in ids:
                continue
            line = line.replace(" * |", " |", 1)
        if line.startswith("Two shapes of BlendSwap-CC-0"):
            continue  # one is left out, the other was never in the demo set
        if line.startswith("One line a shape"):
            line = line.split(" `*`")[0]
            number = sum(map(len, LEFT_OUT.values()))
            kept += [*CHANGES.format(left_out=number, steps=STEPS).splitlines(), ""]
        kept.append(line)
    return "\n".join(kept) + "\n"


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder of furniture_demo.npz and LICENSES.md")
    parser.add_argument("--output", type=Path, default=furniture.FILE.parent)
    given = parser.parse_args()
    with np.load(given.source / "furniture_demo.npz", allow_pickle=False) as file:
        arrays = select({name: file[name] for name in file.files})
    buffer, named = io.BytesIO(), dict[str, Any](arrays)
    np.savez_compressed(buffer, **named)
    content = buffer.getvalue()
    text = credits((given.source / "LICENSES.md").read_text("utf-8"), arrays["ids"].tolist())
    given.output.mkdir(parents=True, exist_ok=True)
    write_atomic(given.output / furniture.FILE.name, lambda path: path.write_bytes(content))
    write_atomic(given.output / "LICENSES.md", lambda path: path.write_text(text, "utf-8"))
    for split, name in enumerate(("train", "test")):
        count = np.bincount(arrays["label"][arrays["split"] == split])
        print(name, dict(zip(arrays["class_names"].tolist(), count.tolist(), strict=True)))
    print(f"{len(arrays['ids'])} shapes, {len(content):,} bytes")


if __name__ == "__main__":
    main()
