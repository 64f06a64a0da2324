"""Write the generated tables of README.md and of docs/symmetries.md.

    python docs/tables.py            # print the tables
    python docs/tables.py --write    # write them into their pages

README.md has the methods by backbone and task, made from ``METHODS`` and ``BACKBONES``, and one row
of accuracies, from ``docs/accuracy.md``. The other page has the symmetries that backbones and
components declare. Each table lies in its page between two comments, ``<!-- NAME: begin -->`` and
``<!-- NAME: end -->``.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pyg_peft.backbones
import pyg_peft.nn
from pyg_peft.backbones.contract import is_token_backbone
from pyg_peft.backbones.registry import BACKBONES
from pyg_peft.errors import PlacementError
from pyg_peft.symmetries import Symmetries
from pyg_peft.tuners import METHODS, MethodConfig

DOCS = Path(__file__).resolve().parent
README, ACCURACY = DOCS.parent / "README.md", DOCS / "accuracy.md"
SYMMETRIES = DOCS / "symmetries.md"
OVERVIEW = "## Accuracy, all sets"
TASK_SET = "psb"
SHOWN = ("full_fine_tuning", "linear_probe", "lora", "point_peft")


def fits(base: nn.Module, config: MethodConfig) -> bool:
    """Return whether a method finds its places in a model; the model is not changed."""
    try:
        config.sites(base)
    except PlacementError:
        return False
    return True


def placement(base: nn.Module, kind: type[MethodConfig]) -> str:
    """Return how a method is placed: ``"default"``, ``"targets"`` (layers are named) or ``""``."""
    config: Any = kind()
    if fits(base, config):
        return "default"
    if not hasattr(config, "target_modules"):
        return ""
    groups = [f"{name}.*" for name, child in base.named_children() if len(child._modules) > 0]
    # One group at a time: a method may fit some layers of a model and not others.
    named = (replace(config, target_modules=(group,)) for group in groups if group != "head.*")
    return "targets" if any(fits(base, config) for config in named) else ""


def families() -> dict[str, dict[str, nn.Module]]:
    """Return a model for each task, without memory for its tensors, by the shortest class name.

    Backbones of one folder of the package are a family.
    """
    found: dict[str, list[type[Any]]] = {}
    for kind in BACKBONES.values():
        found.setdefault(kind.__module__.rpartition(".")[0], []).append(kind)
    models: dict[str, dict[str, nn.Module]] = {}
    with torch.device("meta"):
        for kinds in found.values():
            name = min((kind.__name__ for kind in kinds), key=len)
            models[name] = {kind.task: kind(2) for kind in kinds}
    return dict(sorted(models.items(), key=lambda item: not _on_tokens(item[1])))


def _on_tokens(models: dict[str, nn.Module]) -> bool:
    return all(is_token_backbone(model) for model in models.values())


def methods_table() -> str:
    """Return the table of methods, backbones and tasks."""
    models = families()
    kinds = ["tokens" if _on_tokens(tasks) else "points" for tasks in models.values()]
    heads = [f"`{name}`<br>{kind}" for name, kind in zip(models, kinds, strict=True)]
    lines = [_row(["method", *heads]), _row(["---"] * (1 + len(heads)))]
    for name, config in METHODS.items():
        cells = [_cell(tasks, config) for tasks in models.values()]
        lines.append(_row([f"`{name}`", *cells]))
    return "\n".join(lines)


def _cell(tasks: dict[str, nn.Module], config: type[MethodConfig]) -> str:
    letters = {"default": "", "targets": ""}
    for task, base in sorted(tasks.items()):
        how = placement(base, config)
        if how:
            letters[how] += task[0].upper()
    named = f"({letters['targets']})" if letters["targets"] else ""
    return " ".join(part for part in (letters["default"], named) if part) or "–"


def accuracy_table() -> str:
    """Return the row of one data set on the page of accuracies, for the methods shown."""
    lines = ACCURACY.read_text().partition(OVERVIEW)[2].splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    column = table[0].index(TASK_SET)
    # The tables further down begin with a header of their own.
    found: dict[str, str] = {}
    for row in table:
        if len(row) == len(table[0]):
            found.setdefault(row[0], row[column])
    return "\n".join(
        [
            _row(["set", *(f"`{name}`" for name in SHOWN)]),
            _row(["---"] * (1 + len(SHOWN))),
            _row([f"`{TASK_SET}`", *(found[name] for name in SHOWN)]),
        ]
    )


def symmetries_table() -> str:
    """Return the table of what backbones, their layers and components declare."""
    heads = ["permutation", "translation", "rotation", "depends on", "local", "independent"]
    lines = [_row(["name", *heads]), _row(["---"] * (1 + len(heads)))]
    for package in (pyg_peft.backbones, pyg_peft.nn):
        for name in sorted(package.__all__):
            declared = vars(getattr(package, name)).get("symmetries")
            if isinstance(declared, Symmetries):
                lines.append(_row([f"`{name}`", *_claims(declared)]))
    return "\n".join(lines)


def _claims(declared: Symmetries) -> list[str]:
    order = declared.permutation or "no"
    order += f": {declared.of}" if declared.of != Symmetries(permutation=None).of else ""
    motions = ["yes" if holds else "no" for holds in (declared.translation, declared.rotation)]
    return [
        f"{order}, first point kept" if declared.first_point else order,
        *motions,
        ", ".join(f"`{name}`" for name in declared.depends_on) or "–",
        "–"
        if declared.reach is None
        else f"{declared.reach} hop{'s' if declared.reach > 1 else ''}",
        declared.independent,
    ]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


TABLES = {"methods": methods_table, "accuracy": accuracy_table, "symmetries": symmetries_table}
PAGES = {"methods": README, "accuracy": README, "symmetries": SYMMETRIES}


def insert(page: str, name: str, table: str) -> str:
    """Return the page with the table between the two comments of its name.

    Raises:
        ValueError: If the page lacks a comment.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, first, rest = page.partition(begin)
    _, last, after = rest.partition(end)
    if not first or not last:
        raise ValueError(f"Expected the page to hold {begin} and {end} (got one or none)")
    return f"{before}{begin}\n{table}\n{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the generated tables of the pages.")
    parser.add_argument("--write", action="store_true", help="write the pages")
    write = parser.parse_args().write
    for name, make in TABLES.items():
        table, page = make(), PAGES[name]
        if write:
            page.write_text(insert(page.read_text(), name, table))
        else:
            sys.stdout.write(f"{table}\n\n")


if __name__ == "__main__":
    main()
