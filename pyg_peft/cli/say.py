"""The only module of the package that prints."""

import logging
import sys


def say(text: str = "") -> None:
    """Print a line immediately, even if the output is a pipe.

    Characters that would control a terminal are printed as escapes; newlines are kept.
    """
    encoding = sys.stdout.encoding or "utf-8"
    safe = printable(text, keep="\n").encode(encoding, "backslashreplace").decode(encoding)
    print(safe, flush=True)


def complain(text: str) -> None:
    """Write lines to the error stream, with control characters escaped as in :func:`say`."""
    sys.stderr.write(printable(text, keep="\n") + "\n")


def printable(text: object, keep: str = "") -> str:
    r"""Return a text with an escape for each character that would control a terminal.

    File names and other text from files may hold such characters. They can color, move and
    overwrite text on the screen, or may not be valid characters.

    Args:
        text: Any object; it is converted by ``str``.
        keep: Characters to keep unchanged.

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
    """Format log messages with control characters escaped as in :func:`say`."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n")


__all__ = ["PrintableFormatter", "complain", "printable", "say"]
