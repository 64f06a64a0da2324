"""The three pictures at the end of the demo."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyg_peft.cli.weights import open_backbone
from pyg_peft.training.data import ShapeDataModule
from pyg_peft.training.fitting import FitReport
from pyg_peft.viz import plot_confusion, plot_curves, plot_patches


def draw_pictures(
    reports: Mapping[str, FitReport], data: ShapeDataModule, weights: str, seed: int, folder: Path
) -> list[Path]:
    """Learning curves, the first method's confusion matrix, and a cloud with its patch centers.

    Args:
        reports: of each method.
        data: the splits that they were trained on.
        weights: of the backbone, which says how it cuts clouds into patches.
        seed: as for ``open_backbone``.
        folder: receives the files.
    """
    first = next(iter(reports))
    curves = {name: report.curves["val_accuracy"] for name, report in reports.items()}
    figures = {
        "learning_curves.png": plot_curves(
            curves, ylabel="validation accuracy", title="Accuracy while tuning"
        )
    }
    found = reports[first].test or reports[first].val
    figures["confusion.png"] = plot_confusion(
        found.confusion, data.class_names, title=f"{first}: {found.count} unseen shapes"
    )
    base = open_backbone(weights, data.num_classes, {}, seed)
    item: Any = data.val_set[0]
    center = base.make_patches(item.pos).center[0]
    name = data.class_names[int(item.y)]
    figures["cloud.png"] = plot_patches(
        item.pos, center, title=f"{name}: {item.pos.size(0)} points, {len(center)} patches"
    )
    paths: list[Path] = []
    for file, figure in figures.items():
        paths.append(folder / file)
        figure.savefig(paths[-1])
    return paths


__all__ = ["draw_pictures"]
