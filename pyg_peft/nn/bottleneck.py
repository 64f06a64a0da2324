"""Bottleneck adapter, a narrow residual branch."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pyg_peft.errors import (
    check_channels,
    check_count,
    check_dtype,
    check_number,
    check_scale,
    check_tensor,
)
from pyg_peft.symmetries import Symmetries


@Symmetries(permutation="equivariant", of="the rows", depends_on=("x",), independent="rows")
def quick_gelu(x: Tensor) -> Tensor:
    r"""Return the sigmoid approximation of GELU, :math:`x \cdot \sigma(1.702\, x)`.

    Args:
        x: Any floating-point tensor.

    Shapes:
        input and output: any, equal.

    Symmetries:

    Example:
        >>> quick_gelu(torch.tensor([0.0, 1.0]))
        tensor([0.0000, 0.8458])
    """
    check_tensor(x, "x", kind="float", values=False)
    return x * torch.sigmoid(1.702 * x)


@Symmetries(
    permutation="equivariant",
    of="the rows",
    depends_on=("x",),
    independent="rows",
    note="Without dropout, how rows are batched does not matter in training either.",
)
class Bottleneck(nn.Module):
    r"""Adds a small correction to each row independently, after `"Parameter-Efficient Transfer
    Learning for NLP" <https://arxiv.org/abs/1902.00751>`_.

    .. math::
        \mathbf{x}'_i = \mathbf{x}_i + s \, \mathbf{W}_{up} \,
        q(\mathbf{W}_{down} \mathbf{x}_i + \mathbf{b}_{down}) + s \, \mathbf{b}_{up},
        \qquad q(u) = u \, \sigma(1.702\, u)

    Both layers (``down``, ``up``) have a bias; dropout is applied to the output of :math:`q`.

    Identity at init, because :math:`\mathbf{W}_{up} = \mathbf{0}` and :math:`\mathbf{b}_{up} =
    \mathbf{0}`; ``down`` is initialized like ``torch.nn.Linear``.

    Args:
        channels: Width of a row.
        bottleneck_channels: Width of the bottleneck, in ``[1, channels]``.
        scale: Multiplier of the correction. The authors of Point-PEFT use 0.7 after the MLP of a
            block and 1 elsewhere. (default: ``1.0``)
        dropout: Probability that an activation of the bottleneck is dropped in training, in
            ``[0, 1)``. (default: ``0.0``)

    Shapes:
        - **input:** x ``[..., C]``
        - **output:** ``[..., C]``

    Symmetries:

    Raises:
        ValueError: If a width or a probability is out of range, or rows have another width.
        TypeError: If a size is not a number, or rows are not a tensor or, outside of autocast, have
            another dtype than the weights.

    Differences:
        The authors initialize both layers alike, so their adapter is not an identity at the start;
        here the correction starts at zero.

    Example:
        >>> adapter = Bottleneck(384, 16)
        >>> x = torch.randn(5, 384)
        >>> torch.equal(adapter(x), x)
        True
        >>> sum(p.numel() for p in adapter.parameters())
        12688
    """

    def __init__(
        self,
        channels: int,
        bottleneck_channels: int,
        *,
        scale: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        channels = check_count(channels, "channels")
        bottleneck_channels = check_count(bottleneck_channels, "bottleneck_channels", most=channels)
        scale = check_scale(scale, "scale")
        dropout = check_number(dropout, "dropout", least=0, below=1)
        super().__init__()
        self.channels = channels
        self.bottleneck_channels = bottleneck_channels
        self.scale = scale
        self.down = nn.Linear(channels, bottleneck_channels)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.Linear(bottleneck_channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reinitialize ``down`` and set ``up`` to zero, which makes the module an identity."""
        self.down.reset_parameters()
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Float[Tensor, "*rows C"]) -> Float[Tensor, "*rows C"]:
        """Return ``x`` with the correction added."""
        check_channels(x, self.channels)
        check_dtype(x, self.down.weight)
        h = self.dropout(quick_gelu(self.down(x)))  # [..., bottleneck]
        # Scale the few channels of the bottleneck rather than the many channels of a row.
        up = self.up
        return x + F.linear(self.scale * h, up.weight, self.scale * up.bias)  # [..., C]

    def extra_repr(self) -> str:
        return f"{self.channels}, {self.bottleneck_channels}, scale={self.scale}"


__all__ = ["Bottleneck", "quick_gelu"]
