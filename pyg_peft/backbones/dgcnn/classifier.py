"""DGCNN for classification: edge convolutions on graphs in feature space, then a head."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyg_peft.backbones.dgcnn.edge_conv_block import edge_conv_levels
from pyg_peft.backbones.flat_backbone import FlatBackbone
from pyg_peft.backbones.layers.flat_input import FlatClouds
from pyg_peft.backbones.layers.point_level import PointLevel
from pyg_peft.backbones.layers.segment_max import segment_max
from pyg_peft.backbones.layers.stages import mean_of_clouds
from pyg_peft.backbones.layers.tokens import check_levels
from pyg_peft.backbones.weights.flat_files import OwnWeights
from pyg_peft.errors import check_count
from pyg_peft.symmetries import Symmetries


@Symmetries(
    permutation="invariant",
    translation=False,
    rotation=False,
    note="Positions are the first features. At exact ties the order of the points matters.",
)
class DGCNN(FlatBackbone):
    """The DGCNN classifier, after `"Dynamic Graph CNN for Learning on Point Clouds"
    <https://arxiv.org/abs/1801.07829>`_, section 4.1.

    ``from_checkpoint`` infers all sizes except ``k`` and ``head_dropout``.

    Args:
        num_classes: Number of classes.
        in_channels: Width of the point features ``x``, which are appended to the coordinates.
        channels: Widths of the layers of each edge convolution.
        mix_channels: Width of the layer on the concatenated features of all levels.
        k: Number of neighbors of a point, including the point itself; the paper takes 20 of 1,024
            points, 40 of 2,048.
        head_channels: Widths of the hidden layers of the head.
        head_dropout: Dropout probability after each hidden layer of the head.

    Shapes:
        x (N, in_channels), pos (N, 3), batch (N); output (B, num_classes).

    Symmetries:

    Raises:
        ValueError: If a size is not positive, or ``x`` has the wrong number of channels.

    Differences:
        The first graph is built from positions even if there are features. There is no spatial
        transformer in front; the paper's classifier has none either.

    Example:
        >>> import torch
        >>> from pyg_peft.backbones import DGCNN
        >>> model = DGCNN(num_classes=4, k=8).eval()
        >>> pos, batch = torch.randn(90, 3), torch.arange(3).repeat_interleave(30)
        >>> model(pos=pos, batch=batch).shape
        torch.Size([3, 4])
    """

    task: ClassVar[str] = "classification"

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 0,
        *,
        channels: Sequence[Sequence[int]] = ((64,), (64,), (128,), (256,)),
        mix_channels: int = 1024,
        k: int = 20,
        head_channels: Sequence[int] = (512, 256),
        head_dropout: float = 0.5,
    ) -> None:
        super().__init__(
            num_classes, in_channels, head_channels=head_channels, head_dropout=head_dropout
        )
        self.channels = check_levels(channels, "channels")
        self.mix_channels = check_count(mix_channels, "mix_channels")
        self.k = check_count(k, "k")
        self.embed_dim = 2 * self.mix_channels
        self.levels = edge_conv_levels(self.in_channels, self.channels, self.k)
        together = sum(level[-1] for level in self.channels)
        self.mix = PointLevel(together, (self.mix_channels,), slope=0.2, bias=False)
        self.reset_head(self.num_classes)

    @staticmethod
    def infer_sizes(weights: OwnWeights) -> dict[str, Any]:
        return level_sizes(weights)

    def head_options(self) -> dict[str, Any]:
        return {"dropout": self.head_dropout, "slope": 0.2, "first_bias": False}

    def compute_features(self, clouds: FlatClouds) -> Float[Tensor, "B C"]:
        """Return maximum and mean of each cloud, ``[B, embed_dim]``; zero for an empty cloud."""
        mixed: Tensor = self.mix(run_levels(self.levels, clouds), *clouds[1:])
        largest = segment_max(mixed, clouds.batch, clouds.batch_size)
        mean = mean_of_clouds(mixed, clouds.batch, clouds.batch_size)
        return torch.cat([largest, mean], dim=1)


def run_levels(levels: nn.ModuleList, clouds: FlatClouds) -> Tensor:
    """Return the concatenated features of all levels."""
    x, found = clouds.points, list[Tensor]()
    for level in levels:
        x = level(x, *clouds[1:])
        found.append(x)
    return torch.cat(found, dim=1)


def level_sizes(weights: OwnWeights) -> dict[str, Any]:
    """Return the constructor arguments that can be inferred from the encoder's weights."""
    width = weights.inputs("levels.0.conv.nn.lins.0.weight")
    weights.inputs("mix.mlp.lins.0.weight")
    return {
        "in_channels": width // 2 - 3,
        "channels": weights.channels("levels", r"conv\.nn"),
        "mix_channels": weights.state["mix.mlp.lins.0.weight"].size(0),
    }


__all__ = ["DGCNN"]
