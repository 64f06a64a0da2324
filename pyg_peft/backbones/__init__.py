"""Pre-trained encoders of point clouds, with the loaders of their published weights."""

from pyg_peft.backbones.dgcnn import DGCNN
from pyg_peft.backbones.dgcnn_segmentation import DGCNNSegmentation
from pyg_peft.backbones.edge_conv_block import EdgeConvBlock
from pyg_peft.backbones.feature_propagation import FeaturePropagation
from pyg_peft.backbones.head import ClassificationHead
from pyg_peft.backbones.patch_embed import PatchEmbed
from pyg_peft.backbones.point_mae import PointMAE
from pyg_peft.backbones.point_mae_completion import Completion, PointMAECompletion
from pyg_peft.backbones.point_mae_decoder import PointMAEDecoder
from pyg_peft.backbones.point_mae_pretraining import PointMAEPretraining
from pyg_peft.backbones.point_mae_segmentation import PointMAESegmentation
from pyg_peft.backbones.point_transformer import PointTransformer
from pyg_peft.backbones.point_transformer_block import PointTransformerBlock
from pyg_peft.backbones.point_transformer_segmentation import PointTransformerSegmentation
from pyg_peft.backbones.pointnet import PointNet
from pyg_peft.backbones.pointnet2 import PointNetPlusPlus
from pyg_peft.backbones.pointnet2_segmentation import PointNetPlusPlusSegmentation
from pyg_peft.backbones.pointnet_segmentation import PointNetSegmentation
from pyg_peft.backbones.reconstruction import Reconstruction
from pyg_peft.backbones.segmentation_head import SegmentationHead
from pyg_peft.backbones.set_abstraction import GlobalSetAbstraction, SetAbstraction
from pyg_peft.backbones.t_net import TNet, orthogonality_penalty
from pyg_peft.backbones.transformer import Attention, Block, DropPath, Mlp

__all__ = [
    "DGCNN",
    "Attention",
    "Block",
    "ClassificationHead",
    "Completion",
    "DGCNNSegmentation",
    "DropPath",
    "EdgeConvBlock",
    "FeaturePropagation",
    "GlobalSetAbstraction",
    "Mlp",
    "PatchEmbed",
    "PointMAE",
    "PointMAECompletion",
    "PointMAEDecoder",
    "PointMAEPretraining",
    "PointMAESegmentation",
    "PointNet",
    "PointNetPlusPlus",
    "PointNetPlusPlusSegmentation",
    "PointNetSegmentation",
    "PointTransformer",
    "PointTransformerBlock",
    "PointTransformerSegmentation",
    "Reconstruction",
    "SegmentationHead",
    "SetAbstraction",
    "TNet",
    "orthogonality_penalty",
]
