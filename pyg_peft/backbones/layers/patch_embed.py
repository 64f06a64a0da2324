"""Patch embedding of the Point-MAE family: a small PointNet from patches to tokens."""

import torch
from torch import Tensor, nn

from pyg_peft.errors import check_count, check_tensor, described
from pyg_peft.geometry import Patches
from pyg_peft.symmetries import Symmetries
from pyg_peft.typing import Tokens


@Symmetries(
    permutation="invariant",
    of="a patch's members",
    rotation=False,
    note="Translation does not reach it, because the members are relative to their center.",
)
class PatchEmbed(nn.Module):
    r"""Embed each patch with a small PointNet: two shared MLPs, each followed by a maximum.

    With the members :math:`\mathbf{p}_j` of a patch relative to its center,

    .. math::
        \mathbf{f}_j &= \mathrm{lift}(\mathrm{relu}(\mathrm{norm}_1(\mathrm{stem}(\mathbf{p}_j)))),
        \qquad \mathbf{g} = \max_j \mathbf{f}_j \\
        \mathbf{t} &= \max_j \mathrm{proj}\bigl(\mathrm{relu}(\mathrm{norm}_2(
        \mathbf{W}_g \mathbf{g} + \mathbf{W}_l \mathbf{f}_j + \mathbf{b}))\bigr)

    The first maximum is the same for all members, so :math:`\mathbf{W}_g` (``global_proj``) is
    applied once per patch and :math:`\mathbf{W}_l` (``local_proj``) once per point.

    Args:
        embed_dim: Width of a token.
        in_channels: Width of additional point features; 0 for coordinates alone. The features enter
            the first layer through their own linear map (``feature_stem``), which starts at zero.
            Weights trained on coordinates therefore keep their output until this map is trained.

    Shapes:
        patches.points (B, G, K, 3), patches.features (B, G, K, in_channels); output (B, G, C),
        zero where ``patches.mask`` is false.

    Symmetries:

    Raises:
        ValueError: If features are missing, have the wrong width, or are given although
            ``in_channels=0``.

    Differences:
        The authors apply one 512-wide layer to the concatenation of maximum and point features.
        Here its two halves are two layers. While training, masked patches do not enter the batch
        statistics; the authors have no masked patches.
    """

    #: Children that every adapter trains, because pre-trained weights leave them at zero.
    always_trained = ("feature_stem",)

    def __init__(self, embed_dim: int, *, in_channels: int = 0) -> None:
        embed_dim = check_count(embed_dim, "embed_dim")
        in_channels = check_count(in_channels, "in_channels", least=0)
        super().__init__()
        self.embed_dim = embed_dim
        self.in_channels = in_channels
        self.stem = nn.Linear(3, 128)
        self.feature_stem = nn.Linear(in_channels, 128, bias=False) if in_channels else None
        self.norm1 = MaskedBatchNorm(128)
        self.lift = nn.Linear(128, 256)
        self.global_proj = nn.Linear(256, 512, bias=False)
        self.local_proj = nn.Linear(256, 512)
        self.norm2 = MaskedBatchNorm(512)
        self.proj = nn.Linear(512, embed_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for module in self.children():
            module.reset_parameters()  # pyright: ignore[reportCallIssue]
        if self.feature_stem is not None:
            nn.init.zeros_(self.feature_stem.weight)

    def forward(self, patches: Patches) -> Tokens:
        if not isinstance(patches, Patches):
            raise TypeError(f"Expected 'patches' to be Patches (got {described(patches)})")
        num_clouds, num_centers, patch_size, _ = patches.points.shape
        members = (num_clouds * num_centers, patch_size)
        mask = patches.mask
        rows = None if mask is None else mask.reshape(-1, 1).expand(-1, patch_size).reshape(-1)

        x = self._stem(patches)  # [B * G * K, 128]
        x = self.norm1(x, rows).relu_()
        x = self.lift(x)  # [B * G * K, 256]
        x_max = _max_members(x.unflatten(0, members))  # [B * G, 256]
        x = self.local_proj(x).unflatten(0, members)
        x = (x + self.global_proj(x_max).unsqueeze(1)).flatten(0, 1)  # [B * G * K, 512]
        x = self.norm2(x, rows).relu_()
        x = _max_members(self.proj(x).unflatten(0, members))
        x = x.unflatten(0, (num_clouds, num_centers))  # [B, G, C]
        return x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0.0)

    def _stem(self, patches: Patches) -> Tensor:
        """Apply the first layer per point, in the precision of its weights even under autocast.

        Half precision would round the coordinates before any layer sees them.
        """
        points, features = patches.points, patches.features
        check_tensor(points, "pos", kind="float", values=False, device=self.stem.weight.device)
        if self.feature_stem is None and features is not None:
            raise ValueError(
                "Expected 'x' to be None for a backbone with in_channels=0 "
                f"(got {features.size(-1)} channels)"
            )
        with torch.autocast(points.device.type, enabled=False):
            x = self.stem(points.to(self.stem.weight.dtype).flatten(0, 2))
            if self.feature_stem is None:
                return x
            if features is None or features.size(-1) != self.in_channels:
                got = "None" if features is None else f"{features.size(-1)} channels"
                raise ValueError(f"Expected 'x' to have {self.in_channels} channels (got {got})")
            check_tensor(features, "x", kind="float", values=False)
            return x + self.feature_stem(features.to(x.dtype).flatten(0, 2))

    def extra_repr(self) -> str:
        return f"embed_dim={self.embed_dim}, in_channels={self.in_channels}"


def check_tokens(tokens: Tokens, patches: Patches, embed_dim: int) -> Tokens:
    """Return ``tokens`` after checking that there is one of width ``embed_dim`` per patch.

    Raises:
        ValueError: If the shape is wrong; it is not checked in compiled graphs.
    """
    check_tensor(tokens, "tokens", kind="float", values=False)
    expected = [*patches.center.shape[:2], embed_dim]
    if not torch.compiler.is_compiling() and list(tokens.shape) != expected:
        raise ValueError(
            f"Expected 'tokens' to be of shape {expected}, one for each patch "
            f"(got {list(tokens.shape)})"
        )
    return tokens


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch normalization of rows with training statistics that exclude masked rows.

    Without a mask, and in evaluation, this is :class:`torch.nn.BatchNorm1d`. With a mask, valid
    rows get the same result as if the masked rows had been removed first. No shape depends on the
    values of the mask, so graphs compile.

    Args:
        num_features: Width of a row.

    Shapes:
        x (R, C), mask (R), true for valid rows; output (R, C).

    Raises:
        ValueError: From torch, if there are fewer than two rows while training without a mask. With
            a mask, fewer than two valid rows normalize to the bias and do not update the
            statistics.
    """

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None or not self.training:
            return super().forward(input)
        weight = mask.unsqueeze(1).to(input.dtype)
        count = weight.sum().clamp(min=1.0)
        mean = (input * weight).sum(0) / count
        centered = input - mean
        var = (centered.square() * weight).sum(0) / count
        self._update_running_stats(mean.detach(), var.detach(), count)
        return centered * torch.rsqrt(var + self.eps) * self.weight + self.bias

    def _update_running_stats(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        # As in torch: the running variance is unbiased, and an empty batch updates nothing.
        momentum = torch.where(count > 1.0, self.momentum, 0.0).to(mean.dtype)
        var = var * count / (count - 1.0).clamp(min=1.0)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(var.to(self.running_var.dtype), momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def _max_members(x: Tensor) -> Tensor:
    """Return the maximum over the members of each patch, ``[P, K, C]`` to ``[P, C]``.

    ``amax`` is several times faster in the forward pass. ``max`` is several times faster in the
    backward pass, because it stores the position of the maximum. The values are the same.
    """
    return x.max(dim=1).values if x.requires_grad else x.amax(dim=1)


__all__ = ["PatchEmbed", "check_tokens"]
