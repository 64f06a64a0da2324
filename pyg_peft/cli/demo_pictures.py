"""The pictures of the demo, and the authors of the shapes in them."""

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
SHOWN = ("chair", "lamp", "table", "person")


def draw_pictures(
    outcomes: Sequence[Outcome], models: Mapping[str, PeftModel], data: ShapeDataModule
) -> dict[str, tuple[str, "Figure"]]:
    """Return the figures of the demo by heading, each with its caption.

    Args:
        outcomes: Outcomes of the methods that ran, starting with the one to show in detail.
        models: Models of the first seed by method, at their best epoch.
        data: Splits of the first seed.
    """
    first = outcomes[0]
    count = first.evaluation.count // len(first.runs)
    of_seeds = f" of {len(first.runs)} seeds" if len(first.runs) > 1 else ""
    figures: dict[str, tuple[str, Figure]] = {
        "Learning curves": (
            f"Accuracy on validation shapes after each epoch{', mean' * bool(of_seeds)}{of_seeds}. "
            "The best epoch of each run is the one that is kept.",
            plot_curves({o.method: o.curve for o in outcomes}, ylabel="validation accuracy"),
        ),
        f"What {first.method} takes for what": (
            f"{count} test shapes that no method has seen; the counts are shapes"
            f"{', summed over the models' * bool(of_seeds)}{of_seeds}.",
            plot_confusion(first.evaluation.confusion, data.class_names),
        ),
        "What is trained and stored": (
            "All methods but the probe train the same head, which is most of what a small method "
            "trains. A memory bank counts with the file.",
            plot_sizes({o.method: o.sizes for o in outcomes}),
        ),
    }
    shapes: list[Any] = [data.test_set[row] for row in shown_rows(data)]  # pyright: ignore[reportOptionalSubscript]
    names = [data.class_names[int(item.y)] for item in shapes]
    if "point_peft" in models:
        model = models["point_peft"]
        clouds = [(item.pos, *prompt_attention(model, item.pos)) for item in shapes]
        figures["Where the prompts look"] = (
            "Attention of the prompts to the patches of four test shapes, mean over heads, prompts "
            "and prompted blocks: 1 is an even look at all patches.",
            plot_attention(clouds, names),
        )
    base: Any = models[first.method].base
    pos = shapes[0].pos
    center = base.make_patches(pos).center[0]
    figures["What a backbone is given"] = (
        f"A cloud of {pos.size(0):,} points, cut into {len(center)} patches around sampled "
        "centers (black); each patch becomes a token.",
        plot_patches(pos, center, title=names[0]),
    )
    return figures


def save_pictures(figures: Mapping[str, tuple[str, "Figure"]], folder: Path) -> list[Path]:
    """Save each figure as a PNG file named after its heading."""
    paths: list[Path] = []
    for heading, (_, figure) in figures.items():
        paths.append(folder / f"{heading.lower().replace(' ', '_')}.png")
        figure.savefig(paths[-1], dpi=140, bbox_inches="tight")
    return paths


def shown_rows(data: ShapeDataModule) -> list[int]:
    """Return the row of the first test shape of each class that is shown."""
    dataset: Any = data.test_set
    labels = dataset.dataset.labels
    return [int((labels == data.class_names.index(name)).nonzero()[0]) for name in SHOWN]


def credits_of(data: ShapeDataModule) -> list[str]:
    """Return title, author and license of each shape that is shown."""
    dataset: Any = data.test_set
    shapes = dataset.dataset
    lines: list[str] = []
    for row in shown_rows(data):
        title, creator, number = (shapes.field(k)[row] for k in ("title", "creator", "licence"))
        name, address = (shapes.fields[k][number] for k in ("licence_names", "licence_urls"))
        lines.append(f'"{title}" by {creator}, {name} ({address})')
    return lines


__all__ = ["SHOWN", "credits_of", "draw_pictures", "save_pictures", "shown_rows"]
