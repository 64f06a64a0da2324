"""Small versions of the backbones on flat clouds, and how a test calls them."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pyg_peft.backbones import (
    DGCNN,
    DGCNNSegmentation,
    PointNet,
    PointNetPlusPlus,
    PointNetPlusPlusSegmentation,
    PointNetSegmentation,
    PointTransformer,
    PointTransformerSegmentation,
)
from pyg_peft.testing import Clouds, randomize_

CHANNELS, CLASSES = 2, 4
POINTNET = {"channels": ((4, 6), (6, 8, 10)), "head_channels": (7, 5)}
POINTNET2 = {"channels": ((4, 6), (6, 8), (9, 10))}
POINTNET2_GEOMETRY = {
    "num_centers": (6, 3),
    "radii": (0.8, 2.0),
    "patch_sizes": (5, 4),
    "head_dropout": 0.0,
}
TRANSFORMER = {"channels": (8, 10, 12), "depths": (1, 2, 1), "share": 2}
TRANSFORMER_GEOMETRY = {"k": (3, 4, 4), "stride": 2, "head_dropout": 0.0}
EDGES = {"channels": ((4, 6), (5,)), "mix_channels": 9}


@dataclass(frozen=True)
class Case:
    """A backbone in a size that is quick to test.

    Args:
        model: its class.
        told: arguments that ``from_checkpoint`` reads off the weights.
        untold: those that it cannot.
        segments: whether the output has a row per point.
        canceled: endings of names of parameters without any influence.
    """

    model: Any
    told: dict[str, Any]
    untold: dict[str, Any] = field(default_factory=dict)
    segments: bool = False
    canceled: tuple[str, ...] = ()

    @property
    def rows(self) -> Any:
        return "point" if self.segments else "cloud"

    def make(self, dtype: torch.dtype = torch.float64, seed: int = 0, **changes: Any) -> Any:
        """A model that is awake, in eval mode, the same for the same seed."""
        sizes = {"in_channels": CHANNELS, **self.told, **self.untold, **changes}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = self.model(sizes.pop("num_classes", CLASSES), **sizes)
        return randomize_(model, torch.Generator().manual_seed(seed)).eval().to(dtype)

    def call(self, model: nn.Module, clouds: Clouds) -> Tensor:
        return model(clouds.x, clouds.pos, clouds.batch, batch_size=clouds.batch_size)


CASES = {
    "PointNet": Case(PointNet, POINTNET, {"head_dropout": 0.0}),
    "PointNet vanilla": Case(PointNet, {**POINTNET, "transforms": False}, {"head_dropout": 0.0}),
    "PointNetSegmentation": Case(
        PointNetSegmentation, {**POINTNET, "decoder_channels": (9, 8)}, segments=True
    ),
    "PointNetPlusPlus": Case(
        PointNetPlusPlus, {**POINTNET2, "head_channels": (7, 5)}, POINTNET2_GEOMETRY
    ),
    "PointNetPlusPlusSegmentation": Case(
        PointNetPlusPlusSegmentation,
        {**POINTNET2, "decoder_channels": ((9, 8), (7, 6), (6, 5)), "head_channels": (5,)},
        POINTNET2_GEOMETRY,
        segments=True,
    ),
    "PointTransformer": Case(
        PointTransformer,
        {**TRANSFORMER, "head_channels": (7, 5)},
        TRANSFORMER_GEOMETRY,
        canceled=("attn_nn.5.bias",),  # a softmax does not see it
    ),
    "PointTransformerSegmentation": Case(
        PointTransformerSegmentation,
        {**TRANSFORMER, "decoder_depth": 2, "head_channels": (5,)},
        TRANSFORMER_GEOMETRY,
        segments=True,
        canceled=("attn_nn.5.bias",),
    ),
    "DGCNN": Case(DGCNN, {**EDGES, "head_channels": (7, 5)}, {"k": 4, "head_dropout": 0.0}),
    "DGCNNSegmentation": Case(
        DGCNNSegmentation,
        {**EDGES, "decoder_channels": (8,), "head_channels": (7, 5)},
        {"k": 4, "head_dropout": 0.0},
        segments=True,
    ),
}
