"""Convert the weights that the authors of Point-PEFT released to this library's names."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from pyg_peft.backbones.weights import map_point_mae_keys
from pyg_peft.errors import CheckpointError

_SHARED = "blocks.0.peft.adapter.adapter.attention"
_RULES: tuple[tuple[str, str], ...] = (
    (r"prompt_cor", r"peft.geometry.prompt_pos"),
    (r"blocks\.norm3\.(weight|bias)", rf"{_SHARED}.norm.\1"),
    (r"blocks\.attn1\.(qkv|proj)\.(weight|bias)", rf"{_SHARED}.\1.\2"),
    (r"blocks\.blocks\.(\d+)\.prompt_embeddings", r"blocks.\1.peft.prompt.prompt.tokens.weight"),
    (
        r"blocks\.blocks\.(\d+)\.cp_adapter\.(ln[12]\.\w+)",
        r"blocks.\1.peft.prompt.prompt.bottleneck.\2",
    ),
    (r"blocks\.blocks\.(\d+)\.adapter\.(ln[12]\.\w+)", r"blocks.\1.mlp.peft.adapter.component.\2"),
    (
        r"blocks\.blocks\.(\d+)\.adapter1\.(ln[12]\.\w+)",
        r"blocks.\1.peft.adapter.adapter.bottleneck.\2",
    ),
    (
        r"blocks\.blocks\.(\d+)\.out_transform\.0\.(\w+)",
        r"blocks.\1.peft.adapter.adapter.norm.\2",
    ),
)
# Backbone tensors that the authors train; all others are frozen.
_TRAINED = re.compile(
    r"cls_token|cls_pos|norm\.(weight|bias)|head\..+"
    r"|blocks\.\d+\.(attn\.proj|mlp\.fc1|mlp\.fc2|norm1|norm2)\.bias"
)


def split_point_peft(
    state: Mapping[str, Tensor],
    *,
    has_bank: bool = True,
    prompt_depth: int = 6,
    propagation_scale: float = 0.3,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split a released Point-PEFT state dict into a base and an adapter.

    Pass the first to :meth:`pyg_peft.backbones.PointMAE.from_checkpoint`. Pass the second to
    :meth:`pyg_peft.PeftModel.load_tensors`, on a model made with :meth:`PointPEFTConfig.authors`.

    Args:
        state: Tensors by the authors' names, as from
            :func:`pyg_peft.backbones.weights.read_state_dict`.
        has_bank: Whether the adapter gets the authors' memory bank, which is a separate file.
        prompt_depth: Number of prompted blocks. The released files hold prompts for every block.
            Those of later blocks, and the unused gate of each block, never influenced an output
            and are left out.
        propagation_scale: The constant that the authors multiply the propagation with. Here it is
            a trained gate.

    Returns:
        The base's tensors and the adapter's tensors, both under this library's names.

    Raises:
        CheckpointError: If a key belongs to neither. The message names all such keys.
    """
    base, rest = map_point_mae_keys(state)
    adapter = {key: tensor for key, tensor in base.items() if _TRAINED.fullmatch(key)}
    leftovers: list[str] = []
    depths: set[int] = set()
    for key, tensor in rest.items():
        block = re.match(r"blocks\.blocks\.(\d+)\.", key)
        depth = int(block.group(1)) if block else -1
        if block:
            depths.add(depth)
        prompted = depth < prompt_depth
        dead = {".ad_gate": True, ".prompt_embeddings": not prompted}
        dead[".cp_adapter"] = not (prompted and has_bank)
        if any(part in key and is_dead for part, is_dead in dead.items()):
            continue
        name = _rename(key, has_bank)
        if name is None:
            leftovers.append(key)
        else:
            adapter[name] = tensor
    if leftovers:
        raise CheckpointError(
            "Expected the keys of a released Point-PEFT model "
            f"(got besides {', '.join(sorted(leftovers))})"
        )
    gate = torch.full((1,), propagation_scale, dtype=torch.float64)  # rounded only when loaded
    for depth in depths:
        adapter[f"blocks.{depth}.peft.adapter.adapter.gate"] = gate
    return base, adapter


def _rename(key: str, has_bank: bool) -> str | None:
    for pattern, replacement in _RULES:
        if re.fullmatch(pattern, key):
            name = re.sub(pattern, replacement, key)
            if not has_bank:
                name = name.replace(".prompt.tokens.weight", ".prompt.weight")
            return name.replace(".ln1.", ".down.").replace(".ln2.", ".up.")
    return None


__all__ = ["split_point_peft"]
