"""Point Transformer for segmentation: the classifier's levels, then the decoder of a U-Net."""

from collections.abc import Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from pyg_peft.backbones.flat_backbone import FlatBackbone
from pyg_peft.backbones.layers.flat_input import FlatClouds
from pyg_peft.backbones.layers.stages import Stage, decode, encode
from pyg_peft.backbones.layers.tokens import check_sizes
from pyg_peft.backbones.point_transformer.classifier import level_sizes, point_transformer_levels
from pyg_peft.backbones.point_transformer.level import Summit, TransitionUp
from pyg_peft.backbones.weights import infer_depth
from pyg_peft.backbones.weights.flat_files import OwnWeights
from pyg_peft.errors import check_count
from pyg_peft.symmetries import Symmetries


@Symmetries(
    permutation="equivariant",
    translation=False,
    rotation=False,
    note="Positions are the first features. At exact ties the order of the points matters.",
)
class PointTransformerSegmentation(FlatBackbone):
    """The Point Transformer segmentation network, after `"Point Transformer"
    <https://arxiv.org/abs/2012.09164>`_, figure 3.

    The levels are those of :class:`PointTransformer`, whose files can be loaded here. The decoder
    concatenates each cloud's mean with the coarsest points, then interpolates from level to level.

    ``from_checkpoint`` infers all sizes except ``k``, ``stride`` and ``head_dropout``. A file of
    the classifier also does not determine ``decoder_depth`` and ``head_channels``.

    Args:
        num_classes: Number of classes of a point.
        in_channels, channels, depths, k, stride, share, head_channels, head_dropout: See
            :class:`PointTransformer`.
        decoder_depth: Number of blocks of each level of the decoder.

    Shapes:
        x (N, in_channels), pos (N, 3), batch (N); output (N, num_classes).

    Symmetries:

    Raises:
        ValueError: If a size is not positive, if the sizes differ in number, or if ``x`` has the
            wrong number of channels.

    Differences:
        As in :class:`PointTransformer`.

    Example:
        >>> import torch
        >>> from pyg_peft.backbones import PointTransformerSegmentation
        >>> model = PointTransformerSegmentation(
        ...     num_classes=5, channels=(16, 32), depths=(1, 1), k=(8, 8)).eval()
        >>> model(pos=torch.randn(90, 3), batch=torch.arange(3).repeat_interleave(30)).shape
        torch.Size([90, 5])
    """

    task: ClassVar[str] = "segmentation"

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 0,
        *,
        channels: Sequence[int] = (32, 64, 128, 256, 512),
        depths: Sequence[int] = (1, 2, 3, 5, 2),
        k: Sequence[int] = (8, 16, 16, 16, 16),
        stride: int = 4,
        share: int = 8,
        decoder_depth: int = 1,
        head_channels: Sequence[int] = (32,),
        head_dropout: float = 0.0,
    ) -> None:
        super().__init__(
            num_classes, in_channels, head_channels=head_channels, head_dropout=head_dropout
        )
        self.channels = check_sizes(channels, "channels")
        self.depths = check_sizes(depths, "depths", least=0)
        self.k = check_sizes(k, "k")
        self.stride = check_count(stride, "stride")
        self.share = check_count(share, "share")
        self.decoder_depth = check_count(decoder_depth, "decoder_depth", least=0)
        self.embed_dim = self.channels[0]
        self.levels = point_transformer_levels(
            self.in_channels, self.channels, self.depths, self.k, self.stride, self.share
        )
        same: dict[str, int] = {"depth": self.decoder_depth, "share": self.share}
        self.decoder = nn.ModuleList([Summit(self.channels[-1], k=self.k[-1], **same)])
        for number in reversed(range(len(self.channels) - 1)):
            coarse, fine = self.channels[number + 1], self.channels[number]
            self.decoder.append(TransitionUp(coarse, fine, k=self.k[number], **same))
        self.reset_head(self.num_classes)

    @staticmethod
    def infer_sizes(weights: OwnWeights) -> dict[str, Any]:
        sizes = level_sizes(weights)
        if weights.has("decoder."):
            sizes["decoder_depth"] = infer_depth(weights.state, "decoder.0.blocks")
        return sizes

    def compute_features(self, clouds: FlatClouds) -> Float[Tensor, "N C"]:
        """Return one feature per point, ``[N, embed_dim]``."""
        stage = Stage(clouds.points, clouds.pos, clouds.batch)
        stages = encode(self.levels, stage, clouds.batch_size)[1:]
        summit, *ups = self.decoder
        coarse = stages[-1]._replace(x=summit(*stages[-1], clouds.batch_size))
        return decode(ups, coarse, stages[:-1], clouds.batch_size)


__all__ = ["PointTransformerSegmentation"]
