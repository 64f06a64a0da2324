"""Learned tokens that are set before a cloud's own."""

import torch
from torch import Tensor, nn

from pyg_peft.errors import check_count, check_dtype, check_number, check_tensor
from pyg_peft.nn.bottleneck import Bottleneck
from pyg_peft.typing import Tokens


class PromptTokens(nn.Module):
    r"""Tokens that every cloud is given, after `"Visual Prompt Tuning"
    <https://arxiv.org/abs/2203.12119>`_.

    .. math::
        \mathbf{P} \in \mathbb{R}^{P \times C}, \quad \text{repeated for each of the } B
        \text{ clouds}

    A prompt changes the output of a transformer from the first step on: no identity at init.

    Args:
        num_prompts: number of tokens ``P``.
        channels: width of a token.
        std: standard deviation of the initial normal distribution. (default: ``0.02``)

    Shapes:
        - **input:** the number of clouds ``B``
        - **output:** ``[B, P, C]``, a view that shares memory between clouds

    Symmetries:
        Sees no cloud, so all of them trivially.

    Raises:
        ValueError: a size that is not positive; a negative ``std`` or ``batch_size``.
        TypeError: a size that is no number.

    Differences:
        The paper draws uniformly with a width taken from its patch size, which point tokens do not
        have; here a normal distribution of width 0.02.

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
        """Draw the tokens from a normal distribution."""
        nn.init.normal_(self.weight, std=self.std)

    def forward(self, batch_size: int) -> Tokens:
        """Return the tokens once for each of ``batch_size`` clouds."""
        batch_size = check_count(batch_size, "batch_size", least=0)
        return self.weight.expand(batch_size, -1, -1)  # [B, P, C]

    def extra_repr(self) -> str:
        return f"{self.num_prompts}, {self.channels}"


class PointPriorPrompt(nn.Module):
    r"""Prompt tokens that a prior from a memory bank moves, after `"Point-PEFT: Parameter-Efficient
    Fine-Tuning for 3D Pre-trained Models" <https://arxiv.org/abs/2310.03059>`_.

    .. math::
        \mathbf{P}'_b = \mathbf{P} + \mathbf{Z}_b + \mathbf{W}_{up} \,
        q(\mathbf{W}_{down} \mathbf{Z}_b + \mathbf{b}_{down}) + \mathbf{b}_{up},
        \qquad q(u) = u \, \sigma(1.702\, u)

    The last two terms are a :class:`Bottleneck` of scale 1 without dropout, applied to each row of
    the prior; the tokens do not pass it. :math:`\mathbf{Z}_b \in \mathbb{R}^{P \times C}` are the
    rows that :class:`~pyg_peft.nn.MemoryBank` returns for cloud *b*: its query, the weighted sum of
    its neighbors in the bank, and those neighbors, best first. Without a prior the tokens are
    returned unmoved. Tokens are drawn as in :class:`PromptTokens`. No identity at init: it is a
    prompt.

    Args:
        channels: width of a token.
        num_prompts: number of tokens ``P``, two more than the bank's ``top_k``. (default: ``10``)
        bottleneck_channels: width of the bottleneck that the prior passes. (default: ``8``)

    Shapes:
        - **input:** the number of clouds ``B``, prior ``[B, P, C]`` or ``None``
        - **output:** ``[B, P, C]``

    Symmetries:
        Clouds do not see each other. The prior is a function of the query alone, so the prompt has
        the symmetries of the query.

    Raises:
        ValueError: a size that is not positive; a prior of another shape than ``[B, P, C]``.
        TypeError: a size that is no integer; a prior of another dtype than the weights outside of
            autocast.

    Differences:
        The bottleneck starts at the identity (the authors draw both of its layers), and the prior
        comes as one tensor, not through lists of rows.

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
        """Draw the tokens and the bottleneck anew."""
        self.tokens.reset_parameters()
        self.bottleneck.reset_parameters()

    def forward(self, batch_size: int, prior: Tensor | None = None) -> Tokens:
        """Return the prompts of ``batch_size`` clouds, moved by ``prior`` if there is one."""
        tokens = self.tokens(batch_size)
        if prior is None:
            return tokens
        check_tensor(prior, "prior", shape=tokens.shape, values=False)
        check_dtype(prior, self.tokens.weight, "prior")
        return tokens + self.bottleneck(prior)  # [B, P, C]

    def extra_repr(self) -> str:
        return f"{self.channels}, num_prompts={self.num_prompts}"


__all__ = ["PointPriorPrompt", "PromptTokens"]
