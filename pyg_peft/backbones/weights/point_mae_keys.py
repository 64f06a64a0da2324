"""Translation of the published key names of Point-MAE to this library's."""

import re
from collections.abc import Mapping

from torch import Tensor

from pyg_peft.backbones.weights.reading import State, strip_prefix
from pyg_peft.errors import CheckpointError

_BLOCK = r"(\d+\.(?:norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(?:weight|bias))"
NORM = r"((?:weight|bias|running_mean|running_var|num_batches_tracked))"
# Published names of Point-MAE, and this library's. map_point_mae_keys splits `second_conv.0`.
_POINT_MAE_KEYS = (
    (r"encoder\.first_conv\.0\.(weight|bias)", r"patch_embed.stem.\1"),
    (rf"encoder\.first_conv\.1\.{NORM}", r"patch_embed.norm1.\1"),
    (r"encoder\.first_conv\.3\.(weight|bias)", r"patch_embed.lift.\1"),
    (r"encoder\.second_conv\.0\.bias", r"patch_embed.local_proj.bias"),
    (rf"encoder\.second_conv\.1\.{NORM}", r"patch_embed.norm2.\1"),
    (r"encoder\.second_conv\.3\.(weight|bias)", r"patch_embed.proj.\1"),
    (r"(pos_embed\.[02]\.(?:weight|bias))", r"\1"),
    (r"(cls_token|cls_pos)", r"\1"),
    (rf"blocks\.blocks\.{_BLOCK}", r"blocks.\1"),
    (r"(norm\.(?:weight|bias))", r"\1"),
    (r"cls_head_finetune\.([048]\.(?:weight|bias))", r"head.layers.\1"),
    (rf"cls_head_finetune\.([15])\.{NORM}", r"head.layers.\1.\2"),
    # this library's own names, as in a state dict of PointMAE
    (r"(patch_embed\.(?:stem|lift|local_proj|proj)\.(?:weight|bias))", r"\1"),
    (r"(patch_embed\.(?:global_proj|feature_stem)\.weight)", r"\1"),
    (rf"(patch_embed\.norm[12])\.{NORM}", r"\1.\2"),
    (rf"blocks\.{_BLOCK}", r"blocks.\1"),
    (r"(head\.layers\.[048]\.(?:weight|bias))", r"\1"),
    (rf"(head\.layers\.[15])\.{NORM}", r"\1.\2"),
)
# The part of a pre-training file that a classifier does not need.
_DECODER_KEYS = (
    (r"mask_token", r"decoder.mask_token"),
    (r"decoder_pos_embed\.([02]\.(?:weight|bias))", r"decoder.pos_embed.\1"),
    (rf"MAE_decoder\.blocks\.{_BLOCK}", r"decoder.blocks.\1"),
    (r"MAE_decoder\.norm\.(weight|bias)", r"decoder.norm.\1"),
    (r"increase_dim\.0\.(weight|bias)", r"decoder.reconstruction.\1"),
    # this library's own names, as in a state dict of PointMAEPretraining
    (r"(decoder\.mask_token)", r"\1"),
    (r"(decoder\.pos_embed\.[02]\.(?:weight|bias))", r"\1"),
    (rf"decoder\.blocks\.{_BLOCK}", r"decoder.blocks.\1"),
    (r"(decoder\.(?:norm|reconstruction)\.(?:weight|bias))", r"\1"),
    # the perceptron of PointMAECompletion
    (r"(completion\.[024]\.(?:weight|bias))", r"\1"),
)


def map_point_mae_keys(state: Mapping[str, Tensor]) -> tuple[State, State]:
    r"""Translate published keys of the Point-MAE family to those of :class:`PointMAE`.

    The input may have the keys of fine-tuned files (``encoder.first_conv.0.weight``,
    ``blocks.blocks.0.attn.qkv.weight``, ``cls_head_finetune.8.bias``), the same keys under the
    ``MAE_encoder.`` of pre-training files, or this library's keys. Convolutions of width one become
    linear weights. The layer on ``[maximum, point]`` is split into its two halves.

    Args:
        state: Tensors by name, for example from ``read_state_dict``.

    Returns:
        The tensors under this library's names, and the leftovers under their original names: a
        pre-training decoder, parameters of a method, and unknown keys.

    Example:
        >>> import torch
        >>> from pyg_peft.backbones.weights import map_point_mae_keys
        >>> mapped, leftovers = map_point_mae_keys({
        ...     "blocks.blocks.0.norm1.bias": torch.zeros(8), "prompt_cor": torch.zeros(8)
        ... })
        >>> list(mapped), list(leftovers)
        (['blocks.0.norm1.bias'], ['prompt_cor'])
    """
    mapped, leftovers = rename_keys(strip_prefix(state, "MAE_encoder."), _POINT_MAE_KEYS)
    joint = leftovers.get("encoder.second_conv.0.weight")
    if joint is not None and joint.dim() in (2, 3) and joint.size(1) % 2 == 0:
        del leftovers["encoder.second_conv.0.weight"]
        on_max, on_point = squeeze_conv(joint).chunk(2, dim=1)  # the maximum comes first
        mapped["patch_embed.global_proj.weight"] = on_max
        mapped["patch_embed.local_proj.weight"] = on_point
    return mapped, leftovers


def map_point_mae_decoder_keys(state: Mapping[str, Tensor]) -> tuple[State, State]:
    """Translate published decoder keys to those of :class:`PointMAEPretraining`.

    Args:
        state: Leftovers of :func:`map_point_mae_keys`.

    Returns:
        The tensors under this library's names, and the leftovers under their original names.
    """
    return rename_keys(state, _DECODER_KEYS)


def rename_keys(
    state: Mapping[str, Tensor], rules: tuple[tuple[str, str], ...]
) -> tuple[State, State]:
    """Rename the keys that match a rule, and return them and the leftovers.

    Args:
        state: Tensors by name.
        rules: Pairs of a pattern that must match a whole key, and the new key; the first match
            counts.

    Raises:
        CheckpointError: If two tensors get the same key.
    """
    mapped: State = {}
    leftovers: State = {}
    for key, value in state.items():
        for pattern, name in rules:
            match = re.fullmatch(pattern, key)
            if match is not None:
                name = match.expand(name)
                if name in mapped:
                    raise CheckpointError(
                        f"Expected 'source' to hold '{name}' once (got '{key}' as a second one)"
                    )
                mapped[name] = squeeze_conv(value)
                break
        else:
            leftovers[key] = value
    return mapped, leftovers


def squeeze_conv(weight: Tensor) -> Tensor:
    """Return a convolution of width one as a matrix, and any other tensor unchanged.

    The tokens ``[1, 1, C]`` also have three dimensions, and stay unchanged.
    """
    if weight.dim() == 3 and weight.size(2) == 1 and weight.size(0) > 1:
        return weight.squeeze(2)
    return weight


__all__ = [
    "NORM",
    "map_point_mae_decoder_keys",
    "map_point_mae_keys",
    "rename_keys",
    "squeeze_conv",
]
