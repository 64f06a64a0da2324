"""Reading of weight files for part segmentation, and inference of the model's sizes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pyg_peft.backbones.weights import (
    infer_depth,
    infer_width,
    map_point_mae_decoder_keys,
    map_point_mae_keys,
    refuse_leftovers,
)
from pyg_peft.backbones.weights.point_mae_keys import NORM, rename_keys, squeeze_conv
from pyg_peft.backbones.weights.reading import State, read_state_dict
from pyg_peft.errors import MissingHeadError

_TENSOR = r"((?:weight|bias))"
# The authors' names of the head, and this library's. Their layer `convs1` on the concatenation is
# split below.
_HEAD_KEYS = (
    (r"label_conv\.0\.weight", r"head.category.proj.weight"),
    (rf"label_conv\.1\.{NORM}", r"head.category.norm.\1"),
    (rf"propagation_0\.mlp_convs\.0\.{_TENSOR}", r"head.lift.\1"),
    (rf"propagation_0\.mlp_bns\.0\.{NORM}", r"head.norm1.\1"),
    (rf"propagation_0\.mlp_convs\.1\.{_TENSOR}", r"head.mix.\1"),
    (rf"propagation_0\.mlp_bns\.1\.{NORM}", r"head.norm2.\1"),
    (r"convs1\.bias", r"head.local_proj.bias"),
    (rf"bns1\.{NORM}", r"head.norm3.\1"),
    (rf"convs2\.{_TENSOR}", r"head.reduce.\1"),
    (rf"bns2\.{NORM}", r"head.norm4.\1"),
    (rf"convs3\.{_TENSOR}", r"head.classifier.\1"),
    # this library's own names, as in a state dict of PointMAESegmentation
    (rf"(head\.(?:lift|mix|local_proj|reduce|classifier))\.{_TENSOR}", r"\1.\2"),
    (r"(head\.(?:global_proj|category\.proj)\.weight)", r"\1"),
    (rf"(head\.(?:norm[1-4]|category\.norm))\.{NORM}", r"\1.\2"),
)
# Keys of the other models of the family: the summary token and the classification head.
_OF_CLASSIFIERS = ("cls_token", "cls_pos", "head.layers.")


def map_segmentation_keys(state: Mapping[str, Tensor]) -> tuple[State, State]:
    """Translate published keys of a part segmentation head to those of :class:`SegmentationHead`.

    Args:
        state: Leftovers of ``map_point_mae_keys``.

    Returns:
        The tensors under this library's names, and the leftovers under their original names.
    """
    mapped, leftovers = rename_keys(state, _HEAD_KEYS)
    joint, mixed = leftovers.get("convs1.weight"), mapped.get("head.mix.bias")
    if joint is not None and mixed is not None and joint.dim() in (2, 3):
        del leftovers["convs1.weight"]
        joint, width = squeeze_conv(joint), mixed.numel()  # the points' columns come first
        mapped["head.local_proj.weight"] = joint[:, :width]
        mapped["head.global_proj.weight"] = joint[:, width:]
    return mapped, leftovers


def segmentation_weights(
    source: str | Path | Mapping[str, Any],
    num_classes: int | None,
    num_categories: int | None,
    name: str,
) -> tuple[State, dict[str, int], list[str]]:
    """Read the weights of a segmentation model from a file of any model of the family.

    Args:
        source: File or mapping, with the published keys or this library's.
        num_classes: Requested number of classes; ``None`` for that of the file.
        num_categories: Requested number of categories; ``None`` for that of the file, or 0 if the
            file has no head for parts.
        name: Name of the model, for error messages.

    Returns:
        The tensors under this library's names; the sizes inferred from them; the prefixes of keys
        that may be missing. These are the head and the layer of point features.

    Raises:
        FileNotFoundError: If the file does not exist.
        CheckpointError: If the file is damaged, is of another family, or has unknown keys.
        ValueError: If a number is missing or differs from the file's head.
    """
    state, leftovers = map_point_mae_keys(read_state_dict(source))
    state = {key: value for key, value in state.items() if not key.startswith(_OF_CLASSIFIERS)}
    _, leftovers = map_point_mae_decoder_keys(leftovers)
    head, leftovers = map_segmentation_keys(leftovers)
    state |= head
    sizes = {
        "embed_dim": infer_width(state, "norm.weight", leftovers),
        "depth": max(infer_depth(state), 1),
    }
    refuse_leftovers(leftovers, name)
    fresh = [] if "patch_embed.feature_stem.weight" in state else ["patch_embed.feature_stem."]
    if not head:
        if num_classes is None:
            raise MissingHeadError(
                "Expected 'num_classes' to be given for weights without a head for parts (got None)"
            )
        sizes |= {"num_classes": num_classes, "num_categories": num_categories or 0}
        return state, sizes, [*fresh, "head."]
    category = head.get("head.category.proj.weight")
    stored = {
        "num_classes": infer_width(state, "head.classifier.bias", leftovers),
        "num_categories": 0 if category is None else category.size(1),
    }
    given = {"num_classes": num_classes, "num_categories": num_categories}
    for size, value in given.items():
        if value not in (None, stored[size]):
            raise ValueError(
                f"Expected '{size}' to be {stored[size]}, that of the checkpoint's head "
                f"(got {value}): leave it out, then call reset_head for a fresh head"
            )
    sizes |= stored
    sizes["head_channels"] = infer_width(state, "head.mix.bias", leftovers)
    lift = head.get("head.lift.weight")
    if lift is not None:
        sizes["num_levels"] = max((lift.size(1) - 3) // sizes["embed_dim"], 1)
    return state, sizes, fresh


__all__ = ["map_segmentation_keys", "segmentation_weights"]
