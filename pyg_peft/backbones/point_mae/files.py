"""What a file of the Point-MAE family says about the model that it belongs to."""

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
        num_classes: Number of classes; ``None`` for that of the file.
        name: Name of the model, for error messages.

    Returns:
        The tensors under our names; the sizes that they tell; the prefixes of what they lack by
        right: the head and the summary token in pre-training files, the layer of point features.

    Raises:
        FileNotFoundError: If the file does not exist.
        CheckpointError: If the file is damaged, of another family, or has keys that belong nowhere.
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
        The tensors under our names, and the sizes that they tell.

    Raises:
        FileNotFoundError: If the file does not exist.
        CheckpointError: If the file is damaged, has no decoder, or has keys that belong nowhere.
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
