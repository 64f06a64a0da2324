"""Show a comparison as text, as CSV and as LaTeX."""

import csv
import io
import textwrap
from collections.abc import Sequence

from pyg_peft.cli.comparing.experiment import Results
from pyg_peft.cli.comparing.summary import Outcome, Table
from pyg_peft.cli.say import printable
from pyg_peft.training.comparing.statistics import Ranks

WIDTH = 80


def heading(reference: str) -> list[str]:
    """Return the names of the columns of :func:`cells`."""
    return [
        *("method", "test accuracy", "macro", f"less {reference}", "p", "validation"),
        *("learning rate", "trained", "without head", "file kB", "seconds", "peak MiB"),
    ]


def cells(one: Outcome) -> list[str]:
    """Return the row of a method, with the columns of :func:`heading`."""
    run = one.runs[0]
    counts, bank = run["parameters"], run["bank_bytes"]
    val = sum(record["val"]["accuracy"] for record in one.runs) / len(one.runs)
    return [
        one.method,
        percent(*one.of_tests("accuracy")),
        percent(*one.of_tests("macro_accuracy")),
        "" if one.less is None else f"{100 * one.less.mean:+.1f} ± {100 * one.less.wide:.1f}",
        "" if one.less is None else f"{one.less.p_value:.2f}",
        f"{100 * val:.1f}",
        f"{one.lr:g}{' (end)' if one.at_end else ''}",
        f"{counts['trainable']:,}",
        f"{counts['without_head']:,}",
        f"{run['adapter_bytes'] / 1024:,.0f}" + (f" + {bank / 1024:,.0f}" if bank else ""),
        plain(one.of_runs("seconds")),
        plain(one.of_runs("peak_mebibytes")),
    ]


def notes(results: Results, table: Table) -> list[str]:
    """Return what the columns mean, as sentences."""
    settings = results.experiment
    plan = settings.training
    seeds = f"{settings.seeds} seed{'s' * (settings.seeds > 1)}"
    lines = [
        f"Accuracies in per cent on test clouds, mean and standard deviation over {seeds}, of the "
        "learning rate and the epoch that were best on validation clouds.",
        "seconds: training and validation of one run at the chosen rate, with frozen features "
        "computed once; peak MiB: its memory above that of the loaded model and data.",
    ]
    if settings.seeds > 1:
        every = [one for own in table.values() for one in own.values()]
        anew = any(one.runs[0]["resampled"] for one in every)
        error = (
            "standard error corrected for overlapping training clouds (Nadeau and Bengio)"
            if anew
            else "standard error over seeds, which leaves out the choice of test clouds"
        )
        lines.append(f"less ...: paired difference to that method, {error}; p: of a t-test.")
    if plan["shots"] is not None:
        lines.append(f"Few-shot: {plan['shots']} training clouds per class.")
    return lines


def percent(mean: float, spread: float | None) -> str:
    """Return a share in per cent, with its standard deviation if there is one."""
    return f"{100 * mean:.1f}" + ("" if spread is None else f" ± {100 * spread:.1f}")


def plain(found: tuple[float, float | None] | None) -> str:
    """Return a mean and its standard deviation without decimals; empty without a number."""
    if found is None:
        return ""
    mean, spread = found
    return f"{mean:.0f}" + ("" if spread is None else f" ± {spread:.0f}")


def blocks(rows: Sequence[Sequence[str]], width: int = WIDTH) -> list[str]:
    """Return the lines of a table that fits into ``width`` columns.

    A wider table is broken into blocks of columns. Each begins with the first column.

    Args:
        rows: The heading and the rows, with the same number of cells.
        width: Largest length of a line. A single column that is wider is not cut.

    Example:
        >>> for line in blocks([["name", "length", "weight"], ["pole", "12", "3"]], width=15):
        ...     print(line)
        name  length
        pole      12
        <BLANKLINE>
        name  weight
        pole       3
    """
    texts = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in texts) for column in range(len(texts[0]))]
    groups: list[list[int]] = []
    for column in range(1, len(widths)):
        used = widths[0] + sum(2 + widths[other] for other in groups[-1]) if groups else width
        if used + 2 + widths[column] > width:
            groups.append([])
        groups[-1].append(column)
    lines: list[str] = []
    for columns in groups or [[]]:
        lines += [""] if lines else []
        for row in texts:
            line = row[0].ljust(widths[0])
            lines.append(line + "".join(f"  {row[c].rjust(widths[c])}" for c in columns))
    return [line.rstrip() for line in lines]


def rank_lines(ranks: Ranks) -> list[str]:
    """Return the mean ranks as lines of text, best first."""
    rows = [["method", "mean rank"]]
    rows += [[name, f"{rank:.2f}"] for name, rank in sorted(ranks.ranks.items(), key=_by_rank)]
    return [*blocks(rows), "", textwrap.fill(rank_text(ranks), WIDTH)]


def _by_rank(entry: tuple[str, float]) -> float:
    return entry[1]


def rank_text(ranks: Ranks) -> str:
    """Return what the tests of the ranks say, as a sentence."""
    return (
        f"Friedman's test over {ranks.num_sets} data sets: p = {ranks.p_value:.3f}. Mean ranks that"
        f" differ by more than {ranks.critical_difference:.2f} (Nemenyi, {ranks.alpha:g}) differ "
        "significantly."
    )


def as_csv(table: Table) -> str:
    """Return all runs, a line for each data set, method and seed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["data", "method", "seed", "learning_rate", "test_accuracy", "test_macro_accuracy"]
    names += ["val_accuracy", "val_loss", "kept_epoch", "trainable", "without_head", "frozen"]
    names += ["adapter_bytes", "bank_bytes", "seconds", "cpu_seconds", "peak_mebibytes"]
    names += ["train_clouds", "val_clouds", "test_clouds"]
    writer.writerow(names)
    for data, own in table.items():
        for method, one in own.items():
            for seed, (run, test) in enumerate(zip(one.runs, one.tests, strict=True)):
                found, counts, clouds = test["test"], run["parameters"], run["clouds"]
                row = [data, method, seed, one.lr, found["accuracy"], found["macro_accuracy"]]
                row += [run["val"]["accuracy"], run["val"]["loss"], run["kept_epoch"]]
                row += [counts[name] for name in ("trainable", "without_head", "frozen")]
                row += [run["adapter_bytes"], run["bank_bytes"], round(run["seconds"], 2)]
                row += [round(run["cpu_seconds"], 2), run["peak_mebibytes"]]
                row += [clouds[name] for name in ("train", "val", "test")]
                writer.writerow(row)
    return text.getvalue()


_TEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
)


def tex(text: str) -> str:
    r"""Return a text with LaTeX's own characters escaped.

    Example:
        >>> print(tex("point_peft, 5 %"))
        point\_peft, 5 \%
    """
    return printable(text).translate(_TEX)


def as_latex(table: Table, reference: str) -> str:
    """Return a table for a paper (package ``booktabs``): accuracy of each method on each set.

    The highest mean of each set is bold.
    """
    sets, methods = list(table), list(next(iter(table.values())))
    best = {
        name: max(one.of_tests("accuracy")[0] for one in own.values())
        for name, own in table.items()
    }
    lines = [
        "% Test accuracy in per cent, mean and standard deviation; parameters without the head.",
        f"% Differences to {tex(reference)} with standard errors: see results.csv and the report.",
        rf"\begin{{tabular}}{{lr{'r' * len(sets)}}}",
        r"\toprule",
        " & ".join(["method", "parameters", *(tex(name) for name in sets)]) + r" \\",
        r"\midrule",
    ]
    for method in methods:
        counts = table[sets[0]][method].runs[0]["parameters"]
        row = [tex(method), f"{counts['without_head']:,}"]
        for name in sets:
            mean, spread = table[name][method].of_tests("accuracy")
            text = f"{100 * mean:.1f}"
            text = rf"\textbf{{{text}}}" if mean == best[name] else text
            row.append(text + ("" if spread is None else rf" $\pm$ {100 * spread:.1f}"))
        lines.append(" & ".join(row) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


__all__ = [
    "as_csv",
    "as_latex",
    "blocks",
    "cells",
    "heading",
    "percent",
    "plain",
    "rank_lines",
    "rank_text",
    "tex",
]
