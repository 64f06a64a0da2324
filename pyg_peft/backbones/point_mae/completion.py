"""Pre-training of Point-MAE that also completes the whole shape from the summary of a cloud."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from pyg_peft.backbones.layers.tokens import max_valid, prepend
from pyg_peft.backbones.point_mae.files import pretraining_weights
from pyg_peft.backbones.point_mae.masking import split_patches
from pyg_peft.backbones.point_mae.pretraining import PointMAEPretraining
from pyg_peft.backbones.point_mae.reconstruction import Reconstruction
from pyg_peft.backbones.weights import agreed_sizes, build_checked
from pyg_peft.errors import check_count, check_number
from pyg_peft.geometry import Patches, nearest_squared_distances
from pyg_peft.symmetries import Symmetries
from pyg_peft.typing import Mask, Tokens


@dataclass(frozen=True)
class Completion(Reconstruction):
    """Rebuilt patches, and the whole cloud predicted from its summary.

    Args:
        cloud: Predicted points of the whole shape, ``[B, P, 3]``; meaningless for an empty cloud.
        patches: All patches of each cloud, both hidden and visible.
    """

    cloud: Tensor
    patches: Patches


@Symmetries(
    permutation="invariant",
    first_point=True,
    translation=False,
    rotation=False,
    depends_on=("pos",),
    note="Given its patches and the mask: invariant under permutations of a cloud's patches.",
)
class PointMAECompletion(PointMAEPretraining):
    r"""Pre-train a masked autoencoder that also completes the shape from a classifier's features.

    Rebuilding hidden patches is a local task: a patch follows from its neighbors, so the features
    need not distinguish a chair from a table. Here the encoder has the summary token of
    :class:`PointMAE`. A small perceptron predicts the whole cloud from the summary token
    concatenated with the maximum over the visible tokens, which is the input of the classification
    head:

    .. math::
        L = \mathrm{CD}(\text{rebuilt patches}, \text{hidden patches})
          + \lambda \, \mathrm{CD}(\text{drawn cloud}, \text{the true one})

    The first term is that of `"Masked Autoencoders for Point Cloud Self-supervised Learning"
    <https://arxiv.org/abs/2203.06604>`_. The second is the coarse stage of `"PCN: Point Completion
    Network" <https://arxiv.org/abs/1808.00671>`_. The page on backbones shows the benefit of the
    second term at equal compute.

    Args:
        embed_dim, depth, num_heads, num_centers, patch_size: See :class:`PointMAEPretraining`.
        decoder_depth, decoder_num_heads, mask_ratio, drop_path: See :class:`PointMAEPretraining`.
        num_cloud_points: Number of points predicted for a cloud.
        completion_weight: The factor :math:`\lambda`.

    Shapes:
        pos (N, 3), batch (N), mask (B, G), true for hidden patches; output: a scalar.

    Symmetries:

    Raises:
        ValueError: As :class:`PointMAEPretraining`, and if ``completion_weight`` is not positive.

    Example:
        >>> import torch
        >>> from pyg_peft.backbones import PointMAECompletion
        >>> model = PointMAECompletion(embed_dim=12, depth=1, num_heads=3, num_centers=8,
        ...                            patch_size=4, decoder_depth=1, decoder_num_heads=3)
        >>> pos, batch = torch.randn(90, 3), torch.arange(3).repeat_interleave(30)
        >>> model.reconstruct(pos, batch).cloud.shape
        torch.Size([3, 256, 3])
    """

    def __init__(
        self,
        embed_dim: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        num_centers: int = 64,
        patch_size: int = 32,
        *,
        decoder_depth: int = 4,
        decoder_num_heads: int = 6,
        mask_ratio: float = 0.6,
        drop_path: float = 0.1,
        num_cloud_points: int = 256,
        completion_weight: float = 0.1,
    ) -> None:
        num_cloud_points = check_count(num_cloud_points, "num_cloud_points")
        check_number(completion_weight, "completion_weight", above=0)
        super().__init__(
            embed_dim,
            depth,
            num_heads,
            num_centers,
            patch_size,
            decoder_depth=decoder_depth,
            decoder_num_heads=decoder_num_heads,
            mask_ratio=mask_ratio,
            drop_path=drop_path,
        )
        self.num_cloud_points = num_cloud_points
        self.completion_weight = completion_weight
        self.cls_token = nn.Parameter(torch.empty(1, 1, self.embed_dim))
        self.cls_pos = nn.Parameter(torch.empty(1, 1, self.embed_dim))
        self.completion = nn.Sequential(
            nn.Linear(2 * self.embed_dim, 512),
            nn.GELU(),
            nn.Linear(512, 512),
            nn.GELU(),
            nn.Linear(512, 3 * num_cloud_points),
        )
        self.reset_completion()

    @classmethod
    def from_checkpoint(cls, source: str | Path | Mapping[str, Any], **sizes: Any) -> Self:
        """Build the model that fits a pre-training file, and load the weights.

        As in the parent class; ``num_cloud_points`` is inferred from the weights too.
        """
        state, read = pretraining_weights(source, cls.__name__)
        bias = state.get("completion.4.bias")
        if bias is not None:
            read["num_cloud_points"] = bias.numel() // 3
        model = build_checked(lambda: cls(**agreed_sizes(read, sizes)), state)
        return model

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if hasattr(self, "completion"):  # not yet set when the parent's constructor calls this
            self.reset_completion()

    def reset_completion(self) -> None:
        """Initialize the summary token and the perceptron again."""
        for token in (self.cls_token, self.cls_pos):
            nn.init.trunc_normal_(token, std=0.02)
        for layer in self.completion:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()

    def forward_features(self, visible: Patches) -> Tokens:
        """Return the normalized summary token and visible tokens, ``[B, 1 + V, C]``."""
        x = prepend(self.cls_token, self.patch_embed(visible))
        code = prepend(self.cls_pos, self.pos_embed(visible.center))
        return self.run_blocks(x, code, visible)

    def forward_encoder(self, visible: Patches) -> Tokens:
        return self.forward_features(visible)[:, 1:]

    def rebuild(self, patches: Patches, mask: Mask) -> Completion:
        visible, masked, both = split_patches(patches, mask)
        x = self.forward_features(visible)
        points = self.decoder(x[:, 1:], both)
        summary = torch.cat([x[:, 0], max_valid(x[:, 1:], visible.mask)], dim=-1)
        cloud = self.completion(summary).unflatten(1, (self.num_cloud_points, 3))
        return Completion(points, masked, visible, cloud, patches)

    def loss(self, result: Reconstruction) -> Tensor:
        """Return the chamfer distance of patches plus the weighted one of whole clouds."""
        if not isinstance(result, Completion):
            raise TypeError(f"Expected 'result' to be a Completion (got {type(result).__name__})")
        return super().loss(result) + self.completion_weight * completion_loss(result)


def completion_loss(result: Completion) -> Tensor:
    """Return the chamfer distance of predicted clouds to a quarter of all patch members.

    Empty clouds count as zero.

    Args:
        result: Output of :meth:`PointMAECompletion.reconstruct`.
    """
    patches = result.patches
    # Members are sorted by distance from the center, so every fourth one covers a patch well.
    members = patches.points[:, :, ::4] + patches.center.unsqueeze(2)
    per_patch = members.size(2)
    members = members.flatten(1, 2)  # [B, G * K / 4, 3]
    if members.size(0) == 0 or members.size(1) == 0:
        return 0.0 * result.cloud.sum()  # keeps the graph, so that every parameter has a gradient
    cloud = result.cloud.to(members.dtype)
    if patches.mask is None:
        forth, back = nearest_squared_distances(cloud, members)
        return forth.mean() + back.mean()
    # A masked member is replaced by a valid one, which changes no minimum; its row counts zero.
    valid = patches.mask.repeat_interleave(per_patch, dim=1)
    first = valid.byte().argmax(dim=1)[:, None, None].expand(-1, 1, 3)
    forth, back = nearest_squared_distances(
        cloud, torch.where(valid.unsqueeze(-1), members, members.gather(1, first))
    )
    filled = patches.mask.any(dim=1, keepdim=True).to(forth.dtype).expand_as(forth)
    rows = valid.to(back.dtype)
    return (forth * filled).sum() / filled.sum().clamp(min=1) + (
        back * rows
    ).sum() / rows.sum().clamp(min=1)


__all__ = ["Completion", "PointMAECompletion", "completion_loss"]
