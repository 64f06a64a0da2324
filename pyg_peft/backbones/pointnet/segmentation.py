"""PointNet for segmentation: features of each point and of its cloud."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyg_peft.backbones.flat_backbone import FlatBackbone
from pyg_peft.backbones.layers.point_level import PointLevel
from pyg_peft.backbones.layers.segment_max import segment_max
from pyg_peft.backbones.layers.tokens import check_levels, check_sizes
from pyg_peft.backbones.pointnet.classifier import pointnet_levels, run_levels
from pyg_peft.backbones.pointnet.keys import map_pointnet_keys
from pyg_peft.backbones.weights import build_checked
from pyg_peft.backbones.weights.flat_files import own_weights
from pyg_peft.errors import check_count, check_flag
from pyg_peft.symmetries import Symmetries
from pyg_peft.typing import Batch, Pos


@Symmetries(permutation="equivariant", translation=False, rotation=False)
class PointNetSegmentation(FlatBackbone):
    """The PointNet segmentation network, after `"PointNet: Deep Learning on Point Sets for 3D
    Classification and Segmentation" <https://arxiv.org/abs/1612.00593>`_, figure 2.

    The levels are those of :class:`PointNet`, whose files can be loaded here. The maximum over the
    cloud is concatenated with each point's feature after the first level.

    Args:
        num_classes: Number of classes of a point.
        in_channels: Width of the point features ``x``, which are appended to the coordinates.
        channels: Widths of the shared layers of both levels.
        decoder_channels: Widths of the layers on local and global features.
        head_channels: Widths of the hidden layers of the head.
        transforms: Whether to align coordinates and the first level's features by T-Nets.
        head_dropout: Dropout probability after the last hidden layer of the head.

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
        num_classes = check_count(num_classes, "num_classes")
        in_channels = check_count(in_channels, "in_channels", least=0)
        super().__init__()
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.channels = check_levels(channels, "channels")
        self.decoder_channels = check_sizes(decoder_channels, "decoder_channels")
        self.head_channels = check_sizes(head_channels, "head_channels", fewest=0)
        self.transforms = check_flag(transforms, "transforms")
        self.head_dropout = head_dropout
        self.embed_dim = self.decoder_channels[-1]
        self.levels = pointnet_levels(in_channels, self.channels, transforms)
        both = self.channels[0][-1] + self.channels[1][-1]
        self.decoder = nn.ModuleList([PointLevel(both, self.decoder_channels)])
        self.reset_head(num_classes)

    @classmethod
    def from_checkpoint(
        cls, source: str | Path | Mapping[str, Any], num_classes: int | None = None, **sizes: Any
    ) -> Self:
        """Build the model that fits a file of weights, and load the weights.

        All sizes are inferred from the weights. If the file is a classifier's, the decoder and the
        head are newly initialized.

        Args:
            source: See :meth:`PointNet.from_checkpoint`.
            num_classes: Number of classes. Required if the file has no head for points; otherwise
                it must match the file's head.
            **sizes: ``head_dropout``; ``decoder_channels`` and ``head_channels`` if these are newly
                initialized.

        Raises:
            FileNotFoundError: If the file does not exist.
            CheckpointError: If the file is damaged, or if keys or shapes do not fit; the message
                names all of them.
            ValueError: If ``num_classes`` is missing or differs from the file's head.
        """
        weights = own_weights(
            source, num_classes, name=cls.__name__, segments=True, rename=map_pointnet_keys
        )
        read: dict[str, Any] = {
            "num_classes": weights.num_classes,
            "in_channels": weights.inputs("levels.0.mlp.lins.0.weight") - 3,
            "channels": weights.channels("levels", "mlp"),
            "transforms": weights.has("levels.0.input_transform."),
            **weights.head_channels(),
        }
        if weights.has("decoder."):
            read["decoder_channels"] = weights.channels("decoder", "mlp")[0]
        model = build_checked(lambda: cls(**{**read, **sizes}), weights.state, fresh=weights.fresh)
        return model

    def forward_features(
        self,
        x: Float[Tensor, "N in_channels"] | None = None,
        pos: Pos | None = None,
        batch: Batch | None = None,
        batch_size: int | None = None,
    ) -> Float[Tensor, "N C"]:
        """Return one feature per point, ``[N, embed_dim]``."""
        clouds = self.flat_input(x, pos, batch, batch_size)
        local, x = run_levels(self.levels, clouds)
        of_cloud = segment_max(x, clouds.batch, clouds.batch_size)
        x = torch.cat([local, of_cloud[clouds.batch]], dim=1)
        return self.decoder[0](x, clouds.pos, clouds.batch, clouds.batch_size)


__all__ = ["PointNetSegmentation"]
