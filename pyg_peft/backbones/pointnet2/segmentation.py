"""PointNet++ for segmentation: the levels of the classifier, then a decoder."""

from collections.abc import Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from pyg_peft.backbones.flat_backbone import FlatBackbone
from pyg_peft.backbones.layers.feature_propagation import FeaturePropagation
from pyg_peft.backbones.layers.flat_input import FlatClouds
from pyg_peft.backbones.layers.stages import Stage, decode, encode
from pyg_peft.backbones.layers.tokens import check_levels, check_sizes
from pyg_peft.backbones.pointnet2.classifier import check_radii, level_sizes, pointnet2_levels
from pyg_peft.backbones.weights.flat_files import OwnWeights
from pyg_peft.symmetries import Symmetries


@Symmetries(
    permutation="equivariant",
    translation=False,
    rotation=False,
    note=(
        "The points' own positions are inputs of the last step. At exact ties the order of "
        "the points matters."
    ),
)
class PointNetPlusPlusSegmentation(FlatBackbone):
    """The PointNet++ segmentation network with single-scale grouping, after `"PointNet++: Deep
    Hierarchical Feature Learning on Point Sets in a Metric Space"
    <https://arxiv.org/abs/1706.02413>`_.

    The levels are those of :class:`PointNetPlusPlus`, whose files can be loaded here. Features are
    interpolated back to the points and concatenated with those of each finer level. The defaults
    are the paper's for parts. Its network for scenes has no level for whole clouds, and
    ``channels=((32, 32, 64), (64, 64, 128), (128, 128, 256), (256, 256, 512))``,
    ``num_centers=(1024, 256, 64, 16)``, ``radii=(0.1, 0.2, 0.4, 0.8)`` in meters,
    ``patch_sizes=(32, 32, 32, 32)``,
    ``decoder_channels=((256, 256), (256, 256), (256, 128), (128, 128, 128))``.

    ``from_checkpoint`` infers all sizes except ``num_centers``, ``radii``, ``patch_sizes`` and
    ``head_dropout``. A file of the classifier also does not determine ``decoder_channels`` and
    ``head_channels``.

    Args:
        num_classes: Number of classes of a point.
        in_channels, radii, patch_sizes, head_channels, head_dropout: See
            :class:`PointNetPlusPlus`.
        channels: Widths of the layers of each level; a level beyond those of ``num_centers`` is for
            whole clouds.
        num_centers: Number of centers per cloud of each level.
        decoder_channels: Widths of the layers of each decoder level, starting with the coarsest.

    Shapes:
        x (N, in_channels), pos (N, 3), batch (N); output (N, num_classes).

    Symmetries:

    Raises:
        ValueError: If a size is not positive, if the sizes differ in number, or if ``x`` has the
            wrong number of channels.

    Differences:
        As in :class:`PointNetPlusPlus`.

    Example:
        >>> import torch
        >>> from pyg_peft.backbones import PointNetPlusPlusSegmentation
        >>> model = PointNetPlusPlusSegmentation(num_classes=5).eval()
        >>> model(pos=torch.randn(90, 3), batch=torch.arange(3).repeat_interleave(30)).shape
        torch.Size([90, 5])
    """

    task: ClassVar[str] = "segmentation"

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 0,
        *,
        channels: Sequence[Sequence[int]] = ((64, 64, 128), (128, 128, 256), (256, 512, 1024)),
        num_centers: Sequence[int] = (512, 128),
        radii: Sequence[float] = (0.2, 0.4),
        patch_sizes: Sequence[int] = (32, 64),
        decoder_channels: Sequence[Sequence[int]] = ((256, 256), (256, 128), (128, 128, 128)),
        head_channels: Sequence[int] = (128,),
        head_dropout: float = 0.5,
    ) -> None:
        decoder_channels = check_levels(decoder_channels, "decoder_channels")
        channels = check_levels(channels, "channels")
        if len(decoder_channels) != len(channels):
            raise ValueError(
                f"Expected 'decoder_channels' to name {len(channels)} levels "
                f"(got {len(decoder_channels)})"
            )
        super().__init__(
            num_classes, in_channels, head_channels=head_channels, head_dropout=head_dropout
        )
        self.channels = channels
        self.num_centers = check_sizes(num_centers, "num_centers")
        self.radii = check_radii(radii)
        self.patch_sizes = check_sizes(patch_sizes, "patch_sizes")
        self.decoder_channels = decoder_channels
        self.embed_dim = self.decoder_channels[-1][-1]
        self.levels = pointnet2_levels(
            self.in_channels, self.channels, self.num_centers, self.radii, self.patch_sizes
        )
        self.decoder = nn.ModuleList()
        coarse = self.channels[-1][-1]
        finer = [3 + self.in_channels, *(level[-1] for level in self.channels[:-1])]
        for skip, widths in zip(reversed(finer), self.decoder_channels, strict=True):
            self.decoder.append(FeaturePropagation(coarse, skip, widths))
            coarse = widths[-1]
        self.reset_head(self.num_classes)

    @staticmethod
    def infer_sizes(weights: OwnWeights) -> dict[str, Any]:
        sizes = level_sizes(weights)
        if weights.has("decoder."):
            sizes["decoder_channels"] = weights.channels("decoder", "mlp")
        return sizes

    def compute_features(self, clouds: FlatClouds) -> Float[Tensor, "N C"]:
        """Return one feature per point, ``[N, embed_dim]``."""
        stage = Stage(clouds.x, clouds.pos, clouds.batch)
        stages = encode(self.levels, stage, clouds.batch_size)
        stages[0] = stage._replace(x=clouds.points)
        return decode(self.decoder, stages[-1], stages[:-1], clouds.batch_size)


__all__ = ["PointNetPlusPlusSegmentation"]
