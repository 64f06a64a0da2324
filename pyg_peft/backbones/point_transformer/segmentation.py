"""Point Transformer for segmentation: the classifier's levels, then the decoder of a U-Net."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from jaxtyping import Float
from torch import Tensor, nn

from pyg_peft.backbones.flat_backbone import FlatBackbone
from pyg_peft.backbones.layers.stages import Stage, decode, encode
from pyg_peft.backbones.layers.tokens import check_sizes
from pyg_peft.backbones.point_transformer.classifier import level_sizes, point_transformer_levels
from pyg_peft.backbones.point_transformer.level import Summit, TransitionUp
from pyg_peft.backbones.weights import build_checked, infer_depth
from pyg_peft.backbones.weights.flat_files import own_weights
from pyg_peft.errors import check_count
from pyg_peft.symmetries import Symmetries
from pyg_peft.typing import Batch, Pos


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

    Args:
        num_classes: Number of classes of a point.
        in_channels: Width of the point features ``x``, which are appended to the coordinates.
        channels: Width of each level.
        depths: Number of blocks of each level; the default is the usual choice, since the paper
            gives none.
        k: Neighbors of a point in each level, itself included.
        stride: Factor by which each level but the first reduces the number of points.
        share: Number of channels that share an attention weight.
        decoder_depth: Number of blocks of each level of the decoder.
        head_channels: Widths of the hidden layers of the head.
        head_dropout: Dropout probability after each hidden layer of the head.

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
        num_classes = check_count(num_classes, "num_classes")
        in_channels = check_count(in_channels, "in_channels", least=0)
        stride = check_count(stride, "stride")
        share = check_count(share, "share")
        decoder_depth = check_count(decoder_depth, "decoder_depth", least=0)
        super().__init__()
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.channels = check_sizes(channels, "channels")
        self.depths = check_sizes(depths, "depths", least=0)
        self.k = check_sizes(k, "k")
        self.stride = stride
        self.share = share
        self.decoder_depth = decoder_depth
        self.head_channels = check_sizes(head_channels, "head_channels", fewest=0)
        self.head_dropout = head_dropout
        self.embed_dim = self.channels[0]
        self.levels = point_transformer_levels(
            in_channels, self.channels, self.depths, self.k, stride, share
        )
        same: dict[str, int] = {"depth": decoder_depth, "share": share}
        self.decoder = nn.ModuleList([Summit(self.channels[-1], k=self.k[-1], **same)])
        for number in reversed(range(len(self.channels) - 1)):
            coarse, fine = self.channels[number + 1], self.channels[number]
            self.decoder.append(TransitionUp(coarse, fine, k=self.k[number], **same))
        self.reset_head(num_classes)

    @classmethod
    def from_checkpoint(
        cls, source: str | Path | Mapping[str, Any], num_classes: int | None = None, **sizes: Any
    ) -> Self:
        """Build the model that fits a file of weights, and load the weights.

        Widths and depths are inferred from the weights. If the file is a classifier's, the decoder
        and the head are newly initialized.

        Args:
            source: File, or mapping with this library's keys; see ``read_state_dict``.
            num_classes: Number of classes. Required if the file has no head for points; otherwise
                it must match the file's head.
            **sizes: Constructor arguments that cannot be inferred from the weights: ``k``,
                ``stride``, ``head_dropout``; ``decoder_depth`` and ``head_channels`` if these are
                newly initialized.

        Raises:
            FileNotFoundError: If the file does not exist.
            CheckpointError: If the file is damaged, or if keys or shapes do not fit; the message
                names all of them.
            ValueError: If ``num_classes`` is missing or differs from the file's head.
        """
        weights = own_weights(source, num_classes, name=cls.__name__, segments=True)
        read = {**level_sizes(weights), **weights.head_channels()}
        if weights.has("decoder."):
            read["decoder_depth"] = infer_depth(weights.state, "decoder.0.blocks")
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
        stage = Stage(clouds.points, clouds.pos, clouds.batch)
        stages = encode(self.levels, stage, clouds.batch_size)[1:]
        summit, *ups = self.decoder
        coarse = stages[-1]._replace(x=summit(*stages[-1], clouds.batch_size))
        return decode(ups, coarse, stages[:-1], clouds.batch_size)


__all__ = ["PointTransformerSegmentation"]
