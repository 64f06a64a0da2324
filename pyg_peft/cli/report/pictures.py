"""The pictures and tables about one model that reports share."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pyg_peft.backbones.contract import is_token_backbone
from pyg_peft.cli.report.page import Page
from pyg_peft.model import PeftModel
from pyg_peft.training.comparing.answers import Mistake
from pyg_peft.viz import plot_attention, plot_clouds, plot_confusion, prompt_attention

_MOST_CLASSES = 60  # a larger matrix would not be readable
_PROMPTED = 4  # clouds whose prompt attention is shown


def add_confusion(page: Page, confusion: Sequence[Sequence[int]], names: Sequence[str]) -> None:
    """Add the confusion matrix; only its largest errors if there are very many classes."""
    page.heading("What is taken for what", 3)
    counts = torch.tensor(confusion)
    if len(names) <= _MOST_CLASSES:
        page.figure(
            "Rows are true classes, columns predicted ones; numbers are counts.",
            plot_confusion(counts, [_short(name) for name in names]),
        )
        return
    wrong = counts - counts.diagonal().diag()
    rows: list[list[str]] = [["true", "predicted", "count"]]
    places: list[int] = wrong.flatten().argsort(descending=True)[:20].tolist()
    for place in places:
        true, predicted = divmod(place, len(names))
        rows.append([names[true], names[predicted], str(int(wrong[true, predicted]))])
    page.table(rows)


def add_per_class(
    page: Page, confusions: Mapping[str, Sequence[Sequence[int]]], names: Sequence[str]
) -> None:
    """Add a table with the share of correct answers in each class, a column for each method."""
    page.heading("Class by class", 3)
    tables = {name: torch.tensor(table) for name, table in confusions.items()}
    single = len(tables) == 1
    columns = ["recall", "precision"] if single else list(tables)
    rows = [["class", "clouds", *columns]]
    support = next(iter(tables.values())).sum(dim=1)
    for number, name in enumerate(names):
        row = [name, str(int(support[number]))]
        for table in tables.values():
            right = int(table[number, number])
            row.append(_share(right, int(table[number].sum())))
            if single:
                row.append(_share(right, int(table[:, number].sum())))
        rows.append(row)
    page.table(rows)
    what = "" if single else " by each method"
    page.paragraph(f"Per cent of the test clouds of a class that are right{what}.", note=True)


def add_mistakes(
    page: Page, mistakes: Sequence[Mistake], clouds: Any, names: Sequence[str]
) -> None:
    """Add pictures of the wrong answers with the highest probability.

    Args:
        page: The page.
        mistakes: The wrong answers, most confident first.
        clouds: Data set of the clouds, prepared as for evaluation.
        names: Names of the classes.
    """
    page.heading("The most confident mistakes", 3)
    if not mistakes:
        page.paragraph("There are none: every answer is right.")
        return
    titles = [
        f"{_short(names[one.true])}\ntaken for {_short(names[one.predicted])} "
        f"({100 * one.confidence:.0f} %)"
        for one in mistakes
    ]
    page.figure(
        "The true class, and below it the prediction with its probability. Look here first for "
        "wrong labels.",
        plot_clouds([clouds[one.row].pos for one in mistakes], titles),
    )


def add_prompts(page: Page, model: PeftModel, clouds: Any, names: Sequence[str]) -> None:
    """Add the attention of the prompts to the patches, if the method has prompts."""
    if not is_token_backbone(model.base) or len(clouds) == 0:
        return
    shown: list[Any] = [clouds[row] for row in _spread(clouds)]
    model = model.cpu()
    try:
        drawn = [(cloud.pos, *prompt_attention(model, cloud.pos)) for cloud in shown]
    except ValueError:
        return  # a method without prompts
    page.heading("Where the prompts look", 3)
    page.figure(
        "Attention of the prompts to the patches of some test clouds, mean over heads, prompts and "
        "prompted blocks; 1 is equal attention to all patches.",
        plot_attention(drawn, [_short(names[int(cloud.y)]) for cloud in shown]),
    )


def _spread(clouds: Any) -> list[int]:
    """Return rows of clouds of different classes."""
    labels = clouds.labels.tolist()
    first = {label: row for row, label in reversed(list(enumerate(labels)))}
    rows = [first[label] for label in sorted(first)]
    step = max(1, len(rows) // _PROMPTED)
    return rows[::step][:_PROMPTED]


def _short(name: str, most: int = 24) -> str:
    """Return a name that fits into a picture and is not read as a formula."""
    text = name if len(name) <= most else f"{name[: most - 1]}…"
    return text.replace("$", r"\$")


def _share(count: int, size: int) -> str:
    return f"{100 * count / size:.0f}" if size else ""


__all__ = ["add_confusion", "add_mistakes", "add_per_class", "add_prompts"]
