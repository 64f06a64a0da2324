"""The report of one run of ``fit``."""

from pathlib import Path
from typing import Any

from pyg_peft.cli.report.page import Page
from pyg_peft.cli.report.pictures import add_confusion, add_mistakes, add_per_class, add_prompts
from pyg_peft.cli.say import say
from pyg_peft.errors import MissingExtraError
from pyg_peft.model import PeftModel
from pyg_peft.training.comparing.answers import collect_answers
from pyg_peft.training.fitting.data_module import ShapeDataModule
from pyg_peft.training.fitting.run import FitReport
from pyg_peft.training.tasks.classification import ClassificationTask
from pyg_peft.viz import plot_curves, plot_sizes
from pyg_peft.viz.figure import style

REPORT = "report.html"
_MISTAKES = 8


def write_fit_report(
    report: FitReport, model: PeftModel, data: ShapeDataModule, folder: Path, run: dict[str, Any]
) -> None:
    """Write the report of a finished run, or print why there is none.

    Args:
        report: What ``fit`` returned.
        model: The trained model.
        data: The data module.
        folder: Folder of the run, which holds the adapter.
        run: Options of the command by name.
    """
    try:
        style()
    except MissingExtraError as error:
        say(f"no {REPORT} is written: {error}")
        return
    method = str(run["method"])
    page = Page(
        f"{method} on {run['data']}",
        f"{run['backbone_class']}, {run['backbone']}; epoch {report.epoch} is kept.",
    )
    _add_numbers(page, report, model, data, folder)
    _add_curves(page, report)
    found = report.test if report.test is not None else report.val
    names = data.class_names
    if hasattr(found, "confusion"):
        page.heading("Test clouds" if report.test is not None else "Validation clouds")
        table = found.confusion.tolist()
        add_confusion(page, table, names)
        add_per_class(page, {method: table}, names)
    if isinstance(data.task, ClassificationTask):
        _add_clouds(page, report, model, data)
    page.write(folder / REPORT)
    say(f"report: {folder / REPORT}")


def _add_numbers(
    page: Page, report: FitReport, model: PeftModel, data: ShapeDataModule, folder: Path
) -> None:
    rows = [["split", "clouds", "result"], ["train", f"{len(data.train_set):,}", ""]]
    for name, found, clouds in (
        ("validation", report.val, data.val_set),
        ("test", report.test, data.test_set),
    ):
        if found is not None and clouds is not None:
            rows.append([name, f"{len(clouds):,}", str(found)])
    page.table(rows)
    if report.test is None:
        page.paragraph("There is no test split: the result says nothing about other data.")
    counts = model.count_parameters()
    weights = folder / "adapter_model.safetensors"
    sizes = {path.name: path.stat().st_size for path in folder.glob("*.safetensors")}
    page.heading("Size")
    page.table(
        [
            ["trained", "without head", "frozen", "file kB", "bank kB"],
            [
                f"{counts.trainable:,}",
                f"{counts.without_head:,}",
                f"{counts.frozen:,}",
                f"{sizes.pop(weights.name) / 1024:,.0f}",
                f"{sum(sizes.values()) / 1024:,.0f}",
            ],
        ]
    )
    page.figure(
        "Trained parameters, and the file of the adapter without its memory bank.",
        plot_sizes({"adapter": (counts.trainable, counts.without_head, weights.stat().st_size)}),
    )


def _add_curves(page: Page, report: FitReport) -> None:
    page.heading("Learning curves")
    losses = {name: v for name, v in report.curves.items() if name.endswith("_loss")}
    shown = {"train_accuracy", "val_accuracy", report.chosen_by}
    others = {name: v for name, v in report.curves.items() if name in shown}
    for caption, curves in (("Loss by epoch.", losses), ("Metric by epoch.", others)):
        if curves:
            page.figure(caption, plot_curves(curves, ylabel=caption.split()[0].lower()))


def _add_clouds(page: Page, report: FitReport, model: PeftModel, data: ShapeDataModule) -> None:
    tested = report.test is not None
    clouds: Any = data.test_set if tested else data.val_set
    if not len(clouds):
        return
    loader = data.test_dataloader() if tested else data.val_dataloader()
    task: Any = data.task
    mistakes = collect_answers(task, model, loader).mistakes(_MISTAKES)
    add_mistakes(page, mistakes, clouds, data.class_names)
    add_prompts(page, model, clouds, data.class_names)


__all__ = ["REPORT", "write_fit_report"]
