"""Prompts: learned tokens that are prepended to the tokens of a cloud."""

import torch
from torch import Tensor, nn

from pyg_peft.errors import check_count, check_dtype, check_number, check_tensor
from pyg_peft.nn.bottleneck import Bottleneck
from pyg_peft.symmetries import Symmetries
from pyg_peft.typing import Tokens


@Symmetries(permutation="invariant", depends_on=(), note="Has all symmetries trivially.")
class PromptTokens(nn.Module):
    r"""Learned tokens shared by all clouds, after `"Visual Prompt Tuning"
    <https://arxiv.org/abs/2203.12119>`_.

    .. math::
        \mathbf{P} \in \mathbb{R}^{P \times C}, \quad \text{repeated for each of the } B
        \text{ clouds}

    A prompt changes the output of a transformer from the first step on: no identity at init.

    Args:
        num_prompts: Number of tokens ``P``.
        channels: Width of a token.
        std: Standard deviation of the initial normal distribution. (default: ``0.02``)

    Shapes:
        - **input:** the number of clouds ``B``
        - **output:** ``[B, P, C]``, a view that shares memory between clouds

    Symmetries:

    Raises:
        ValueError: If a size is not positive, or ``std`` or ``batch_size`` is negative.
        TypeError: If a size is not a number.

    Differences:
        The paper uses a uniform distribution whose width depends on its patch size, which point
        tokens do not have; here a normal distribution of width 0.02.

    Example:
        >>> PromptTokens(10, 384)(4).shape
        torch.Size([4, 10, 384])
    """

    def __init__(self, num_prompts: int, channels: int, *, std: float = 0.02) -> None:
        num_prompts = check_count(num_prompts, "num_prompts")
        channels = check_count(channels, "channels")
        std = check_number(std, "std", least=0)
        super().__init__()
        self.num_prompts = num_prompts
        self.channels = channels
        self.std = std
        self.weight = nn.Parameter(torch.empty(num_prompts, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reinitialize the tokens from a normal distribution."""
        nn.init.normal_(self.weight, std=self.std)

    def forward(self, batch_size: int) -> Tokens:
        """Return the tokens once for each of ``batch_size`` clouds."""
        batch_size = check_count(batch_size, "batch_size", least=0)
        return self.weight.expand(batch_size, -1, -1)  # [B, P, C]

    def extra_repr(self) -> str:
        return f"{self.num_prompts}, {self.channels}"


@Symmetries(
    permutation="invariant",
    depends_on=("x",),
    given="the query",
    note=(
        "The prior is a function of the query alone, so the prompt has the symmetries of the query."
    ),
)
class PointPriorPrompt(nn.Module):
    r"""Prompt tokens shifted by a prior from a memory bank, after `"Point-PEFT: Parameter-Efficient
    Fine-Tuning for 3D Pre-trained Models" <https://arxiv.org/abs/2310.03059>`_.

    .. math::
        \mathbf{P}'_b = \mathbf{P} + \mathbf{Z}_b + \mathbf{W}_{up} \,
        q(\mathbf{W}_{down} \mathbf{Z}_b + \mathbf{b}_{down}) + \mathbf{b}_{up},
        \qquad q(u) = u \, \sigma(1.702\, u)

    The last two terms are a :class:`Bottleneck` of scale 1 without dropout, applied to each row of
    the prior but not to the tokens. :math:`\mathbf{Z}_b \in \mathbb{R}^{P \times C}` are the rows
    that :class:`~pyg_peft.nn.MemoryBank` returns for cloud *b*: its query, the weighted sum of its
    neighbors in the bank, and these neighbors, best first. Without a prior the tokens are returned
    unchanged. Tokens are initialized as in :class:`PromptTokens`. No identity at init, because it
    is a prompt.

    Args:
        channels: Width of a token.
        num_prompts: Number of tokens ``P``, two more than the bank's ``top_k``. (default: ``10``)
        bottleneck_channels: Width of the bottleneck that is applied to the prior. (default: ``8``)

    Shapes:
        - **input:** the number of clouds ``B``, prior ``[B, P, C]`` or ``None``
        - **output:** ``[B, P, C]``

    Symmetries:

    Raises:
        ValueError: If a size is not positive, or a prior has another shape than ``[B, P, C]``.
        TypeError: If a size is not an integer, or, outside of autocast, a prior has another dtype
            than the weights.

    Differences:
        The bottleneck starts as an identity (the authors initialize both of its layers randomly),
        and the prior is passed as one tensor, not as lists of rows.

    Example:
        >>> prompt = PointPriorPrompt(384, num_prompts=10)
        >>> prompt(2, prior=torch.randn(2, 10, 384)).shape
        torch.Size([2, 10, 384])
    """

    def __init__(self, channels: int, num_prompts: int = 10, bottleneck_channels: int = 8) -> None:
        super().__init__()
        self.tokens = PromptTokens(num_prompts, channels)
        self.channels = self.tokens.channels
        self.num_prompts = self.tokens.num_prompts
        self.bottleneck = Bottleneck(channels, bottleneck_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reinitialize the tokens and the bottleneck."""
        self.tokens.reset_parameters()
        self.bottleneck.reset_parameters()

    def forward(self, batch_size: int, prior: Tensor | None = None) -> Tokens:
        """Return the prompts of ``batch_size`` clouds, shifted by ``prior`` if given."""
        tokens = self.tokens(batch_size)
        if prior is None:
            return tokens
        check_tensor(prior, "prior", shape=tokens.shape, values=False)
        check_dtype(prior, self.tokens.weight, "prior")
        return tokens + self.bottleneck(prior)  # [B, P, C]

    def extra_repr(self) -> str:
        return f"{self.channels}, num_prompts={self.num_prompts}"


__all__ = ["PointPriorPrompt", "PromptTokens"]
