"""The report of the demo: one self-contained HTML file that needs no network."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING

from pyg_peft.storage import write_atomic
from pyg_peft.training.fitting.run import FitReport
from pyg_peft.training.tasks.classification import Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; color: #222; background: #fff; margin: 0 auto;
       max-width: 60rem; padding: 2rem 1.2rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .5rem; }
p.lead { color: #555; margin-top: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; text-align: right; border-bottom: 1px solid #e4e4e4;
         white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { color: #555; font-weight: 600; }
tr.first td { font-weight: 600; background: #f1f6fa; }
img { max-width: 100%; height: auto; display: block; margin: .6rem 0; }
pre { background: #f6f6f6; padding: .8rem 1rem; overflow-x: auto; border-radius: 4px; }
"""
HEADING = (
    *("method", "test accuracy", "macro accuracy", "validation", "training time"),
    *("trained", "without head", "of backbone", "file"),
)


@dataclass(frozen=True)
class Run:
    """The results of one method with one seed.

    Args:
        report: Report of the training.
        trained: Number of trained parameters.
        without_head: Number of trained parameters without the head.
        backbone: Number of parameters of the backbone without a head.
        file_bytes: Size of the adapter's file.
        bank_bytes: Size of the memory bank; 0 without one.
        seconds: Duration of the training, with validation and the filling of the memory bank.
    """

    report: FitReport
    trained: int
    without_head: int
    backbone: int
    file_bytes: int
    bank_bytes: int
    seconds: float

    @property
    def val(self) -> Evaluation:
        """The evaluation of the kept epoch on validation shapes, which the demo always has."""
        if self.report.val is None:
            raise ValueError("Expected 'report' to be of a run that validated (got none)")
        return self.report.val

    @property
    def test(self) -> Evaluation:
        """The same on test shapes."""
        if self.report.test is None:
            raise ValueError("Expected 'report' to be of a run that was tested (got none)")
        return self.report.test

    def __str__(self) -> str:
        return (
            f"validation {100 * self.val.accuracy:.1f} %, test {100 * self.test.accuracy:.1f} %, "
            f"trained in {self.seconds:.0f} s"
        )


@dataclass(frozen=True)
class Outcome:
    """The results of one method.

    Args:
        method: Name of the method.
        runs: Results by seed; one or more.
    """

    method: str
    runs: Sequence[Run]

    @property
    def accuracy(self) -> float:
        """Mean test accuracy."""
        return mean(run.test.accuracy for run in self.runs)

    @property
    def seconds(self) -> float:
        """Mean duration of a training."""
        return mean(run.seconds for run in self.runs)

    @property
    def evaluation(self) -> Evaluation:
        """The sum of the evaluations on test shapes."""
        first, *others = [run.test for run in self.runs]
        for other in others:
            first += other
        return first

    @property
    def curve(self) -> list[float]:
        """Mean validation accuracy after each epoch."""
        curves = [run.report.curves["val_accuracy"] for run in self.runs]
        return [mean(values) for values in zip(*curves, strict=True)]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Numbers of trained parameters with and without the head, and of bytes on disk."""
        run = self.runs[0]
        return run.trained, run.without_head, run.file_bytes + run.bank_bytes

    def cells(self) -> list[str]:
        """Return the table row with the columns of :data:`HEADING`."""
        run = self.runs[0]
        bank = f" + {run.bank_bytes / 1024:,.0f}" if run.bank_bytes else ""
        return [
            self.method,
            _spread([run.test.accuracy for run in self.runs]),
            _spread([run.test.macro_accuracy for run in self.runs]),
            _spread([run.val.accuracy for run in self.runs]),
            f"{self.seconds:.0f} s",
            f"{run.trained:,}",
            f"{run.without_head:,}",
            f"{100 * run.without_head / max(1, run.backbone):.1f} %",
            f"{run.file_bytes / 1024:,.0f}{bank} kB",
        ]


def _spread(shares: Sequence[float]) -> str:
    """Return mean and standard deviation in per cent; one value has no deviation."""
    values = [100 * share for share in shares]
    deviation = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{deviation} %"


def as_lines(outcomes: Sequence[Outcome], width: int) -> list[str]:
    """Return the table as lines of aligned text.

    If the columns do not fit, the table is divided into several, each with the names of the
    methods.

    Args:
        outcomes: Outcomes of the methods.
        width: Number of characters of a line. A single column may need more.
    """
    rows = [list(HEADING), *(outcome.cells() for outcome in outcomes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADING))]
    blocks: list[list[int]] = [[0]]
    for column in range(1, len(HEADING)):
        needed = sum(widths[c] + 2 for c in blocks[-1]) + widths[column]
        if len(blocks[-1]) > 1 and needed > width:
            blocks.append([0])
        blocks[-1].append(column)
    lines: list[str] = []
    for block in blocks:
        lines += [""] if lines else []
        for row in rows:
            named, *others = block
            cells = [row[named].ljust(widths[named]), *(row[c].rjust(widths[c]) for c in others)]
            lines.append("  ".join(cells))
    return lines


def verdict(outcomes: Sequence[Outcome]) -> list[str]:
    """Return sentences that name the best method, and compare Point-PEFT with full fine-tuning."""
    if len(outcomes) < 2:
        return []
    best = max(outcomes, key=lambda outcome: outcome.accuracy)
    lines = [f"The highest mean test accuracy has {best.method}: {best.cells()[1]}."]
    named = {outcome.method: outcome for outcome in outcomes}
    if "point_peft" in named and "full_fine_tuning" in named:
        peft, full = named["point_peft"], named["full_fine_tuning"]
        pairs = zip(peft.runs, full.runs, strict=True)
        gains = [100 * (one.test.accuracy - two.test.accuracy) for one, two in pairs]
        error = f", standard error {stdev(gains) / len(gains) ** 0.5:.1f}" if len(gains) > 1 else ""
        gain = mean(gains)
        time = 100 * peft.seconds / max(full.seconds, 1e-9)
        share = 100 * peft.sizes[1] / max(1, full.sizes[1])
        lines.append(
            f"Point-PEFT is {abs(gain):.1f} points {'behind' if gain < 0 else 'above'} full "
            f"fine-tuning (paired by seed{error}). It takes {time:.0f} % of its training time and "
            f"trains {share:.1f} % of its parameters, heads left out."
        )
    return lines


def write_report(
    path: Path,
    outcomes: Sequence[Outcome],
    figures: Mapping[str, tuple[str, "Figure"]],
    *,
    lead: str,
    notes: Sequence[str],
    commands: Sequence[str],
    credits: Sequence[str],
) -> None:
    """Write the report atomically.

    Args:
        path: File to write.
        outcomes: Outcomes of the methods that ran; the first is highlighted.
        figures: Caption and figure by heading.
        lead: Description under the title.
        notes: Paragraphs below the table.
        commands: Commands to suggest next.
        credits: Authors and licenses of the shapes, a sentence and one line each.
    """
    rows = ["".join(f"<th>{html.escape(name)}</th>" for name in HEADING)]
    rows += ["".join(f"<td>{html.escape(c)}</td>" for c in o.cells()) for o in outcomes]
    classes = ["", ' class="first"', *[""] * len(outcomes)]
    table = "\n".join(f"<tr{c}>{row}</tr>" for c, row in zip(classes, rows, strict=False))
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>pyg-peft demo</title><style>{STYLE}</style></head><body>",
        f'<h1>pyg-peft demo</h1><p class="lead">{html.escape(lead)}</p>',
        f'<div class="scroll"><table>{table}</table></div>',
        *(f"<p>{html.escape(note)}</p>" for note in notes),
    ]
    for heading, (caption, figure) in figures.items():
        name, text = html.escape(heading), html.escape(caption)
        parts.append(f'<h2>{name}</h2><p>{text}</p><img alt="{name}" src="{embed(figure)}">')
    lines = html.escape("\n".join(commands))
    parts.append(f"<h2>Next</h2><pre>{lines}</pre>")
    about, *each = (html.escape(line) for line in credits)
    items = "".join(f"<li>{line}</li>" for line in each)
    parts.append(f"<h2>Credits</h2><p>{about}</p><ul>{items}</ul></body></html>\n")
    content = "\n".join(parts)
    write_atomic(path, lambda temporary: temporary.write_text(content, encoding="utf-8"))


def embed(figure: "Figure") -> str:
    """Return a figure as a data URL."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140, bbox_inches="tight")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


__all__ = ["Outcome", "Run", "as_lines", "verdict", "write_report"]
