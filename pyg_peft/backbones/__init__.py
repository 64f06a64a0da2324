"""Pre-trained encoders of point clouds, with the loaders of their published weights."""

from pyg_peft.backbones.head import ClassificationHead
from pyg_peft.backbones.patch_embed import PatchEmbed
from pyg_peft.backbones.point_mae import PointMAE
from pyg_peft.backbones.point_mae_decoder import PointMAEDecoder
from pyg_peft.backbones.point_mae_pretraining import PointMAEPretraining, Reconstruction
from pyg_peft.backbones.transformer import Attention, Block, DropPath, Mlp

__all__ = [
    "Attention",
    "Block",
    "ClassificationHead",
    "DropPath",
    "Mlp",
    "PatchEmbed",
    "PointMAE",
    "PointMAEDecoder",
    "PointMAEPretraining",
    "Reconstruction",
]
