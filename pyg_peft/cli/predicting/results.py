"""The results of ``pyg-peft predict``: lines of text, JSON or CSV, on the terminal or in a file."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from pyg_peft.cli.say import printable, say
from pyg_peft.storage import write_atomic

FORMATS = ("text", "json", "csv")


@dataclass(frozen=True)
class Result:
    """The result of one file, in each of the formats.

    Args:
        text: One line.
        entry: JSON-able values by name.
        row: Values of the columns.
    """

    text: str
    entry: dict[str, Any]
    row: list[Any]


class Results:
    """Collects results and writes them.

    Lines of text for the terminal are printed at once. Everything else is written at the end, so
    that a command that fails writes nothing.

    Args:
        form: One of :data:`FORMATS`.
        output: The file; ``None`` for the terminal.
        columns: Names of the columns of CSV.
    """

    def __init__(self, form: str, output: Path | None, columns: Sequence[str]) -> None:
        self.form = form
        self.output = output
        self.columns = columns
        self.kept: list[Result] = []

    def add(self, result: Result) -> None:
        """Take the next result."""
        if self.form == "text" and self.output is None:
            with tqdm.external_write_mode():  # a progress bar gives way
                say(result.text)
        else:
            self.kept.append(result)

    def finish(self) -> None:
        """Write what was not printed yet."""
        if self.form == "text" and self.output is None:
            return
        text, output = self._text(), self.output
        if output is None:
            say(text.removesuffix("\n"))
            return
        # A name of a file may hold bytes that are no characters.
        write_atomic(output, lambda path: path.write_bytes(text.encode("utf-8", "surrogateescape")))
        say(f"{len(self.kept):,} results: {output}")

    def _text(self) -> str:
        if self.form == "json":
            lines = ",\n".join(json.dumps(result.entry) for result in self.kept)
            return f"[\n{lines}\n]\n" if lines else "[]\n"
        if self.form == "text":
            return "".join(f"{result.text}\n" for result in self.kept)
        stream = io.StringIO()
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(self.columns)
        table.writerows(result.row for result in self.kept)
        return stream.getvalue()


def find_format(form: str | None, output: str | None) -> str:
    """Return the format of the results, by default that of the output's extension.

    Raises:
        ValueError: If it is not one of :data:`FORMATS`, or the extension is that of another.
    """
    if form is not None and form not in FORMATS:
        raise ValueError(f"Expected 'format' to be one of {', '.join(FORMATS)} (got {form!r})")
    ending = "" if output is None else Path(output).suffix.lower().removeprefix(".")
    named = ending if ending in ("json", "csv") else None
    if form is not None and named is not None and form != named:
        raise ValueError(f"Expected 'format' to be that of '{output}' (got {form!r})")
    return form or named or "text"


def check_output(output: str | None, paths: Sequence[Path]) -> Path | None:
    """Return the path of the output after checks that hold for files and for folders.

    Raises:
        ValueError: If its folder does not exist, or it is one of the input files.
    """
    if output is None:
        return None
    path = Path(output)
    if not path.parent.is_dir():
        raise ValueError(
            f"Expected 'output' to be in a folder that exists (got '{output}', and no folder "
            f"'{path.parent}')"
        )
    if path.exists() and any(path.samefile(given) for given in paths):
        raise ValueError(f"Expected 'output' to be none of the input files (got '{output}')")
    return path


def check_file(output: Path | None, *, overwrite: bool) -> None:
    """Raise ``ValueError`` if the output is a folder, or a file that may not be overwritten."""
    if output is None or not output.exists():
        return
    if output.is_dir():
        raise ValueError(f"Expected 'output' to be a file (got the folder '{output}')")
    if not overwrite:
        raise ValueError(
            f"Expected 'output' to be a new file (got '{output}', which exists): "
            "--overwrite true replaces it"
        )


def result_of(path: Path, row: Tensor, class_names: Sequence[str], top: int) -> Result:
    """Return the result of a file from the probabilities of its classes ``[K]``."""
    # The shortest decimals that are the same in float32.
    values = [float(str(value)) for value in row.numpy()]
    label = class_names[int(row.argmax())]
    named = (f"{class_names[n]} {100 * values[n]:.1f} %" for n in _best(row, top))
    entry = {
        "path": str(path),
        "label": label,
        "probabilities": dict(zip(class_names, values, strict=True)),
    }
    # One line for each file, whatever its name.
    text = printable(f"{path}   {'   '.join(named)}")
    return Result(text, entry, [str(path), label, max(values), *values])


def result_of_points(
    path: Path, output: Path, counts: Tensor, class_names: Sequence[str], top: int
) -> Result:
    """Return the result of a file from the number of its points in each class ``[K]``."""
    total, values = int(counts.sum()), [int(count) for count in counts]
    named = (f"{class_names[n]} {100 * values[n] / total:.1f} %" for n in _best(counts, top))
    entry = {
        "path": str(path),
        "output": str(output),
        "points": total,
        "points_by_class": dict(zip(class_names, values, strict=True)),
    }
    text = printable(f"{path}   {output}   {total:,} points   {'   '.join(named)}")
    return Result(text, entry, [str(path), str(output), total, *values])


def _best(values: Tensor, top: int) -> list[int]:
    return values.topk(min(top, values.numel())).indices.tolist()


__all__ = [
    "FORMATS",
    "Result",
    "Results",
    "check_file",
    "check_output",
    "find_format",
    "result_of",
    "result_of_points",
]
