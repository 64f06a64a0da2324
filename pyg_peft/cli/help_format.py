"""Format the help of a command, in which tables keep their lines."""

from jsonargparse import DefaultHelpFormatter  # pyright: ignore[reportPrivateImportUsage]


class TableHelpFormatter(DefaultHelpFormatter):
    """Wraps paragraphs, but not a text with indented lines, such as the list of data sources."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n  " not in text:
            return super()._fill_text(text, width, indent)
        return "\n".join(f"{indent}{line}" for line in text.splitlines())


__all__ = ["TableHelpFormatter"]
