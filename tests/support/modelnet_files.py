"""A small raw tree of ModelNet10, which PyG's own ``process()`` reads."""

from pathlib import Path

OFF = "OFF\n4 4 0\n0 0 0\n{a} 0 0\n0 {b} 0\n0 0 1\n3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n"

NAMES = ("bathtub", "bed", "chair", "desk", "dresser", "monitor", "night_stand", "sofa", "table")


def write_modelnet(root: Path, num_train: int = 3) -> Path:
    """Write ten classes of tetrahedra, with ``num_train`` and one for testing each, as unpacked."""
    for width, name in enumerate((*NAMES, "toilet"), start=1):
        for split, count in (("train", num_train), ("test", 1)):
            folder = root / "raw" / name / split
            folder.mkdir(parents=True)
            for number in range(count):
                text = OFF.format(a=width, b=1 + number)
                (folder / f"{name}_{number:04d}.off").write_text(text)
    return root


__all__ = ["NAMES", "write_modelnet"]
