"""T-Net: a small PointNet that predicts a matrix to align each cloud."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyg_peft.backbones.layers.segment_max import segment_max
from pyg_peft.backbones.layers.shared_mlp import shared_mlp
from pyg_peft.errors import check_count, check_dtype, check_tensor
from pyg_peft.geometry.layout import count_clouds, offsets, to_dense
from pyg_peft.symmetries import Symmetries


@Symmetries(permutation="equivariant", depends_on=("x",))
class TNet(nn.Module):
    r"""Predict a matrix for each cloud and apply it to its points, after `"PointNet"
    <https://arxiv.org/abs/1612.00593>`_, figure 2.

    .. math::
        \mathbf{x}'_i = \mathbf{x}_i \mathbf{T}_b, \qquad
        \mathbf{T}_b = \mathbf{I} + \mathrm{lin}(\mathrm{mlp}_{512, 256}(
        \max_{j \in b} \mathrm{mlp}_{64, 128, 1024}(\mathbf{x}_j)))

    Identity at init, because :math:`\mathrm{lin}` starts at zero.

    Args:
        channels: Width of the rows that are aligned.

    Shapes:
        x (N, channels), batch (N); output (N, channels).

    Symmetries:

    Example:
        >>> x = torch.randn(5, 3)
        >>> torch.equal(TNet(3).eval()(x, torch.zeros(5, dtype=torch.long), 1), x)
        True
    """

    def __init__(self, channels: int) -> None:
        channels = check_count(channels, "channels")
        super().__init__()
        self.channels = channels
        self.point_mlp = shared_mlp(channels, 64, 128, 1024)
        self.cloud_mlp = shared_mlp(1024, 512, 256)
        self.lin = nn.Linear(256, channels * channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.point_mlp.reset_parameters()
        self.cloud_mlp.reset_parameters()
        nn.init.zeros_(self.lin.weight)
        nn.init.zeros_(self.lin.bias)

    def matrices(self, x: Tensor, batch: Tensor, batch_size: int) -> Float[Tensor, "B C C"]:
        """Return the matrix of each cloud."""
        x = segment_max(self.point_mlp(x), batch, batch_size)  # [B, 1024]
        x = self.lin(self.cloud_mlp(x)).unflatten(1, (self.channels, self.channels))
        return x + torch.eye(self.channels, dtype=x.dtype, device=x.device)

    def forward(self, x: Tensor, batch: Tensor, batch_size: int) -> Tensor:
        check_tensor(x, "x", shape=("N", self.channels))
        check_dtype(x, self.lin.weight)
        check_tensor(batch, "batch", shape=x.shape[:1], kind="int", device=x.device)
        batch_size = count_clouds(batch, check_count(batch_size, "batch_size", least=0))
        ptr = offsets(batch, x.size(0), batch_size)  # also checks the ids
        batch = batch.long()
        matrices = self.matrices(x, batch, batch_size)
        aligned = to_dense(x, batch, batch_size)[0] @ matrices  # [B, n, C]
        place = torch.arange(x.size(0), device=x.device) - ptr[batch]
        return aligned[batch, place]

    def extra_repr(self) -> str:
        return f"channels={self.channels}"


def orthogonality_penalty(matrices: Float[Tensor, "B C C"]) -> Tensor:
    r"""Return :math:`\lVert \mathbf{I} - \mathbf{T} \mathbf{T}^\top \rVert_F^2`, averaged over
    clouds.

    The paper adds 0.001 times the penalty of the feature transform to the loss (equation 2).

    Args:
        matrices: Matrices from :meth:`TNet.matrices`.

    Example:
        >>> orthogonality_penalty(2 * torch.eye(3).unsqueeze(0))
        tensor(27.)
    """
    check_tensor(matrices, "matrices", shape=("B", "C", "C"), kind="float", values=False)
    if matrices.size(0) == 0 or matrices.size(1) != matrices.size(2):
        raise ValueError(
            "Expected 'matrices' to hold at least one square matrix "
            f"(got shape {list(matrices.shape)})"
        )
    product = matrices @ matrices.transpose(1, 2)
    identity = torch.eye(product.size(1), dtype=product.dtype, device=product.device)
    return (identity - product).square().sum(dim=(1, 2)).mean()


__all__ = ["TNet", "orthogonality_penalty"]
