"""Reading of Point-MAE weight files, and inference of the model's sizes from the weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyg_peft.backbones.weights import (
    count_classes,
    infer_depth,
    infer_width,
    map_point_mae_decoder_keys,
    map_point_mae_keys,
    refuse_leftovers,
)
from pyg_peft.backbones.weights.reading import State, read_state_dict


def classifier_weights(
    source: str | Path | Mapping[str, Any], num_classes: int | None, name: str
) -> tuple[State, dict[str, int], list[str]]:
    """Read the weights of a classifier from a pre-training or a fine-tuned file.

    Args:
        source: File or mapping, with the published keys or this library's.
        num_classes: Requested number of classes; ``None`` for that of the file.
        name: Name of the model, for error messages.

    Returns:
        The tensors under this library's names; the sizes inferred from them; the prefixes of keys
        that may be missing. These are the head and the summary token in pre-training files, and the
        layer of point features.

    Raises:
        FileNotFoundError: If the file does not exist.
        CheckpointError: If the file is damaged, is of another family, or has unknown keys.
        ValueError: If ``num_classes`` is missing or differs from the file's head.
    """
    state, leftovers = map_point_mae_keys(read_state_dict(source))
    _, leftovers = map_point_mae_decoder_keys(leftovers)
    embed_dim = infer_width(state, "norm.weight", leftovers)
    refuse_leftovers(leftovers, name)

    has_head = any(key.startswith("head.") for key in state)
    stored = infer_width(state, "head.layers.8.bias", leftovers) if has_head else None
    fresh: list[str] = []
    if not has_head:
        fresh += [name for name in ("cls_token", "cls_pos") if name not in state]
        fresh.append("head.")
    if "patch_embed.feature_stem.weight" not in state:
        fresh += ["patch_embed.feature_stem."]
    sizes = {
        "num_classes": count_classes(num_classes, stored),
        "embed_dim": embed_dim,
        "depth": max(infer_depth(state), 1),
    }
    return state, sizes, fresh


def pretraining_weights(
    source: str | Path | Mapping[str, Any], name: str
) -> tuple[State, dict[str, int]]:
    """Read the weights of encoder and decoder from a pre-training file.

    Args:
        source: File or mapping, with the published keys or this library's.
        name: Name of the model, for error messages.

    Returns:
        The tensors under this library's names, and the sizes inferred from them.

    Raises:
        FileNotFoundError: If the file does not exist.
        CheckpointError: If the file is damaged, has no decoder, or has unknown keys.
    """
    encoder, rest = map_point_mae_keys(read_state_dict(source))
    decoder, leftovers = map_point_mae_decoder_keys(rest)
    embed_dim = infer_width(encoder, "norm.weight", rest)
    num_outputs = infer_width(decoder, "decoder.reconstruction.bias", {**encoder, **leftovers})
    refuse_leftovers(leftovers, name)
    sizes = {
        "embed_dim": embed_dim,
        "depth": max(infer_depth(encoder), 1),
        "patch_size": max(num_outputs // 3, 1),
        "decoder_depth": max(infer_depth(decoder, "decoder.blocks"), 1),
    }
    return {**encoder, **decoder}, sizes


__all__ = ["classifier_weights", "pretraining_weights"]
