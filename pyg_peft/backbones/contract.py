"""What a token backbone is: the members that methods, banks, caches and commands rely on.

A token backbone cuts clouds into patches, embeds each patch as a token, and runs a list of
transformer blocks over the tokens of a cloud. :class:`TokenBackbone` lists its members, each with
the reason for it. Any ``nn.Module`` that has them is one; it need not be derived from a class.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from pyg_peft.geometry import Patches, Structure

#: The call argument that may be computed once, and the path of the module that computes it: an
#: adapter on that module makes the argument stale.
FROZEN_INPUTS: Mapping[str, str] = {"tokens": "patch_embed"}


class TokenStructures(NamedTuple):
    """The neighborhood structures of one forward, which all adapters in it share.

    Attributes:
        prompted: Over the rows ``[cls, prompts, patches]`` of each cloud; ``None`` if no block has
            prompts.
        plain: Over the rows ``[cls, patches]`` of each cloud.
    """

    prompted: Structure | None
    plain: Structure


@runtime_checkable
class TokenBackbone(Protocol):
    """A backbone whose blocks see the tokens of patches.

    ``forward`` takes ``x``, ``pos``, ``batch`` and ``batch_size``, and by name ``patches`` and
    ``tokens``, which replace what it would compute, and ``structure`` and ``prior``, which it hands
    to every block by name together with ``patches``. Methods change these arguments around the
    backbone and around its blocks; a block ignores those that it has no use for.
    """

    #: Width of a token. Components are made for it.
    embed_dim: int
    #: The blocks, in order. A method places its components on them by number.
    blocks: nn.ModuleList
    #: The module that embeds patches. An adapter on it makes cached tokens stale.
    patch_embed: nn.Module

    def make_patches(
        self,
        pos: Any,
        batch: Any = None,
        batch_size: int | None = None,
        x: Any = None,
    ) -> Patches:
        """Cut clouds into patches. They are frozen: caches keep them, and adapters share them."""
        ...

    def embed(self, patches: Patches) -> Tensor:
        """Return the tokens of patches ``[B, G, C]`` before any position code; caches keep them."""
        ...

    def forward_query(self, patches: Patches, *, tokens: Tensor | None = None) -> Tensor:
        """Return a feature per cloud ``[B, C]``, by which a memory bank is filled and queried."""
        ...


def is_token_backbone(base: nn.Module) -> bool:
    """Return whether a model has transformer blocks over tokens of one width."""
    blocks = getattr(base, "blocks", None)
    has_blocks = isinstance(blocks, nn.ModuleList) and len(blocks) > 0
    return has_blocks and isinstance(getattr(base, "embed_dim", None), int)


def num_prefix_tokens(base: nn.Module) -> int:
    """Return the number of tokens in front of the patches, such as a summary token.

    A backbone names it in ``num_prefix_tokens``; without that attribute it is one.
    """
    return int(getattr(base, "num_prefix_tokens", 1))


def frozen_part(
    base: nn.Module,
    call: Mapping[str, Any],
    *,
    leave_out: Collection[str] = (),
    make_query: bool = False,
) -> dict[str, Any]:
    """Compute what of a call to a token backbone is frozen: patches, tokens and query.

    Args:
        base: A token backbone, whose adapters are disabled.
        call: Its arguments by name; ``patches`` and ``tokens`` are taken over if they are given.
        leave_out: Names that are not returned, because an adapter changes them.
        make_query: Whether the query is computed.

    Raises:
        TypeError: If the base is no token backbone.
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
