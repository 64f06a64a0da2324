"""The one place of the package that prints."""


def say(text: str = "") -> None:
    """Print a line at once, also when the output is a pipe."""
    print(text, flush=True)


__all__ = ["say"]
