"""The transformer block of the Point-MAE family: pre-norm attention and MLP with drop path."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyg_peft.backbones.contract import TokenStructures
from pyg_peft.backbones.layers.tokens import check_rates
from pyg_peft.errors import (
    check_channels,
    check_count,
    check_dtype,
    check_number,
    check_tensor,
    described,
)
from pyg_peft.geometry import Patches
from pyg_peft.symmetries import Symmetries
from pyg_peft.typing import Mask, Tokens


def attention_mask(mask: Mask | None, num_tokens: int) -> Tensor | None:
    r"""Return a mask of the keys that each row may attend to, from the mask of its patches.

    The patches are the last ``G`` tokens of a sequence. All tokens in front of them (summary token,
    prompts) belong to every cloud and are always valid.

    A cloud without valid tokens would give a softmax over nothing. Its rows attend to everything
    instead. Their values are finite, and callers discard them by the mask.

    Args:
        mask: True for valid patches; ``None`` if all are valid.
        num_tokens: Length of the sequence, at least ``G``.

    Shapes:
        mask (B, G); output (B, 1, 1, num_tokens), or ``None`` for ``None``.

    Raises:
        ValueError: If the sequence is shorter than the mask.
    """
    if mask is None:
        return None
    num_extra = num_tokens - mask.size(1)
    if num_extra < 0:
        raise ValueError(
            f"Expected 'x' to hold at least the {mask.size(1)} tokens of 'patches' "
            f"(got {num_tokens})"
        )
    if num_extra == 0:
        keys = mask | ~mask.any(dim=1, keepdim=True)
    else:
        keys = F.pad(mask, (num_extra, 0), value=True)
    return keys[:, None, None, :]


def check_heads(num_heads: Any, channels: int, name: str = "num_heads") -> int:
    """Return the number of heads; raise unless it divides ``channels``."""
    num_heads = check_count(num_heads, name)
    if channels % num_heads:
        raise ValueError(f"Expected '{name}' to divide {channels} (got {num_heads})")
    return num_heads


def _broadcasts(mask: Tensor, shape: tuple[int, ...]) -> bool:
    """Return whether a mask broadcasts to scores of this shape, with as many keys as the scores."""
    return (
        mask.dim() == len(shape)
        and mask.size(-1) == shape[-1]
        and all(size in (1, full) for size, full in zip(mask.shape, shape, strict=True))
    )


@Symmetries(permutation="equivariant", of="the samples", depends_on=("x",), independent="rows")
class DropPath(nn.Module):
    """Drop the residual branch of whole samples while training (stochastic depth).

    Args:
        drop_prob: Probability that the branch of a sample is dropped. The other branches are
            divided by ``1 - drop_prob``, so that the expectation is the same in training and
            evaluation.

    Shapes:
        x (B, ...); output the same.

    Symmetries:

    Raises:
        ValueError: If ``drop_prob`` is not in ``[0, 1)``.
    """

    def __init__(self, drop_prob: float = 0.0) -> None:
        check_rates(drop_prob=drop_prob)
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        check_tensor(x, "x", kind="float", values=False)
        if x.dim() == 0:
            raise ValueError("Expected 'x' to be of shape [B, ...] (got [])")
        if not self.training or self.drop_prob == 0.0:
            return x
        keep_prob = 1.0 - self.drop_prob
        keep = x.new_empty((x.size(0),) + (1,) * (x.dim() - 1)).bernoulli_(keep_prob)
        return x * keep.div_(keep_prob)

    def extra_repr(self) -> str:
        return f"drop_prob={self.drop_prob}"


@Symmetries(permutation="equivariant", of="the tokens", depends_on=("x",))
class Attention(nn.Module):
    r"""Apply multi-head self-attention with one joint projection for queries, keys and values.

    .. math::
        \mathrm{softmax}\!\left(\mathbf{Q}_h \mathbf{K}_h^\top / \sqrt{d}\right) \mathbf{V}_h,
        \qquad d = \mathrm{channels} / \mathrm{num\_heads}

    Args:
        channels: Width of a token.
        num_heads: Number of heads; it must divide ``channels``.

    Shapes:
        x (B, L, C); mask (B, 1, 1, L), true for keys that take part; output (B, L, C).

    Symmetries:

    Raises:
        ValueError: If ``num_heads`` does not divide ``channels``.
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        channels = check_count(channels, "channels")
        num_heads = check_heads(num_heads, channels)
        super().__init__()
        self.channels = channels
        self.num_heads = num_heads
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tokens, mask: Tensor | None = None) -> Tokens:
        weight = self.proj.weight
        check_tensor(x, "x", shape=("B", "L", self.channels), device=weight.device, values=False)
        check_dtype(x, weight)
        num_clouds, num_tokens, channels = x.shape
        if mask is not None:
            check_tensor(mask, "mask", kind="bool", device=x.device, values=False)
            shape = (num_clouds, self.num_heads, num_tokens, num_tokens)
            if not torch.compiler.is_compiling() and not _broadcasts(mask, shape):
                raise ValueError(
                    f"Expected 'mask' to be of shape {[num_clouds, 1, 1, num_tokens]} "
                    f"(got {list(mask.shape)})"
                )
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, channels // self.num_heads))
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, H, L, C / H]
        x = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x.transpose(1, 2).reshape(num_clouds, num_tokens, channels)
        return self.proj(x)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, num_heads={self.num_heads}"


@Symmetries(permutation="equivariant", of="the tokens", depends_on=("x",), independent="rows")
class Mlp(nn.Module):
    """Apply two linear layers with an exact (erf) GELU between them.

    Args:
        channels: Width of a token.
        hidden_channels: Width between the layers.

    Shapes:
        x (..., C); output (..., C).

    Symmetries:
    """

    def __init__(self, channels: int, hidden_channels: int) -> None:
        channels = check_count(channels, "channels")
        hidden_channels = check_count(hidden_channels, "hidden_channels")
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden_channels)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        check_channels(x, self.fc1.in_features)
        check_dtype(x, self.fc1.weight)
        return self.fc2(self.act(self.fc1(x)))


@Symmetries(
    permutation="equivariant",
    of="the tokens together with the mask",
    depends_on=("x",),
    note="Patches that ``patches.mask`` excludes influence no other token.",
)
class Block(nn.Module):
    r"""Apply a pre-norm transformer block.

    .. math::
        \mathbf{x} \leftarrow \mathbf{x} + \mathrm{attn}(\mathrm{norm}_1(\mathbf{x})), \qquad
        \mathbf{x} \leftarrow \mathbf{x} + \mathrm{mlp}(\mathrm{norm}_2(\mathbf{x}))

    The caller adds the position code before each block. ``structure`` and ``prior`` are not read
    here. They are arguments so that a module attached to the block receives them.

    Args:
        channels: Width of a token.
        num_heads: Number of heads; it must divide ``channels``.
        mlp_ratio: Hidden width of the MLP in units of ``channels``.
        drop_path: Probability that a cloud skips a residual branch while training.

    Shapes:
        x (B, L, C) with ``L >= G``, the patches last; output (B, L, C).

    Symmetries:

    Example:
        >>> import torch
        >>> from pyg_peft.backbones import Block
        >>> Block(channels=12, num_heads=3)(torch.randn(2, 5, 12)).shape
        torch.Size([2, 5, 12])
    """

    def __init__(
        self, channels: int, num_heads: int, *, mlp_ratio: float = 4.0, drop_path: float = 0.0
    ) -> None:
        channels = check_count(channels, "channels")
        hidden_channels = int(channels * check_number(mlp_ratio, "mlp_ratio", above=0))
        if hidden_channels < 1:
            raise ValueError(
                f"Expected 'mlp_ratio' to be at least 1 / channels, {1 / channels:g} "
                f"(got {mlp_ratio})"
            )
        check_rates(drop_path=drop_path)
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = Attention(channels, num_heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, hidden_channels)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        x: Tokens,
        patches: Patches | None = None,
        structure: TokenStructures | None = None,
        prior: Tensor | None = None,
    ) -> Tokens:
        weight = self.norm1.weight
        shape = ("B", "L", weight.numel())
        check_tensor(x, "x", shape=shape, device=weight.device, values=False)
        check_dtype(x, weight)
        if patches is not None and not isinstance(patches, Patches):
            raise TypeError(f"Expected 'patches' to be Patches or None (got {described(patches)})")
        mask = None if patches is None else attention_mask(patches.mask, x.size(1))
        x = x + self.drop_path(self.attn(self.norm1(x), mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def init_transformer_(module: nn.Module) -> None:
    """Initialize one module as in the Point-MAE family, for use with ``root.apply``.

    Weights of linear layers are drawn from a normal distribution with standard deviation 0.02,
    truncated at -2 and 2. Biases are zero; norms have weight one and bias zero.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        module.reset_parameters()


def drop_path_rates(drop_path: float, depth: int) -> list[float]:
    """Return ``depth`` drop-path probabilities that grow linearly from 0 to ``drop_path``."""
    return [drop_path * index / max(depth - 1, 1) for index in range(depth)]


def make_blocks(channels: int, depth: int, num_heads: int, drop_path: float) -> nn.ModuleList:
    """Build a stack of blocks with a drop-path probability that grows with depth."""
    depth = check_count(depth, "depth")
    check_rates(drop_path=drop_path)
    rates = drop_path_rates(drop_path, depth)
    return nn.ModuleList(Block(channels, num_heads, drop_path=rate) for rate in rates)


__all__ = ["Attention", "Block", "DropPath", "Mlp"]
