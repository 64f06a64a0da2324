"""PointNet++ for classification: a PointNet around sampled centers, in each of several levels."""

from collections.abc import Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from pyg_peft.backbones.flat_backbone import FlatBackbone
from pyg_peft.backbones.layers.flat_input import FlatClouds
from pyg_peft.backbones.layers.stages import Stage, encode, features
from pyg_peft.backbones.layers.tokens import check_levels, check_sequence, check_sizes
from pyg_peft.backbones.pointnet2.set_abstraction import GlobalSetAbstraction, SetAbstraction
from pyg_peft.backbones.weights.flat_files import OwnWeights
from pyg_peft.errors import check_number
from pyg_peft.symmetries import Symmetries


@Symmetries(
    permutation="invariant",
    translation=False,
    rotation=False,
    note="The last level takes positions. At exact ties the order of the points matters.",
)
class PointNetPlusPlus(FlatBackbone):
    """The PointNet++ classifier with single-scale grouping, after `"PointNet++: Deep Hierarchical
    Feature Learning on Point Sets in a Metric Space" <https://arxiv.org/abs/1706.02413>`_.

    Each level samples centers and summarizes the points in a ball around each center. The last
    level summarizes the cloud.

    ``from_checkpoint`` infers all sizes except ``num_centers``, ``radii``, ``patch_sizes`` and
    ``head_dropout``.

    Args:
        num_classes: Number of classes.
        in_channels: Width of the point features ``x``.
        channels: Widths of the layers of each level; those of the last level process the whole
            cloud.
        num_centers: Number of centers per cloud of each level but the last.
        radii: Radius of the balls of each level, in the unit of ``pos``; the paper's clouds are in
            the unit ball.
        patch_sizes: Maximum number of points of a ball.
        head_channels: Widths of the hidden layers of the head.
        head_dropout: Dropout probability after each hidden layer of the head.

    Shapes:
        x (N, in_channels), pos (N, 3), batch (N); output (B, num_classes).

    Symmetries:

    Raises:
        ValueError: If a size is not positive, if the sizes differ in number, or if ``x`` has the
            wrong number of channels.

    Differences:
        Sampling starts at the point of smallest coordinates (x, then y, then z), not at a cloud's
        first point. A ball keeps its nearest points, not the first in memory. It does not repeat a
        point to fill up, which makes no difference to a maximum but does to batch statistics.

    Example:
        >>> import torch
        >>> from pyg_peft.backbones import PointNetPlusPlus
        >>> model = PointNetPlusPlus(num_classes=4).eval()
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
        channels: Sequence[Sequence[int]] = ((64, 64, 128), (128, 128, 256), (256, 512, 1024)),
        num_centers: Sequence[int] = (512, 128),
        radii: Sequence[float] = (0.2, 0.4),
        patch_sizes: Sequence[int] = (32, 64),
        head_channels: Sequence[int] = (512, 256),
        head_dropout: float = 0.5,
    ) -> None:
        super().__init__(
            num_classes, in_channels, head_channels=head_channels, head_dropout=head_dropout
        )
        self.channels = check_levels(channels, "channels")
        self.num_centers = check_sizes(num_centers, "num_centers")
        self.radii = check_radii(radii)
        self.patch_sizes = check_sizes(patch_sizes, "patch_sizes")
        self.embed_dim = self.channels[-1][-1]
        self.levels = pointnet2_levels(
            self.in_channels, self.channels, self.num_centers, self.radii, self.patch_sizes
        )
        if not isinstance(self.levels[-1], GlobalSetAbstraction):
            raise ValueError(
                f"Expected 'num_centers' to name all levels but the last, {len(self.channels) - 1} "
                f"(got {len(self.num_centers)})"
            )
        self.reset_head(self.num_classes)

    @staticmethod
    def infer_sizes(weights: OwnWeights) -> dict[str, Any]:
        return level_sizes(weights)

    def compute_features(self, clouds: FlatClouds) -> Float[Tensor, "B C"]:
        """Return one feature per cloud, ``[B, embed_dim]``; zero for an empty cloud."""
        stage = Stage(clouds.x, clouds.pos, clouds.batch)
        return features(encode(self.levels, stage, clouds.batch_size)[-1])


def check_radii(radii: Any) -> tuple[float, ...]:
    """Return the radii of the levels; raise unless all are positive numbers."""
    return tuple(
        check_number(radius, f"radii[{place}]", above=0, infinite=True)
        for place, radius in enumerate(check_sequence(radii, "radii"))
    )


def pointnet2_levels(
    in_channels: int,
    channels: Sequence[Sequence[int]],
    num_centers: Sequence[int],
    radii: Sequence[float],
    patch_sizes: Sequence[int],
) -> nn.ModuleList:
    """Build the levels of PointNet++; an extra entry of ``channels`` is for whole clouds."""
    for name, sizes in (("radii", radii), ("patch_sizes", patch_sizes)):
        if len(sizes) != len(num_centers):
            raise ValueError(
                f"Expected '{name}' to name as many levels as 'num_centers', {len(num_centers)} "
                f"(got {len(sizes)})"
            )
    if len(channels) - len(num_centers) not in (0, 1) or not num_centers:
        raise ValueError(
            f"Expected 'channels' to name {len(num_centers)} levels and one for whole clouds "
            f"(got {len(channels)})"
        )
    levels = nn.ModuleList()
    for widths, centers, radius, size in zip(
        channels, num_centers, radii, patch_sizes, strict=False
    ):
        levels.append(
            SetAbstraction(in_channels, widths, num_centers=centers, radius=radius, patch_size=size)
        )
        in_channels = widths[-1]
    if len(channels) > len(num_centers):
        levels.append(GlobalSetAbstraction(in_channels, channels[-1]))
    return levels


def level_sizes(weights: OwnWeights) -> dict[str, Any]:
    """Return the constructor arguments that can be inferred from the encoder's weights."""
    return {
        "in_channels": weights.inputs("levels.0.conv.local_nn.lins.0.weight") - 3,
        "channels": weights.channels("levels", r"conv\.local_nn|mlp"),
    }


__all__ = ["PointNetPlusPlus"]
