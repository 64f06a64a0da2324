"""Pre-trained encoders of point clouds, with the loaders of their published weights."""

from pyg_peft.backbones.head import ClassificationHead
from pyg_peft.backbones.patch_embed import PatchEmbed
from pyg_peft.backbones.point_mae import PointMAE
from pyg_peft.backbones.point_mae_completion import Completion, PointMAECompletion
from pyg_peft.backbones.point_mae_decoder import PointMAEDecoder
from pyg_peft.backbones.point_mae_pretraining import PointMAEPretraining, Reconstruction
from pyg_peft.backbones.point_mae_segmentation import PointMAESegmentation
from pyg_peft.backbones.pointnet import PointNet
from pyg_peft.backbones.pointnet_segmentation import PointNetSegmentation
from pyg_peft.backbones.segmentation_head import SegmentationHead
from pyg_peft.backbones.t_net import TNet, orthogonality_penalty
from pyg_peft.backbones.transformer import Attention, Block, DropPath, Mlp

__all__ = [
    "Attention",
    "Block",
    "ClassificationHead",
    "Completion",
    "DropPath",
    "Mlp",
    "PatchEmbed",
    "PointMAE",
    "PointMAECompletion",
    "PointMAEDecoder",
    "PointMAEPretraining",
    "PointMAESegmentation",
    "PointNet",
    "PointNetSegmentation",
    "Reconstruction",
    "SegmentationHead",
    "TNet",
    "orthogonality_penalty",
]
