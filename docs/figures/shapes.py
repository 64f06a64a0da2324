"""Draw the picture of the first page: shapes that ship with the package.

python docs/figures/shapes.py
"""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from pyg_peft.datasets import NpzShapes

CLASSES = ("chair", "sofa", "table", "bed", "lamp", "plant", "vessel", "person")


def main() -> None:
    shapes: Any = NpzShapes.furniture("train")
    labels = [shapes.class_names[label] for label in shapes.labels.tolist()]
    figure = plt.figure(figsize=(12, 2.2))
    for place, name in enumerate(CLASSES):
        pos = shapes[labels.index(name)].pos
        axes: Any = figure.add_subplot(1, len(CLASSES), place + 1, projection="3d")
        axes.scatter(*pos.T, c=pos[:, 2], s=2, cmap="viridis", linewidths=0, clip_on=False)
        axes.set_title(name, fontsize=11)
        axes.set_axis_off()
        axes.set_box_aspect((1, 1, 1), zoom=1.35)
        axes.view_init(18, -60)
        for limit in (axes.set_xlim, axes.set_ylim, axes.set_zlim):
            limit(-0.85, 0.85)
    figure.subplots_adjust(left=0, right=1, bottom=0, top=0.88, wspace=0)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110, facecolor="white")


if __name__ == "__main__":
    main()
