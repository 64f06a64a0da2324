"""Linear layers applied to all points of a cloud, built as PyG's ``MLP``."""

from typing import Any

from torch_geometric.nn import MLP

from pyg_peft.errors import check_count


def shared_mlp(*channels: int, slope: float = 0.0, bias: bool = True) -> MLP:
    """Build an MLP with a linear layer, batch norm and activation for each pair of widths.

    Args:
        *channels: Widths, starting with that of the input.
        slope: Negative slope of the activation; 0 for ReLU.
        bias: Whether the linear layers have a bias.

    Example:
        >>> shared_mlp(3, 64, 128)
        MLP(3, 64, 128)
    """
    return MLP(_widths(channels), bias=bias, plain_last=False, **_activation(slope))


def scoring_mlp(
    *channels: int,
    dropout: float,
    last_dropout: float | None = None,
    slope: float = 0.0,
    first_bias: bool = True,
) -> MLP:
    """Build a head: :func:`shared_mlp` with dropout, and a plain linear layer at the end.

    Args:
        *channels: Widths, from that of the input to the number of classes.
        dropout: Dropout probability after each hidden layer.
        last_dropout: Dropout probability after the last hidden layer, instead of ``dropout``.
        slope: Negative slope of the activation; 0 for ReLU.
        first_bias: Whether the first linear layer has a bias.

    Example:
        >>> scoring_mlp(1024, 512, 256, 40, dropout=0.5)
        MLP(1024, 512, 256, 40)
    """
    rates = [dropout] * (len(channels) - 2)
    if rates and last_dropout is not None:
        rates[-1] = last_dropout
    bias = [first_bias, *[True] * (len(channels) - 2)]
    return MLP(_widths(channels), dropout=[*rates, 0.0], bias=bias, **_activation(slope))


def _widths(channels: tuple[int, ...]) -> list[int]:
    return [check_count(width, "channels") for width in channels]


def _activation(slope: float) -> dict[str, Any]:
    if slope:
        return {"act": "leaky_relu", "act_kwargs": {"negative_slope": slope}}
    return {"act": "relu"}


__all__ = ["scoring_mlp", "shared_mlp"]
