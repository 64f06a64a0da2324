"""The report of the demo: one self-contained HTML file that needs no network."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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
    *("method", "test accuracy", "macro", "validation", "trained", "without head", "of backbone"),
    *("file", "seconds now"),
)


@dataclass(frozen=True)
class Outcome:
    """The results of one method.

    Args:
        method: Name of the method.
        report: Report of the training.
        trained: Number of trained parameters.
        without_head: Number of trained parameters without the head.
        backbone: Number of parameters of the backbone without a head.
        file_bytes: Size of the adapter's file.
        bank_bytes: Size of the memory bank; 0 without one.
        seconds: Duration of this call. An interrupted or repeated run took additional time before.
    """

    method: str
    report: FitReport
    trained: int
    without_head: int
    backbone: int
    file_bytes: int
    bank_bytes: int
    seconds: float

    @property
    def val(self) -> Evaluation:
        """The evaluation of the kept epoch, which the demo always has."""
        if self.report.val is None:
            raise ValueError("Expected 'report' to be of a run that validated (got none)")
        return self.report.val

    def cells(self) -> list[str]:
        """Return the table row with the columns of :data:`HEADING`."""
        found = self.report.test or self.val
        bank = f" + {self.bank_bytes / 1024:,.0f}" if self.bank_bytes else ""
        return [
            self.method,
            f"{100 * found.accuracy:.1f} %",
            f"{100 * found.macro_accuracy:.1f} %",
            f"{100 * self.val.accuracy:.1f} %",
            f"{self.trained:,}",
            f"{self.without_head:,}",
            f"{100 * self.without_head / max(1, self.backbone):.1f} %",
            f"{self.file_bytes / 1024:,.0f}{bank} kB",
            f"{self.seconds:.0f}",
        ]


def as_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the table as lines of aligned text."""
    rows = [list(HEADING), *(outcome.cells() for outcome in outcomes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADING))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def write_report(
    path: Path,
    outcomes: Sequence[Outcome],
    figures: Mapping[str, tuple[str, "Figure"]],
    *,
    lead: str,
    notes: Sequence[str],
    commands: Sequence[str],
) -> None:
    """Write the report atomically.

    Args:
        path: File to write.
        outcomes: Outcomes of the methods that ran; the first is highlighted.
        figures: Caption and figure by heading.
        lead: Description under the title.
        notes: Paragraphs below the table.
        commands: Commands to suggest next.
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
    parts.append(f"<h2>Next</h2><pre>{lines}</pre></body></html>\n")
    content = "\n".join(parts)
    write_atomic(path, lambda temporary: temporary.write_text(content, encoding="utf-8"))


def embed(figure: "Figure") -> str:
    """Return a figure as a data URL."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140, bbox_inches="tight")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


__all__ = ["Outcome", "as_lines", "write_report"]
