"""Pre-trained backbones for point clouds, and loaders for their published weights."""

from pyg_peft.backbones.contract import TokenBackbone
from pyg_peft.backbones.dgcnn.classifier import DGCNN
from pyg_peft.backbones.dgcnn.edge_conv_block import EdgeConvBlock
from pyg_peft.backbones.dgcnn.segmentation import DGCNNSegmentation
from pyg_peft.backbones.layers.feature_propagation import FeaturePropagation
from pyg_peft.backbones.layers.head import ClassificationHead
from pyg_peft.backbones.layers.patch_embed import PatchEmbed
from pyg_peft.backbones.layers.segmentation_head import SegmentationHead
from pyg_peft.backbones.layers.t_net import TNet, orthogonality_penalty
from pyg_peft.backbones.layers.transformer import Attention, Block, DropPath, Mlp
from pyg_peft.backbones.point_mae.classifier import PointMAE
from pyg_peft.backbones.point_mae.completion import Completion, PointMAECompletion
from pyg_peft.backbones.point_mae.decoder import PointMAEDecoder
from pyg_peft.backbones.point_mae.pretraining import PointMAEPretraining
from pyg_peft.backbones.point_mae.reconstruction import Reconstruction
from pyg_peft.backbones.point_mae.segmentation import PointMAESegmentation
from pyg_peft.backbones.point_transformer.block import PointTransformerBlock
from pyg_peft.backbones.point_transformer.classifier import PointTransformer
from pyg_peft.backbones.point_transformer.segmentation import PointTransformerSegmentation
from pyg_peft.backbones.pointnet.classifier import PointNet
from pyg_peft.backbones.pointnet.segmentation import PointNetSegmentation
from pyg_peft.backbones.pointnet2.classifier import PointNetPlusPlus
from pyg_peft.backbones.pointnet2.segmentation import PointNetPlusPlusSegmentation
from pyg_peft.backbones.pointnet2.set_abstraction import GlobalSetAbstraction, SetAbstraction
from pyg_peft.backbones.registry import list_backbones, list_models, register_backbone

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
    "TokenBackbone",
    "list_backbones",
    "list_models",
    "orthogonality_penalty",
    "register_backbone",
]
