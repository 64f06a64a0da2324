"""The report of a comparison."""

from pathlib import Path

from pyg_peft.cli.comparing.experiment import Cell, Results
from pyg_peft.cli.comparing.summary import Outcome, Table, rank
from pyg_peft.cli.comparing.tables import cells, heading, notes, rank_text
from pyg_peft.cli.comparing.work import load_model, open_cell
from pyg_peft.cli.report.page import Page
from pyg_peft.cli.report.pictures import add_confusion, add_mistakes, add_per_class, add_prompts
from pyg_peft.training.comparing.answers import Mistake
from pyg_peft.tuners import METHODS
from pyg_peft.viz import plot_costs, plot_curves, plot_sizes, plot_tradeoff

_RESULTS = 7  # columns of the first table; those of sizes and costs are in a second one


def write_comparison(path: Path, table: Table, results: Results, reference: str) -> None:
    """Write the report of a finished comparison.

    Args:
        path: File to write.
        table: Outcomes by data set and method.
        results: The results behind them, for predictions and adapters.
        reference: Method to which the others are compared.
    """
    methods, sets = list(next(iter(table.values()))), list(table)
    page = Page(
        f"{len(methods)} method{'s' * (len(methods) > 1)} on {', '.join(sets)}",
        f"{', '.join(methods)}; backbone {results.experiment.training['backbone']}, "
        f"{results.experiment.training['epochs']} epochs.",
    )
    ranks = rank(table)
    if ranks is not None:
        page.heading("All data sets")
        rows = [["method", "mean rank"]]
        ordered = sorted(ranks.ranks.items(), key=lambda entry: entry[1])
        rows += [[name, f"{mean:.2f}"] for name, mean in ordered]
        page.table(rows)
        page.paragraph(rank_text(ranks))
    for data, own in table.items():
        _add_set(page, data, own, results, reference)
    page.write(path)


def _add_set(
    page: Page, data: str, own: dict[str, Outcome], results: Results, reference: str
) -> None:
    first = next(iter(own.values()))
    clouds, names = first.runs[0]["clouds"], first.runs[0]["classes"]
    page.heading(data)
    page.paragraph(
        f"{results.experiment.data[data]}: {len(names)} classes; {clouds['train']:,} clouds train, "
        f"{clouds['val']:,} validate, {clouds['test']:,} test"
        f"{', drawn anew by each seed' if first.runs[0]['resampled'] else ''}."
    )
    rows = [heading(reference), *(cells(one) for one in own.values())]
    page.table([row[:_RESULTS] for row in rows])
    page.table([[row[0], *row[_RESULTS:]] for row in rows])
    for line in notes(results, {data: own}):
        page.paragraph(line, note=True)
    page.heading("Accuracy and size", 3)
    page.figure(
        "Test accuracy against trained parameters without the head; the large marks are means.",
        plot_tradeoff(
            {
                name: (one.runs[0]["parameters"]["without_head"], one.accuracies)
                for name, one in own.items()
            }
        ),
    )
    page.figure(
        "Trained parameters, and the file of the adapter with its memory bank.",
        plot_sizes(
            {
                name: (
                    one.runs[0]["parameters"]["trainable"],
                    one.runs[0]["parameters"]["without_head"],
                    one.runs[0]["adapter_bytes"] + one.runs[0]["bank_bytes"],
                )
                for name, one in own.items()
            }
        ),
    )
    page.heading("Time and memory", 3)
    page.figure(
        "Training and validation of one run, mean over the seeds, and the memory that it takes "
        "above the loaded model and data.",
        plot_costs(
            {
                name: (_mean(one, "seconds"), _mean(one, "peak_mebibytes"))
                for name, one in own.items()
            }
        ),
    )
    page.heading("Learning curves", 3)
    page.figure(
        "Accuracy on validation clouds after each epoch at the chosen learning rate, mean over the "
        "seeds. Each run keeps its best epoch.",
        plot_curves(
            {name: one.curve("val_accuracy") for name, one in own.items()},
            ylabel="validation accuracy",
        ),
    )
    add_per_class(page, {name: one.confusion for name, one in own.items()}, names)
    _add_details(page, first, results)


def _add_details(page: Page, one: Outcome, results: Results) -> None:
    """Add what the first method does, in detail."""
    names = one.runs[0]["classes"]
    page.heading(f"{one.method} in detail")
    page.paragraph("The other methods' adapters are in the folder 'adapters'.", note=True)
    add_confusion(page, one.confusion, names)
    cell = Cell(one.data, one.method, 0, one.lr)
    data, _ = open_cell(results.experiment, cell)
    mistakes = [Mistake(**found) for found in one.tests[0]["mistakes"]]
    add_mistakes(page, mistakes, data.test_set, names)
    if hasattr(METHODS[one.method], "num_prompts"):
        model = load_model(results.experiment, results, cell, len(names))
        add_prompts(page, model, data.test_set, names)


def _mean(one: Outcome, name: str) -> float | None:
    found = one.of_runs(name)
    return None if found is None else found[0]


__all__ = ["write_comparison"]
