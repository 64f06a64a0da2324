"""Build a self-contained HTML page: no network, inline style, pictures within the file."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pyg_peft.cli.say import printable
from pyg_peft.storage import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
body { font: 16px/1.55 system-ui, "Segoe UI", sans-serif; color: #1b1b1b; background: #fff;
       margin: 0 auto; max-width: 72rem; padding: 1.6rem 1.2rem 4rem; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.6rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .3rem; }
p { max-width: 46rem; } p.lead { color: #4a4a4a; margin-top: 0; } p.note { color: #4a4a4a; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .94rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .55rem; text-align: right; border-bottom: 1px solid #dcdcdc;
         white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
th { color: #4a4a4a; font-weight: 600; white-space: normal; vertical-align: bottom;
     overflow-wrap: normal; }
.scroll + .scroll { margin-top: 1rem; }
@media (max-width: 800px) { table { font-size: .8rem; } th, td { padding: .3rem .38rem; } }
img { max-width: 100%; height: auto; display: block; margin: .6rem 0; }
"""


class Page:
    """Collects the parts of a page; every text is escaped.

    Args:
        title: Title of the page.
        lead: Sentences below the title.

    Example:
        >>> page = Page("Chairs <and> tables", "Two classes.")
        >>> page.table([["method", "accuracy"], ["lora", "91.0"]])
        >>> "Chairs &lt;and&gt; tables" in page.text()
        True
    """

    def __init__(self, title: str, lead: str = "") -> None:
        self._title = _escape(title)
        self._parts = [f"<h1>{self._title}</h1>"]
        if lead:
            self._parts.append(f'<p class="lead">{_escape(lead)}</p>')

    def heading(self, text: str, level: int = 2) -> None:
        """Add a heading."""
        self._parts.append(f"<h{level}>{_escape(text)}</h{level}>")

    def paragraph(self, text: str, *, note: bool = False) -> None:
        """Add a paragraph; a note is less dark."""
        kind = ' class="note"' if note else ""
        self._parts.append(f"<p{kind}>{_escape(text)}</p>")

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Add a table, whose first row is the heading. A wide one scrolls within its box."""
        lines = []
        for number, row in enumerate(rows):
            tag = "td" if number else "th"
            cells = "".join(f"<{tag}>{_escape(cell)}</{tag}>" for cell in row)
            lines.append(f"<tr>{cells}</tr>")
        self._parts.append(f'<div class="scroll"><table>{"".join(lines)}</table></div>')

    def figure(self, caption: str, figure: "Figure") -> None:
        """Add a picture with a sentence above it."""
        text = _escape(caption)
        self._parts.append(f'<p class="note">{text}</p><img alt="{text}" src="{_embed(figure)}">')

    def text(self) -> str:
        """Return the page as HTML."""
        head = (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{self._title}</title><style>{STYLE}</style></head><body>\n"
        )
        return head + "\n".join(self._parts) + "\n</body></html>\n"

    def write(self, path: Path) -> None:
        """Write the page, whole or not at all."""
        content = self.text()
        write_atomic(path, lambda file: file.write_text(content, encoding="utf-8"))


def _escape(text: str) -> str:
    return html.escape(printable(text))


def _embed(figure: "Figure") -> str:
    """Return a figure as a data URL."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


__all__ = ["Page"]
