"""A YAML loader for the command line that limits the size of values after alias expansion."""

from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

MODE = "pyg_peft_yaml"
# The longest configuration that --print_config writes has a few hundred values.
MOST_NODES = 100_000


def register() -> None:
    """Register the jsonargparse mode :data:`MODE`: its own YAML loader after a size check."""
    read = get_loader("yaml")

    def load(text: str) -> Any:
        check_size(text)
        return read(text)

    set_loader(MODE, load, exceptions=(yaml.YAMLError,))


class TooLarge(yaml.YAMLError):
    """Raised for a text that would become larger than any configuration when it is parsed."""


def check_size(text: str) -> None:
    """Raise unless a text has at most :data:`MOST_NODES` values after alias expansion.

    An alias represents a whole value and may be part of another value: nine lines of nine aliases
    each are a billion values. Nodes are counted after composition, before any alias is expanded. A
    string value may itself be parsed as YAML, so it is checked too.

    Raises:
        TooLarge: If the text has more values, if an alias is part of its own value, or if lists and
            mappings are nested too deeply.
        YAMLError: If the text is not YAML.
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
    """Apply :func:`check_size` to a text that need not be YAML."""
    if "*" in text:  # only aliases can grow
        try:
            check_size(text)
        except TooLarge:
            raise
        except yaml.YAMLError:
            return  # not YAML, so it remains a plain string


def _count(node: yaml.Node, known: dict[int, int], text: str) -> int:
    """Return the number of values of a node of ``text`` after alias expansion.

    Each node is visited once.
    """
    if id(node) in known:
        if known[id(node)] == 0:
            raise TooLarge("Expected no alias within its own value (got one)")
        return known[id(node)]
    known[id(node)] = 0  # marks a node that is being counted
    children: list[Any] = []
    if isinstance(node, yaml.ScalarNode):
        if node.value != text:  # a text that is only this scalar, such as `blocks.**`, is parsed
            check_text(node.value)
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        children = [part for pair in node.value for part in pair]
    known[id(node)] = 1 + sum(_count(child, known, text) for child in children)
    return known[id(node)]


__all__ = ["MODE", "MOST_NODES", "TooLarge", "check_size", "check_text", "register"]
