"""DGCNN for segmentation: features of each point, of its cloud and of the cloud's category."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pyg_peft.backbones.dgcnn.classifier import level_sizes, run_levels
from pyg_peft.backbones.dgcnn.edge_conv_block import edge_conv_levels
from pyg_peft.backbones.flat_backbone import FlatBackbone
from pyg_peft.backbones.layers.category_level import CategoryLevel
from pyg_peft.backbones.layers.flat_input import FlatClouds
from pyg_peft.backbones.layers.point_level import PointLevel
from pyg_peft.backbones.layers.segment_max import segment_max
from pyg_peft.backbones.layers.tokens import check_levels, check_sizes
from pyg_peft.backbones.weights.flat_files import OwnWeights
from pyg_peft.errors import check_count
from pyg_peft.symmetries import Symmetries
from pyg_peft.typing import Batch, Pos


@Symmetries(
    permutation="equivariant",
    translation=False,
    rotation=False,
    note="Positions are the first features. At exact ties the order of the points matters.",
)
class DGCNNSegmentation(FlatBackbone):
    """The DGCNN segmentation network, after `"Dynamic Graph CNN for Learning on Point Clouds"
    <https://arxiv.org/abs/1801.07829>`_, section 4.3.

    Three edge convolutions compute the features of each point. The maximum of these features over
    the cloud is concatenated with them, and so is the object's category if ``num_categories`` is
    positive.

    ``from_checkpoint`` infers all sizes except ``k`` and ``head_dropout``. A file of the classifier
    also does not determine ``num_categories``, ``decoder_channels`` and ``head_channels``.

    Args:
        num_classes: Number of classes of a point.
        in_channels, channels, mix_channels, head_channels: See :class:`DGCNN`.
        num_categories: Number of object categories. If it is positive, calls need ``category``. The
            paper has 16 for ShapeNet parts and none for scenes.
        k: Number of neighbors of a point, including the point itself.
        decoder_channels: Widths of the layers on local and global features.
        head_dropout: Dropout probability after each hidden layer of the head except the last.

    Shapes:
        x (N, in_channels), pos (N, 3), batch (N), category (B); output (N, num_classes).

    Symmetries:

    Raises:
        ValueError: If a size is not positive, if ``x`` has the wrong number of channels, or if
            ``category`` is missing, superfluous, of the wrong shape or out of range.

    Differences:
        The paper has a spatial transformer in front of the network for parts; this network has
        none.

    Example:
        >>> import torch
        >>> from pyg_peft.backbones import DGCNNSegmentation
        >>> model = DGCNNSegmentation(num_classes=5, num_categories=2, k=8).eval()
        >>> pos, batch = torch.randn(90, 3), torch.arange(3).repeat_interleave(30)
        >>> model(pos=pos, batch=batch, category=torch.tensor([0, 1, 1])).shape
        torch.Size([90, 5])
    """

    task: ClassVar[str] = "segmentation"

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 0,
        *,
        num_categories: int = 0,
        channels: Sequence[Sequence[int]] = ((64, 64), (64, 64), (64,)),
        mix_channels: int = 1024,
        k: int = 20,
        decoder_channels: Sequence[int] = (256,),
        head_channels: Sequence[int] = (256, 128),
        head_dropout: float = 0.5,
    ) -> None:
        super().__init__(
            num_classes, in_channels, head_channels=head_channels, head_dropout=head_dropout
        )
        self.num_categories = check_count(num_categories, "num_categories", least=0)
        self.channels = check_levels(channels, "channels")
        self.mix_channels = check_count(mix_channels, "mix_channels")
        self.k = check_count(k, "k")
        self.decoder_channels = check_sizes(decoder_channels, "decoder_channels")
        self.embed_dim = self.decoder_channels[-1]
        self.levels = edge_conv_levels(self.in_channels, self.channels, self.k)
        together = sum(level[-1] for level in self.channels)
        self.mix = PointLevel(together, (self.mix_channels,), slope=0.2, bias=False)
        both = self.mix_channels + together
        self.decoder = nn.ModuleList(
            [CategoryLevel(both, self.decoder_channels, self.num_categories)]
        )
        self.reset_head(self.num_classes)

    @staticmethod
    def infer_sizes(weights: OwnWeights) -> dict[str, Any]:
        sizes = level_sizes(weights)
        if weights.has("decoder."):
            sizes["decoder_channels"] = weights.channels("decoder", "mlp")[0]
        if weights.has("decoder.0.category_mlp."):
            key = "decoder.0.category_mlp.lins.0.weight"
            sizes["num_categories"] = weights.inputs(key)
        return sizes

    def head_options(self) -> dict[str, Any]:
        rates = {"dropout": self.head_dropout, "last_dropout": 0.0}
        return {**rates, "slope": 0.2, "first_bias": False}

    def forward_features(
        self,
        x: Float[Tensor, "N in_channels"] | None = None,
        pos: Pos | None = None,
        batch: Batch | None = None,
        batch_size: int | None = None,
        *,
        category: Int[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "N C"]:
        """Return one feature per point, ``[N, embed_dim]``."""
        clouds = self.flat_input(x, pos, batch, batch_size)
        return self.compute_features(clouds, category=category)

    def compute_features(
        self, clouds: FlatClouds, *, category: Int[Tensor, " B"] | None = None
    ) -> Float[Tensor, "N C"]:
        """Return one feature per point, ``[N, embed_dim]``."""
        local = run_levels(self.levels, clouds)
        of_cloud = segment_max(self.mix(local, *clouds[1:]), clouds.batch, clouds.batch_size)
        x = torch.cat([of_cloud[clouds.batch], local], dim=1)
        return self.decoder[0](x, *clouds[1:], category=category)

    def forward(
        self,
        x: Float[Tensor, "N in_channels"] | None = None,
        pos: Pos | None = None,
        batch: Batch | None = None,
        batch_size: int | None = None,
        *,
        category: Int[Tensor, " B"] | None = None,
    ) -> Tensor:
        return self.forward_head(
            self.forward_features(x, pos, batch, batch_size, category=category)
        )


__all__ = ["DGCNNSegmentation"]
