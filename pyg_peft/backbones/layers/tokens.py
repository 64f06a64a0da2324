"""Helpers for tokens that encoders and decoders share: position codes, pooling, size checks."""

from collections.abc import Iterable, Mapping, Set
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pyg_peft.errors import check_count, check_number, described
from pyg_peft.typing import Mask, Tokens


def check_positive(**sizes: int) -> None:
    """Raise unless every size is an integer of at least one; the message names the argument."""
    for name, size in sizes.items():
        check_count(size, name)


def check_rates(**rates: float) -> None:
    """Raise unless every probability is in ``[0, 1)``; the message names the argument."""
    for name, rate in rates.items():
        check_number(rate, name, least=0, below=1)


def check_sequence(value: Any, name: str, *, fewest: int = 1) -> tuple[Any, ...]:
    """Return the elements of a sequence; raise unless it has at least ``fewest`` elements."""
    fits = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | Set)
    if not fits or getattr(value, "ndim", 1) == 0:
        raise TypeError(f"Expected '{name}' to be a sequence (got {described(value)})")
    items = tuple(value)
    if len(items) < fewest:
        elements = "element" if fewest == 1 else "elements"
        raise ValueError(
            f"Expected '{name}' to have at least {fewest} {elements} (got {len(items)})"
        )
    return items


def check_sizes(value: Any, name: str, *, least: int = 1, fewest: int = 1) -> tuple[int, ...]:
    """Return a sequence of integers; raise unless each is at least ``least``.

    Args:
        value: The sequence to check.
        name: Name of the argument in error messages.
        least: Smallest allowed integer.
        fewest: Smallest allowed number of elements.

    Example:
        >>> check_sizes([64, "128"], "channels")
        Traceback (most recent call last):
        ...
        TypeError: Expected 'channels[1]' to be an integer (got '128')
    """
    items = check_sequence(value, name, fewest=fewest)
    return tuple(
        check_count(item, f"{name}[{place}]", least=least) for place, item in enumerate(items)
    )


def check_levels(value: Any, name: str) -> tuple[tuple[int, ...], ...]:
    """Return the widths of the layers of each level; raise unless all are positive integers."""
    items = check_sequence(value, name)
    return tuple(check_sizes(item, f"{name}[{place}]") for place, item in enumerate(items))


class PositionEmbedding(nn.Sequential):
    """Compute the position code of a center with two linear layers, 3 to 128 to ``embed_dim``.

    The code is computed in the precision of the weights even under autocast, which would round
    positions.

    Args:
        embed_dim: Width of a token.

    Shapes:
        center (B, G, 3); output (B, G, C).
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, embed_dim))

    def forward(self, center: Tensor) -> Tensor:
        with torch.autocast(center.device.type, enabled=False):
            return super().forward(center.to(self.get_parameter("0.weight").dtype))


def prepend(token: Tensor, x: Tensor) -> Tensor:
    """Put a learned token ``[1, 1, C]`` in front of each cloud's tokens."""
    return torch.cat([token.expand(x.size(0), -1, -1).to(x.dtype), x], dim=1)


def add_position(x: Tokens, code: Float[Tensor, "B L C"], num_prefix: int = 1) -> Tokens:
    """Add position codes; extra tokens inserted after the first ``num_prefix`` get none.

    Args:
        x: Tokens ``[B, L + extra, C]``.
        code: Position codes of the first ``num_prefix`` tokens and of the patches.
        num_prefix: Number of the model's own tokens in front of the patches.
    """
    extra = x.size(1) - code.size(1)
    if extra:
        none = code.new_zeros(code.size(0), extra, code.size(2))
        code = torch.cat([code[:, :num_prefix], none, code[:, num_prefix:]], dim=1)
    return x + code


def max_valid(x: Tensor, mask: Mask | None) -> Tensor:
    """Return the maximum over each cloud's valid tokens, ``[B, G, C]`` to ``[B, C]``.

    The result is zero for a cloud without valid tokens.
    """
    if x.size(1) == 0:
        return x.new_zeros(x.size(0), x.size(2))
    if mask is None:
        return x.amax(dim=1)
    x = x.masked_fill(~mask.unsqueeze(-1), float("-inf")).amax(dim=1)
    return x.masked_fill(~mask.any(dim=1, keepdim=True), 0.0)


def zero_masked(x: Tensor, mask: Mask | None) -> Tensor:
    """Set masked tokens to zero, where the patches are the last tokens of each cloud."""
    if mask is None:
        return x
    keep = F.pad(mask, (x.size(1) - mask.size(1), 0), value=True)
    return x.masked_fill(~keep.unsqueeze(-1), 0.0)


def draw_tokens_(*tokens: nn.Parameter) -> None:
    """Initialize tokens with a fixed seed.

    They are equal on every machine, as adapters that leave them frozen require.
    """
    generator = torch.Generator().manual_seed(0)
    for token in tokens:
        drawn = torch.empty(token.shape)
        nn.init.trunc_normal_(drawn, std=0.02, generator=generator)
        token.data.copy_(drawn)


__all__ = [
    "PositionEmbedding",
    "add_position",
    "check_levels",
    "check_positive",
    "check_rates",
    "check_sequence",
    "check_sizes",
    "draw_tokens_",
    "max_valid",
    "prepend",
    "zero_masked",
]
