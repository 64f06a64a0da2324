"""The members that a token backbone must have for methods, memory banks, caches and commands.

A token backbone cuts clouds into patches, embeds each patch as a token, and runs a list of
transformer blocks over the tokens of a cloud. :class:`TokenBackbone` lists its members, each with
the reason for it. Any ``nn.Module`` with these members is a token backbone; no base class is
needed.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from pyg_peft.geometry import Patches, Structure

#: The call argument that may be computed once, and the path of the module that computes it. An
#: adapter on that module makes a cached value invalid.
FROZEN_INPUTS: Mapping[str, str] = {"tokens": "patch_embed"}


class TokenStructures(NamedTuple):
    """The neighborhood structures that all adapters share in one forward pass.

    Attributes:
        prompted: Over the rows ``[cls, prompts, patches]`` of each cloud; ``None`` if no block has
            prompts.
        plain: Over the rows ``[cls, patches]`` of each cloud.
    """

    prompted: Structure | None
    plain: Structure


@runtime_checkable
class TokenBackbone(Protocol):
    """Protocol of a backbone whose blocks process the tokens of patches.

    ``forward`` takes ``x``, ``pos``, ``batch`` and ``batch_size``. It also takes these arguments by
    name: ``patches`` and ``tokens`` replace what it would compute; ``structure`` and ``prior`` are
    passed to every block by name, together with ``patches``. Methods change these arguments around
    the backbone and around its blocks. A block ignores the arguments that it does not need.
    """

    #: Width of a token. Components are built for this width.
    embed_dim: int
    #: The blocks, in order. A method places its components on them by number, and on the children
    #: that each block shares with :class:`~pyg_peft.backbones.Block`: ``norm1``, ``attn`` with
    #: ``proj``, ``norm2``, ``mlp`` with ``fc1`` and ``fc2``.
    blocks: nn.ModuleList
    #: The norm behind the last block. Point-PEFT trains its own copy of it.
    norm: nn.Module
    #: The module that embeds patches. An adapter on it makes cached tokens invalid.
    patch_embed: nn.Module

    def make_patches(
        self,
        pos: Any,
        batch: Any = None,
        batch_size: int | None = None,
        x: Any = None,
    ) -> Patches:
        """Cut clouds into patches. They do not change: caches keep them, adapters share them."""
        ...

    def embed(self, patches: Patches) -> Tensor:
        """Return the tokens of patches ``[B, G, C]`` before any position code; caches keep them."""
        ...

    def forward_query(self, patches: Patches, *, tokens: Tensor | None = None) -> Tensor:
        """Return one feature per cloud, ``[B, C]``, which fills and queries a memory bank."""
        ...


def is_token_backbone(base: nn.Module) -> bool:
    """Return whether a model has transformer blocks over tokens of a fixed width."""
    blocks = getattr(base, "blocks", None)
    has_blocks = isinstance(blocks, nn.ModuleList) and len(blocks) > 0
    return has_blocks and isinstance(getattr(base, "embed_dim", None), int)


def num_prefix_tokens(base: nn.Module) -> int:
    """Return the number of tokens in front of the patches, such as a summary token.

    The number is the backbone's attribute ``num_prefix_tokens``, or 1 without that attribute.
    """
    return int(getattr(base, "num_prefix_tokens", 1))


def frozen_part(
    base: nn.Module,
    call: Mapping[str, Any],
    *,
    leave_out: Collection[str] = (),
    make_query: bool = False,
) -> dict[str, Any]:
    """Compute the frozen inputs of a call to a token backbone: patches, tokens and query.

    Args:
        base: A token backbone, whose adapters are disabled.
        call: Arguments of the call by name; ``patches`` and ``tokens`` are used if they are given.
        leave_out: Names to leave out of the result, because an adapter changes them.
        make_query: Whether to compute the query.

    Raises:
        TypeError: If the base is not a token backbone.
    """
    if not is_token_backbone(base):
        raise TypeError(
            "Expected the model to be a token backbone, or its memory bank to name a module "
            f"(got {type(base).__name__}): nothing else has a part that is computed once"
        )
    backbone: Any = base
    patches, tokens = call.get("patches"), call.get("tokens")
    if patches is None:
        patches = backbone.make_patches(*(call.get(n) for n in ("pos", "batch", "batch_size", "x")))
    if tokens is None:
        tokens = backbone.embed(patches)
    part = {"patches": patches, "tokens": tokens}
    if make_query:
        part["query"] = backbone.forward_query(patches, tokens=tokens)
    return {name: value for name, value in part.items() if name not in leave_out}


__all__ = [
    "FROZEN_INPUTS",
    "TokenBackbone",
    "TokenStructures",
    "frozen_part",
    "is_token_backbone",
    "num_prefix_tokens",
]
