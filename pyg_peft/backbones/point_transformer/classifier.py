"""Point Transformer for classification: five levels of vector attention, a mean, then a head."""

from collections.abc import Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from pyg_peft.backbones.flat_backbone import FlatBackbone
from pyg_peft.backbones.layers.flat_input import FlatClouds
from pyg_peft.backbones.layers.stages import Stage, encode, features, mean_of_clouds
from pyg_peft.backbones.layers.tokens import check_sizes
from pyg_peft.backbones.point_transformer.level import TransitionDown
from pyg_peft.backbones.weights import infer_depth
from pyg_peft.backbones.weights.flat_files import OwnWeights
from pyg_peft.errors import check_count
from pyg_peft.symmetries import Symmetries


@Symmetries(
    permutation="invariant",
    translation=False,
    rotation=False,
    note="Positions are the first features. At exact ties the order of the points matters.",
)
class PointTransformer(FlatBackbone):
    """The Point Transformer classifier, after `"Point Transformer"
    <https://arxiv.org/abs/2012.09164>`_, figure 3.

    ``from_checkpoint`` infers all sizes except ``k``, ``stride`` and ``head_dropout``.

    Args:
        num_classes: Number of classes.
        in_channels: Width of the point features ``x``, which are appended to the coordinates.
        channels: Width of each level.
        depths: Number of blocks of each level; the default is the usual choice, since the paper
            gives none.
        k: Neighbors of a point in each level, itself included.
        stride: Factor by which each level but the first reduces the number of points.
        share: Number of channels that share an attention weight.
        head_channels: Widths of the hidden layers of the head.
        head_dropout: Dropout probability after each hidden layer of the head.

    Shapes:
        x (N, in_channels), pos (N, 3), batch (N); output (B, num_classes).

    Symmetries:

    Raises:
        ValueError: If a size is not positive, if the sizes differ in number, or if ``x`` has the
            wrong number of channels.

    Differences:
        Sampling starts at the point of smallest coordinates (x, then y, then z). A cloud of ``n``
        points keeps ``n / stride``, rounded up. Queries, keys and values have no bias, as in PyG.

    Example:
        >>> import torch
        >>> from pyg_peft.backbones import PointTransformer
        >>> model = PointTransformer(num_classes=4, channels=(16, 32), depths=(1, 1), k=(8, 8))
        >>> pos, batch = torch.randn(90, 3), torch.arange(3).repeat_interleave(30)
        >>> model.eval()(pos=pos, batch=batch).shape
        torch.Size([3, 4])
    """

    task: ClassVar[str] = "classification"

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
        head_channels: Sequence[int] = (256, 128),
        head_dropout: float = 0.5,
    ) -> None:
        super().__init__(
            num_classes, in_channels, head_channels=head_channels, head_dropout=head_dropout
        )
        self.channels = check_sizes(channels, "channels")
        self.depths = check_sizes(depths, "depths", least=0)
        self.k = check_sizes(k, "k")
        self.stride = check_count(stride, "stride")
        self.share = check_count(share, "share")
        self.embed_dim = self.channels[-1]
        self.levels = point_transformer_levels(
            self.in_channels, self.channels, self.depths, self.k, self.stride, self.share
        )
        self.reset_head(self.num_classes)

    @staticmethod
    def infer_sizes(weights: OwnWeights) -> dict[str, Any]:
        return level_sizes(weights)

    def compute_features(self, clouds: FlatClouds) -> Float[Tensor, "B C"]:
        """Return the mean over the last level, ``[B, embed_dim]``; zero for an empty cloud."""
        stage = Stage(clouds.points, clouds.pos, clouds.batch)
        last = encode(self.levels, stage, clouds.batch_size)[-1]
        return mean_of_clouds(features(last), last.batch, clouds.batch_size)


def point_transformer_levels(
    in_channels: int,
    channels: Sequence[int],
    depths: Sequence[int],
    k: Sequence[int],
    stride: int,
    share: int,
) -> nn.ModuleList:
    """Build the levels of the encoder; the first keeps all points."""
    for name, sizes in (("depths", depths), ("k", k)):
        if len(sizes) != len(channels):
            raise ValueError(
                f"Expected '{name}' to name as many levels as 'channels', {len(channels)} "
                f"(got {len(sizes)})"
            )
    levels = nn.ModuleList()
    width = 3 + in_channels
    for number, (channel, depth, near) in enumerate(zip(channels, depths, k, strict=True)):
        step = stride if number else 1
        levels.append(TransitionDown(width, channel, stride=step, k=near, depth=depth, share=share))
        width = channel
    return levels


def level_sizes(weights: OwnWeights) -> dict[str, Any]:
    """Return the constructor arguments that can be inferred from the encoder's weights."""
    channels = [level[-1] for level in weights.channels("levels", r"conv\.local_nn|mlp")]
    depths = [infer_depth(weights.state, f"levels.{n}.blocks") for n in range(len(channels))]
    sizes: dict[str, Any] = {
        "in_channels": weights.inputs("levels.0.mlp.lins.0.weight") - 3,
        "channels": channels,
        "depths": depths,
    }
    with_blocks = [number for number, depth in enumerate(depths) if depth]
    if with_blocks:
        narrow = weights.state.get(f"levels.{with_blocks[0]}.blocks.0.conv.attn_nn.5.bias")
        if narrow is not None and narrow.numel():
            sizes["share"] = channels[with_blocks[0]] // narrow.numel()
    return sizes


__all__ = ["PointTransformer"]
