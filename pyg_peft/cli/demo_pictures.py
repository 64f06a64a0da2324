"""The pictures of the demo."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyg_peft.cli.demo_report import Outcome
from pyg_peft.model import PeftModel
from pyg_peft.training.fitting.data_module import ShapeDataModule
from pyg_peft.viz import (
    plot_attention,
    plot_confusion,
    plot_curves,
    plot_patches,
    plot_sizes,
    prompt_attention,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Classes with parts that are easy to see; the first test shape of each is shown.
SHOWN = ("table", "mug", "coil", "cage")


def draw_pictures(
    outcomes: Sequence[Outcome], models: Mapping[str, PeftModel], data: ShapeDataModule
) -> dict[str, tuple[str, "Figure"]]:
    """Return the figures of the demo by heading, each with its caption.

    Args:
        outcomes: Outcomes of the methods that ran, starting with the one to show in detail.
        models: Models by method, at their best epoch.
        data: Splits on which the models were trained.
    """
    first = outcomes[0]
    curves = {o.method: o.report.curves["val_accuracy"] for o in outcomes}
    found = first.report.test or first.val
    sizes = {o.method: (o.trained, o.without_head, o.file_bytes + o.bank_bytes) for o in outcomes}
    figures: dict[str, tuple[str, Figure]] = {
        "Learning curves": (
            f"Accuracy on {len(data.val_set)} validation shapes after each epoch. The best epoch "
            "of each method is the one that is kept.",
            plot_curves(curves, ylabel="validation accuracy"),
        ),
        f"What {first.method} takes for what": (
            f"{found.count} test shapes that no method has seen; the counts are shapes.",
            plot_confusion(found.confusion, data.class_names),
        ),
        "What is trained and stored": (
            "All methods but the probe train the same head, which is most of what a small method "
            "trains. A memory bank counts with the file.",
            plot_sizes(sizes),
        ),
    }
    shapes = [_shape(data, name) for name in SHOWN if name in data.class_names]
    prompted = next((name for name in models if name == "point_peft"), None)
    if prompted is not None and shapes:
        clouds = [(item.pos, *prompt_attention(models[prompted], item.pos)) for item in shapes]
        figures["Where the prompts look"] = (
            "Attention of the prompts to the patches of four test shapes, mean over heads, prompts "
            "and prompted blocks: 1 is an even look at all patches.",
            plot_attention(clouds, [data.class_names[int(item.y)] for item in shapes]),
        )
    base: Any = models[first.method].base
    item: Any = shapes[0] if shapes else data.val_set[0]
    center = base.make_patches(item.pos).center[0]
    figures["What a backbone is given"] = (
        f"A cloud of {item.pos.size(0):,} points, cut into {len(center)} patches around sampled "
        "centers (black); each patch becomes a token.",
        plot_patches(item.pos, center, title=data.class_names[int(item.y)]),
    )
    return figures


def save_pictures(figures: Mapping[str, tuple[str, "Figure"]], folder: Path) -> list[Path]:
    """Save each figure as a PNG file named after its heading."""
    paths: list[Path] = []
    for heading, (_, figure) in figures.items():
        paths.append(folder / f"{heading.lower().replace(' ', '_')}.png")
        figure.savefig(paths[-1], dpi=140, bbox_inches="tight")
    return paths


def _shape(data: ShapeDataModule, name: str) -> Any:
    """Return the first test shape of a class, or a validation shape without a test set."""
    dataset: Any = data.test_set or data.val_set
    rows = (dataset.labels == data.class_names.index(name)).nonzero().flatten()
    return dataset[int(rows[0])]


__all__ = ["draw_pictures", "save_pictures"]
