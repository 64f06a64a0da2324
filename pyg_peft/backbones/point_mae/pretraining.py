"""Pre-training of Point-MAE: hide most patches of a cloud and rebuild their points."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from pyg_peft.backbones.layers.transformer import check_heads
from pyg_peft.backbones.point_mae.classifier import PointMAE
from pyg_peft.backbones.point_mae.decoder import PointMAEDecoder
from pyg_peft.backbones.point_mae.encoder import PointMAEEncoder
from pyg_peft.backbones.point_mae.files import pretraining_weights
from pyg_peft.backbones.point_mae.masking import draw_mask, split_patches
from pyg_peft.backbones.point_mae.reconstruction import Reconstruction
from pyg_peft.backbones.weights import agreed_sizes, build_checked
from pyg_peft.errors import check_count, check_number
from pyg_peft.geometry import Patches
from pyg_peft.geometry.chamfer import loss_of_rebuilt
from pyg_peft.symmetries import Symmetries
from pyg_peft.typing import Batch, Mask, Pos, Tokens


@Symmetries(
    permutation="invariant",
    first_point=True,
    translation=False,
    rotation=False,
    depends_on=("pos",),
    note="Given its patches and the mask: invariant under permutations of a cloud's patches.",
)
class PointMAEPretraining(PointMAEEncoder):
    r"""Pre-train the masked autoencoder of `"Masked Autoencoders for Point Cloud Self-supervised
    Learning" <https://arxiv.org/abs/2203.06604>`_.

    The encoder processes the visible patches of a cloud. A shallow decoder takes their features and
    a learned ``mask_token`` at the center of each hidden patch, and predicts the points of the
    hidden patches. The loss is the chamfer distance to the true points, over all hidden patches of
    the batch:

    .. math::
        \frac{1}{n} \sum_{a} \min_{b} \lVert a - b \rVert^2
        + \frac{1}{n} \sum_{b} \min_{a} \lVert a - b \rVert^2

    Args:
        embed_dim: Width of a token.
        depth: Number of encoder blocks.
        num_heads: Number of attention heads of the encoder.
        num_centers: Number of patches of a cloud.
        patch_size: Number of points of a patch.
        decoder_depth: Number of decoder blocks.
        decoder_num_heads: Number of attention heads of the decoder.
        mask_ratio: Share of hidden patches of a cloud, rounded down to whole patches.
        drop_path: Probability that a cloud skips a residual branch of the last encoder (or decoder)
            block while training; it grows linearly from 0 at the first.

    Shapes:
        pos (N, 3), batch (N), mask (B, G), true for hidden patches; output: a scalar.

    Symmetries:

    Raises:
        ValueError: If ``mask_ratio`` is not in ``(0, 1)``, if it hides no patch, or if a size is
            not positive.

    Differences:
        The authors embed all patches and then drop the hidden ones, which influence training
        through batch statistics alone. Here only visible patches are embedded. In clouds with fewer
        points than ``num_centers``, the hidden share is that of the patches that they have.

    Example:
        >>> import torch
        >>> from pyg_peft.backbones import PointMAEPretraining
        >>> model = PointMAEPretraining(embed_dim=12, depth=1, num_heads=3, num_centers=8,
        ...                             patch_size=4, decoder_depth=1, decoder_num_heads=3)
        >>> pos, batch = torch.randn(90, 3), torch.arange(3).repeat_interleave(30)
        >>> model(pos, batch, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([])
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
    ) -> None:
        decoder_depth = check_count(decoder_depth, "decoder_depth")
        if not 0.0 < check_number(mask_ratio, "mask_ratio") < 1.0:
            raise ValueError(f"Expected 'mask_ratio' to lie in (0, 1) (got {mask_ratio})")
        if int(check_count(num_centers, "num_centers") * mask_ratio) < 1:
            raise ValueError(
                f"Expected 'mask_ratio' to hide one patch of {num_centers} (got {mask_ratio})"
            )
        super().__init__(
            embed_dim,
            depth,
            num_heads,
            num_centers,
            patch_size,
            in_channels=0,
            drop_path=drop_path,
        )
        self.decoder_depth = decoder_depth
        self.decoder_num_heads = check_heads(decoder_num_heads, self.embed_dim, "decoder_num_heads")
        self.mask_ratio = mask_ratio
        self.decoder = PointMAEDecoder(
            self.embed_dim,
            decoder_depth,
            self.decoder_num_heads,
            self.patch_size,
            drop_path=drop_path,
        )
        self.reset_parameters()

    @classmethod
    def from_checkpoint(cls, source: str | Path | Mapping[str, Any], **sizes: Any) -> Self:
        """Build the model that fits a pre-training file, and load the weights.

        Widths, depths and ``patch_size`` are inferred from the weights.

        Args:
            source: File or mapping, with the published keys or this library's.
            **sizes: Constructor arguments that cannot be inferred from the weights: ``num_heads``,
                ``num_centers``, ``decoder_num_heads``, ``mask_ratio``, ``drop_path``.

        Raises:
            FileNotFoundError: If the file does not exist.
            CheckpointError: If the file is damaged, has no decoder, or has keys or shapes that do
                not fit.
        """
        state, read = pretraining_weights(source, cls.__name__)
        model = build_checked(lambda: cls(**agreed_sizes(read, sizes)), state)
        return model

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.decoder.reset_parameters()

    def to_classifier(self, num_classes: int, **options: Any) -> PointMAE:
        """Return a :class:`PointMAE` with a copy of this encoder and a newly initialized head.

        Args:
            num_classes: Number of classes.
            **options: ``in_channels``, ``drop_path`` or ``head_dropout`` of :class:`PointMAE`.
        """
        names = ("num_heads", "num_centers", "patch_size")
        sizes = {name: getattr(self, name) for name in names}
        model = PointMAE.from_checkpoint(self.state_dict(), num_classes, **sizes, **options)
        return model.to(self.norm.weight.device, self.norm.weight.dtype)

    def forward_encoder(self, visible: Patches) -> Tokens:
        """Return normalized features of the visible patches, ``[B, V, C]``."""
        return self.run_blocks(self.patch_embed(visible), self.pos_embed(visible.center), visible)

    def reconstruct(
        self,
        pos: Pos | None = None,
        batch: Batch | None = None,
        batch_size: int | None = None,
        *,
        patches: Patches | None = None,
        mask: Mask | None = None,
        generator: torch.Generator | None = None,
    ) -> Reconstruction:
        """Hide patches and rebuild them.

        Args:
            pos: Coordinates ``[N, 3]``; required unless ``patches`` is given.
            batch: Sorted cloud ids ``[N]``; ``None`` for one cloud.
            batch_size: Number of clouds, if the last ones may be empty.
            patches: Patches of the clouds, if they are already computed.
            mask: True for hidden patches, ``[B, G]``; drawn at random if ``None``.
            generator: Random generator for the mask.

        Raises:
            ValueError: If neither ``pos`` nor ``patches`` is given, or ``mask`` has the wrong
                shape.
        """
        patches = self.make_patches(pos, batch, batch_size) if patches is None else patches
        if mask is None:
            mask = draw_mask(patches, self.mask_ratio, generator)
        return self.rebuild(patches, mask)

    def make_patches(
        self,
        pos: Pos | None,
        batch: Batch | None = None,
        batch_size: int | None = None,
        x: None = None,
    ) -> Patches:
        """Cut clouds into patches of coordinates alone; raise without ``pos``."""
        if pos is None:
            raise ValueError("Expected 'pos' or 'patches' to be given (got neither)")
        return super().make_patches(pos, batch, batch_size)

    def rebuild(self, patches: Patches, mask: Mask) -> Reconstruction:
        """Hide the patches where ``mask [B, G]`` is true and predict their points."""
        visible, masked, both = split_patches(patches, mask)
        points = self.decoder(self.forward_encoder(visible), both)
        return Reconstruction(points, masked, visible)

    def loss(self, result: Reconstruction) -> Tensor:
        """Return the chamfer distance of rebuilt to true patches; zero if none is hidden.

        It is computed in the precision of the positions, regardless of that of the features.
        """
        true = result.masked.points.flatten(0, 1)
        rebuilt = result.points.to(true.dtype).flatten(0, 1)
        if result.masked.mask is not None:
            keep = result.masked.mask.flatten()
            rebuilt, true = rebuilt[keep], true[keep]
        if rebuilt.size(0) == 0:
            return rebuilt.sum()  # keeps the graph, so that every parameter has a gradient
        return loss_of_rebuilt(rebuilt, true)

    def forward(
        self,
        pos: Pos | None = None,
        batch: Batch | None = None,
        batch_size: int | None = None,
        *,
        patches: Patches | None = None,
        mask: Mask | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        result = self.reconstruct(
            pos, batch, batch_size, patches=patches, mask=mask, generator=generator
        )
        return self.loss(result)


__all__ = ["PointMAEPretraining"]
