"""Components of Point-PEFT in a token backbone: at the base, and at a block's input and output."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from pyg_peft.backbones.contract import TokenStructures, num_prefix_tokens
from pyg_peft.geometry import Patches, Structure, build_structure
from pyg_peft.geometry.layout import to_flat
from pyg_peft.nn import GeometryAwareAdapter, PointPriorPrompt, PromptTokens
from pyg_peft.tuners.engine.calls import by_name
from pyg_peft.tuners.engine.slot import Args, Component, Kwargs
from pyg_peft.tuners.tokens.order import insert_prompts, remove_prompts


class PromptGeometry(Component):
    """Computes the structures once per forward of the base and passes them to its blocks by name.

    A prompt is a node at a learned position. Neighborhoods are searched anew in each forward, since
    the positions change during training. The positions get gradients through the interpolation
    weights.

    Args:
        num_prompts: Number of prompts of a prompted block.
        k: Number of neighbors of a center.
        ratio: Number of centers per patch.
        num_interp: Number of centers that a patch interpolates from; ``None`` for all.
    """

    def __init__(
        self, num_prompts: int, *, k: int = 16, ratio: float = 0.5, num_interp: int | None = 3
    ) -> None:
        super().__init__()
        self.k = k
        self.ratio = ratio
        self.num_interp = num_interp
        self.prompt_pos = nn.Parameter(torch.empty(num_prompts, 3)) if num_prompts else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.prompt_pos is not None:
            nn.init.uniform_(self.prompt_pos, -0.5, 0.5)

    def before(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        call = dict(by_name(module, args, kwargs))
        if call.get("patches") is None:
            call["patches"] = module.make_patches(  # type: ignore[operator]
                call.get("pos"), call.get("batch"), call.get("batch_size"), call.get("x")
            )
        structure = call.get("structure")
        if structure is None:
            call["structure"] = self.structures(call["patches"], num_prefix_tokens(module))
        elif not isinstance(structure, TokenStructures):
            raise TypeError(
                "Expected 'structure' to be TokenStructures, one structure with the prompts and "
                f"one without (got {type(structure).__name__})"
            )
        return (), call

    def structures(self, patches: Patches, num_prefix: int = 1) -> TokenStructures:
        """Return the neighborhoods of a batch of patches, with and without prompts.

        Both have the same number of second-level centers, a share of the patches without prompts.
        Their rows are those of token arrays with ``num_prefix`` tokens before these nodes.
        """
        num_centers = math.ceil(self.ratio * patches.num_centers)
        plain = self._structure(patches.center, patches.mask, None, num_centers, num_prefix)
        if self.prompt_pos is None:
            return TokenStructures(None, plain)
        center, mask = patches.center, patches.mask
        num_prompts, num_clouds = self.prompt_pos.size(0), center.size(0)
        prompts = self.prompt_pos.to(center.dtype).expand(num_clouds, -1, -1)
        if mask is not None:
            mask = torch.cat([mask.new_ones(num_clouds, num_prompts), mask], dim=1)
        receives = torch.arange(num_prompts + center.size(1), device=center.device) >= num_prompts
        nodes = torch.cat([prompts, center], dim=1)
        return TokenStructures(
            self._structure(nodes, mask, receives, num_centers, num_prefix), plain
        )

    def _structure(
        self,
        pos: Tensor,
        mask: Tensor | None,
        receives: Tensor | None,
        num_centers: int,
        num_prefix: int,
    ) -> Structure:
        num_clouds, num_nodes = pos.shape[:2]
        flat, batch = to_flat(pos, mask)
        _assume_rows(flat)
        # The token arrays may have a cls token before each cloud's nodes.
        num_tokens = num_prefix + num_nodes
        rows = torch.arange(num_clouds * num_tokens, device=pos.device)
        rows, _ = to_flat(rows.view(num_clouds, num_tokens)[:, num_prefix:], mask)
        if receives is not None:
            receives, _ = to_flat(receives.expand(num_clouds, -1), mask)
        structure = build_structure(
            flat,
            batch,
            k=self.k,
            num_centers=num_centers,
            num_interp=self.num_interp,
            receivers=receives,
            batch_size=num_clouds,
            max_num=num_nodes,
        )
        _assume_rows(structure.center_index)
        return structure.to_rows(rows, num_clouds * num_tokens)

    def extra_repr(self) -> str:
        num_prompts = 0 if self.prompt_pos is None else self.prompt_pos.size(0)
        return (
            f"num_prompts={num_prompts}, k={self.k}, ratio={self.ratio}, "
            f"num_interp={self.num_interp}"
        )


def _assume_rows(rows: Tensor) -> None:
    """Declare to the compiler that a data-dependent number of rows is positive; it is checked."""
    if torch.compiler.is_compiling():
        torch._check(rows.size(0) > 0)


class PromptInput(Component):
    """Inserts prompts into a block's input, after the cls token, if any, and before the patches."""

    def __init__(self, prompt: PointPriorPrompt | PromptTokens) -> None:
        super().__init__()
        self.prompt = prompt

    def before(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        x, *rest = args
        prior = kwargs.get("prior")
        if isinstance(self.prompt, PromptTokens):
            prompts = self.prompt(x.size(0))
        elif prior is not None:
            prompts = self.prompt(x.size(0), prior)
        else:
            raise RuntimeError(
                "This adapter was made with a memory bank, and its block got no answer of it: "
                "call the PeftModel, which queries the bank, not the model inside"
            )
        return (insert_prompts(x, prompts, kwargs), *rest), kwargs

    def after(self, module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> Any:
        return remove_prompts(output, self.prompt.num_prompts, kwargs)


class GeometryBlock(Component):
    """Applies the geometry-aware adapter to a block's output, over the rows of the token array."""

    def __init__(self, adapter: GeometryAwareAdapter, num_prompts: int) -> None:
        super().__init__()
        self.adapter = adapter
        self.num_prompts = num_prompts

    def after(self, module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> Any:
        structures: TokenStructures | None = kwargs.get("structure")
        if structures is None:
            raise RuntimeError(
                "This block's adapter needs the structure of the whole cloud, which the model "
                "computes: call the model, not its blocks"
            )
        structure = structures.prompted if self.num_prompts else structures.plain
        x = self.adapter(output.flatten(0, 1), structure=structure)
        return x.view_as(output)


__all__ = ["GeometryBlock", "PromptGeometry", "PromptInput"]
