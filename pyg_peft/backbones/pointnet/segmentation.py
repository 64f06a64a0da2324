"""PointNet for segmentation: features of each point and of its cloud."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyg_peft.backbones.flat_backbone import FlatBackbone
from pyg_peft.backbones.layers.flat_input import FlatClouds
from pyg_peft.backbones.layers.point_level import PointLevel
from pyg_peft.backbones.layers.segment_max import segment_max
from pyg_peft.backbones.layers.tokens import check_levels, check_sizes
from pyg_peft.backbones.pointnet.classifier import level_sizes, pointnet_levels, run_levels
from pyg_peft.backbones.pointnet.keys import map_pointnet_keys
from pyg_peft.backbones.weights.flat_files import OwnWeights
from pyg_peft.backbones.weights.reading import State
from pyg_peft.errors import check_flag
from pyg_peft.symmetries import Symmetries


@Symmetries(permutation="equivariant", translation=False, rotation=False)
class PointNetSegmentation(FlatBackbone):
    """The PointNet segmentation network, after `"PointNet: Deep Learning on Point Sets for 3D
    Classification and Segmentation" <https://arxiv.org/abs/1612.00593>`_, figure 2.

    The levels are those of :class:`PointNet`, whose files can be loaded here. The maximum over the
    cloud is concatenated with each point's feature after the first level.

    ``from_checkpoint`` infers all sizes except ``head_dropout``. A file of the classifier also does
    not determine ``decoder_channels`` and ``head_channels``.

    Args:
        num_classes: Number of classes of a point.
        in_channels, channels, head_channels, transforms: See :class:`PointNet`.
        decoder_channels: Widths of the layers on local and global features.
        head_dropout: Dropout probability after each hidden layer of the head.

    Shapes:
        x (N, in_channels), pos (N, 3), batch (N); output (N, num_classes).

    Symmetries:

    Raises:
        ValueError: If a size is not positive, or ``x`` has the wrong number of channels.

    Differences:
        This is the network of figure 2. The larger one of the paper's supplement, which is trained
        on ShapeNet parts, also takes the object's category.

    Example:
        >>> import torch
        >>> from pyg_peft.backbones import PointNetSegmentation
        >>> model = PointNetSegmentation(num_classes=5).eval()
        >>> model(pos=torch.randn(90, 3), batch=torch.arange(3).repeat_interleave(30)).shape
        torch.Size([90, 5])
    """

    task: ClassVar[str] = "segmentation"

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 0,
        *,
        channels: Sequence[Sequence[int]] = ((64, 64), (64, 128, 1024)),
        decoder_channels: Sequence[int] = (512, 256, 128),
        head_channels: Sequence[int] = (128,),
        transforms: bool = True,
        head_dropout: float = 0.0,
    ) -> None:
        super().__init__(
            num_classes, in_channels, head_channels=head_channels, head_dropout=head_dropout
        )
        self.channels = check_levels(channels, "channels")
        self.decoder_channels = check_sizes(decoder_channels, "decoder_channels")
        self.transforms = check_flag(transforms, "transforms")
        self.embed_dim = self.decoder_channels[-1]
        self.levels = pointnet_levels(self.in_channels, self.channels, self.transforms)
        both = self.channels[0][-1] + self.channels[1][-1]
        self.decoder = nn.ModuleList([PointLevel(both, self.decoder_channels)])
        self.reset_head(self.num_classes)

    @staticmethod
    def map_keys(state: State) -> State:
        return map_pointnet_keys(state)

    @staticmethod
    def infer_sizes(weights: OwnWeights) -> dict[str, Any]:
        sizes = level_sizes(weights)
        if weights.has("decoder."):
            sizes["decoder_channels"] = weights.channels("decoder", "mlp")[0]
        return sizes

    def compute_features(self, clouds: FlatClouds) -> Float[Tensor, "N C"]:
        """Return one feature per point, ``[N, embed_dim]``."""
        local, x = run_levels(self.levels, clouds)
        of_cloud = segment_max(x, clouds.batch, clouds.batch_size)
        x = torch.cat([local, of_cloud[clouds.batch]], dim=1)
        return self.decoder[0](x, clouds.pos, clouds.batch, clouds.batch_size)


__all__ = ["PointNetSegmentation"]
