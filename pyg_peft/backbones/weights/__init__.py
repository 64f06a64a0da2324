"""Weights of backbones: read files, rename keys, infer sizes and check shapes."""

from pyg_peft.backbones.weights.checking import (
    agreed_sizes,
    build_checked,
    count_classes,
    infer_depth,
    infer_width,
    load_checked,
    refuse_leftovers,
)
from pyg_peft.backbones.weights.point_mae_keys import (
    map_point_mae_decoder_keys,
    map_point_mae_keys,
)
from pyg_peft.backbones.weights.reading import read_state_dict, strip_prefix

__all__ = [
    "agreed_sizes",
    "build_checked",
    "count_classes",
    "infer_depth",
    "infer_width",
    "load_checked",
    "map_point_mae_decoder_keys",
    "map_point_mae_keys",
    "read_state_dict",
    "refuse_leftovers",
    "strip_prefix",
]
