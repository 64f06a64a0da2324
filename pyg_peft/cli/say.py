"""The one place of the package that prints."""

import logging
import sys


def say(text: str = "") -> None:
    """Print a line at once, also when the output is a pipe.

    What a terminal would act on is printed as its escape; a new line is kept.
    """
    encoding = sys.stdout.encoding or "utf-8"
    safe = printable(text, keep="\n").encode(encoding, "backslashreplace").decode(encoding)
    print(safe, flush=True)


def complain(text: str) -> None:
    """Write lines to the error stream, with the same care as :func:`say`."""
    sys.stderr.write(printable(text, keep="\n") + "\n")


def printable(text: object, keep: str = "") -> str:
    r"""A text with an escape for each character that a terminal would not print but act on.

    Names of files, and whatever else comes from a file, may hold such characters: they color,
    move and overwrite what is on the screen, or are no characters at all.

    Args:
        text: anything; ``str`` of it is taken.
        keep: characters that stay as they are.

    Example:
        >>> printable("chair\x1b[2J.ply")
        'chair\\x1b[2J.ply'
    """
    return "".join(
        character
        if character.isprintable() or character in keep
        else character.encode("unicode_escape").decode()
        for character in str(text)
    )


class PrintableFormatter(logging.Formatter):
    """Messages of the library on the error stream, with the same care as :func:`say`."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n")


__all__ = ["PrintableFormatter", "complain", "printable", "say"]
