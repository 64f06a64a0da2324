"""PointNet for classification: shared layers on all points, a maximum, then a head."""

from collections.abc import Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from pyg_peft.backbones.flat_backbone import FlatBackbone
from pyg_peft.backbones.layers.flat_input import FlatClouds
from pyg_peft.backbones.layers.point_level import PointLevel
from pyg_peft.backbones.layers.segment_max import segment_max
from pyg_peft.backbones.layers.tokens import check_levels
from pyg_peft.backbones.pointnet.keys import map_pointnet_keys
from pyg_peft.backbones.weights.flat_files import OwnWeights
from pyg_peft.backbones.weights.reading import State
from pyg_peft.errors import check_flag
from pyg_peft.symmetries import Symmetries


@Symmetries(permutation="invariant", translation=False, rotation=False)
class PointNet(FlatBackbone):
    """The PointNet classifier, after `"PointNet: Deep Learning on Point Sets for 3D Classification
    and Segmentation" <https://arxiv.org/abs/1612.00593>`_, figure 2.

    ``from_checkpoint`` also reads the keys of learning3d's PointNet classifier. It infers all sizes
    except ``head_dropout``.

    Args:
        num_classes: Number of classes.
        in_channels: Width of the point features ``x``, which are appended to the coordinates.
        channels: Widths of the shared layers of both levels.
        head_channels: Widths of the hidden layers of the head.
        transforms: Whether to align coordinates and the first level's features by T-Nets. Without
            them this is the paper's PointNet (vanilla).
        head_dropout: Dropout probability after the last hidden layer of the head.

    Shapes:
        x (N, in_channels), pos (N, 3), batch (N); output (B, num_classes).

    Symmetries:

    Raises:
        ValueError: If a size is not positive, or ``x`` has the wrong number of channels.

    Differences:
        The loss is left to the caller; the paper's adds
        :func:`~pyg_peft.backbones.orthogonality_penalty`. The feature of an empty cloud is zero.

    Example:
        >>> import torch
        >>> from pyg_peft.backbones import PointNet
        >>> model = PointNet(num_classes=4).eval()
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
        channels: Sequence[Sequence[int]] = ((64, 64), (64, 128, 1024)),
        head_channels: Sequence[int] = (512, 256),
        transforms: bool = True,
        head_dropout: float = 0.3,
    ) -> None:
        super().__init__(
            num_classes, in_channels, head_channels=head_channels, head_dropout=head_dropout
        )
        self.channels = check_levels(channels, "channels")
        self.transforms = check_flag(transforms, "transforms")
        self.embed_dim = self.channels[-1][-1]
        self.levels = pointnet_levels(self.in_channels, self.channels, self.transforms)
        self.reset_head(self.num_classes)

    @staticmethod
    def map_keys(state: State) -> State:
        return map_pointnet_keys(state)

    @staticmethod
    def infer_sizes(weights: OwnWeights) -> dict[str, Any]:
        return level_sizes(weights)

    def head_options(self) -> dict[str, Any]:
        return {"dropout": 0.0, "last_dropout": self.head_dropout}

    def compute_features(self, clouds: FlatClouds) -> Float[Tensor, "B C"]:
        """Return the maximum over each cloud, ``[B, embed_dim]``; zero for an empty cloud."""
        _, x = run_levels(self.levels, clouds)
        return segment_max(x, clouds.batch, clouds.batch_size)


def pointnet_levels(
    in_channels: int, channels: Sequence[Sequence[int]], transforms: bool
) -> nn.ModuleList:
    """Build the two levels of PointNet, with T-Nets around the first."""
    if len(channels) != 2:
        raise ValueError(f"Expected 'channels' to name two levels (got {len(channels)})")
    first, second = channels
    return nn.ModuleList(
        [
            PointLevel(3 + in_channels, first, aligns_pos=transforms, aligns_features=transforms),
            PointLevel(first[-1], second),
        ]
    )


def run_levels(levels: nn.ModuleList, clouds: FlatClouds) -> tuple[Tensor, Tensor]:
    """Return the points' features after the first level and after the last."""
    local = levels[0](clouds.points, clouds.pos, clouds.batch, clouds.batch_size)
    return local, levels[1](local, clouds.pos, clouds.batch, clouds.batch_size)


def level_sizes(weights: OwnWeights) -> dict[str, Any]:
    """Return the constructor arguments that can be inferred from the encoder's weights."""
    return {
        "in_channels": weights.inputs("levels.0.mlp.lins.0.weight") - 3,
        "channels": weights.channels("levels", "mlp"),
        "transforms": weights.has("levels.0.input_transform."),
    }


__all__ = ["PointNet"]
