"""YAML for the command line, whose aliases may not grow into more than a file of options holds."""

from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

MODE = "pyg_peft_yaml"
# The longest configuration that --print_config writes has some hundred.
MOST_NODES = 100_000


def register() -> None:
    """Let jsonargparse read the mode :data:`MODE`: its own YAML, after a check."""
    read = get_loader("yaml")

    def load(text: str) -> Any:
        check_size(text)
        return read(text)

    set_loader(MODE, load, exceptions=(yaml.YAMLError,))


class TooLarge(yaml.YAMLError):
    """A text that would grow beyond any configuration when it is read."""


def check_size(text: str) -> None:
    """Raise unless a text, with each alias written out, has at most :data:`MOST_NODES` values.

    An alias stands for a whole value, and may stand in another one: nine lines of nine aliases each
    are a billion values. The nodes are counted as they are composed, before any is written out.
    A value that is a text may be read as YAML in its turn, and is looked at too.

    Raises:
        TooLarge: it has more, an alias stands within its own value, or lists and mappings are too
            deep to be read.
        YAMLError: it is no YAML.
    """
    try:
        for root in yaml.compose_all(text, yaml.SafeLoader):
            if root is not None and _count(root, {}, text) > MOST_NODES:
                raise TooLarge(
                    f"Expected at most {MOST_NODES:,} values, with each alias written out "
                    "(got more)"
                )
    except RecursionError as error:
        raise TooLarge("Expected lists and mappings of less depth (got too deep)") from error


def check_text(text: str) -> None:
    """As :func:`check_size`, for a text that need not be YAML."""
    if "*" in text:  # without an alias nothing grows
        try:
            check_size(text)
        except TooLarge:
            raise
        except yaml.YAMLError:
            return  # it is a text and stays one


def _count(node: yaml.Node, known: dict[int, int], text: str) -> int:
    """Values of a node of ``text`` with each alias written out; each node is visited once."""
    if id(node) in known:
        if known[id(node)] == 0:
            raise TooLarge("Expected no alias within its own value (got one)")
        return known[id(node)]
    known[id(node)] = 0  # until it is counted
    children: list[Any] = []
    if isinstance(node, yaml.ScalarNode):
        if node.value != text:  # a text that is nothing else, such as `blocks.**`, has been read
            check_text(node.value)
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        children = [part for pair in node.value for part in pair]
    known[id(node)] = 1 + sum(_count(child, known, text) for child in children)
    return known[id(node)]


__all__ = ["MODE", "MOST_NODES", "TooLarge", "check_size", "check_text", "register"]
