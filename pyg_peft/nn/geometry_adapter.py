"""Geometry-aware adapter: a correction of point features by their neighborhoods."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from pyg_peft.errors import (
    check_count,
    check_dtype,
    check_number,
    check_scale,
    check_tensor,
    described,
)
from pyg_peft.geometry import Structure, build_structure, to_dense
from pyg_peft.geometry.interpolation import weighted_sums
from pyg_peft.nn.bottleneck import Bottleneck
from pyg_peft.nn.neighbor_attention import NeighborAttention
from pyg_peft.nn.neighbor_max import neighbor_max
from pyg_peft.symmetries import Symmetries
from pyg_peft.typing import Batch, Features, Pos


@Symmetries(
    permutation="equivariant",
    reach=2,
    note=(
        "Invariant to the order of a center's members. Depends on positions only through "
        "neighborhoods and distances. The invariance is that of a function of ``pos`` with ``x`` "
        "fixed, except at exact ties. So a model stays invariant if ``x`` is invariant, that is, "
        "if its channels are scalars (``0e`` of e3nn). For channels that rotate or change sign "
        "with the cloud (pseudoscalars, vectors, higher irreps), layer norm, maximum and "
        "activations act on each channel separately: the output is then neither invariant nor "
        "equivariant. The output of a point depends on the point itself, the centers that it "
        "receives from and their members. Rows without a center only pass through the "
        "bottleneck."
    ),
)
class GeometryAwareAdapter(MessagePassing):
    r"""Adds information from surrounding neighborhoods to each point, after `"Point-PEFT:
    Parameter-Efficient Fine-Tuning for 3D Pre-trained Models" <https://arxiv.org/abs/2310.03059>`_.

    .. math::
        \mathbf{y}_{cj} &= \mathbf{x}_j + \mathrm{Attention}_{\mathcal{N}(c)}(\mathbf{x})_j
        \qquad j \in \mathcal{N}(c) \\
        \mathbf{z}_c &= \mathrm{GELU}\big(\mathrm{BN}(\max_{j \in \mathcal{N}(c)}
        \mathbf{y}_{cj})\big) + \lambda \, \mathbf{x}_c \\
        \mathbf{h}_i &= \mathbf{x}_i + g \sum_{c} w_{ci} \, \mathbf{z}_c \\
        \mathbf{x}'_i &= \mathbf{h}_i + s \, \big( \mathbf{W}_{up} \,
        q(\mathbf{W}_{down} \mathbf{h}_i + \mathbf{b}_{down}) + \mathbf{b}_{up} \big),
        \qquad q(u) = u \, \sigma(1.702\, u)

    Members send queries, keys and values to their centers. At each center, the members attend to
    each other, and the maximum of each channel over the members is kept. Points receive from the
    nearest centers by inverse squared distance, followed by a bottleneck. Identity at init, because
    :math:`g = 0`, :math:`\mathbf{W}_{up} = \mathbf{0}` and :math:`\mathbf{b}_{up} = \mathbf{0}`.

    The steps in detail, for a cloud of *n* points. All distances are Euclidean and within one
    cloud.

    1. **Centers** are ``ceil(ratio * n)`` of its points, by farthest point sampling. The first is
       the point farthest from the mean of the cloud's positions; each further one is the point
       whose distance to the nearest previous center is largest.
    2. **Members** :math:`\mathcal{N}(c)` of a center are the ``min(k, n)`` points nearest to it;
       it is its own first member. Among equally near points the lower row comes first.
    3. **Attention** is :class:`NeighborAttention`. Each row is normalized (``attention.norm``, a
       layer norm with weight, bias and ``eps=1e-5``) and multiplied by ``attention.qkv.weight``
       ``[3 * A, C]``, without a bias, where ``A`` is ``attention_channels``. Its rows are the
       queries of head 0, 1, ..., then all keys, then all values, ``A / num_heads`` of each per
       head. A member's scores are the products of its query with the members' keys, times
       ``A ** -0.5``; their softmax over the members weighs the values. The concatenated heads
       ``[A]`` pass through ``attention.proj``, with a bias.
    4. **Maximum** over the members, for each channel separately, of row plus attention.
    5. **BN** is ``norm``, a batch norm over the centers of the whole batch with weight, bias,
       ``eps=1e-5`` and ``momentum=0.1``; in eval mode it uses its running statistics. GELU is the
       exact one, :math:`u \, \Phi(u)`. Then :math:`\lambda` times the center's own row of ``x``
       is added.
    6. **Back**: a point receives from the ``num_interp`` nearest centers of its cloud (from all if
       there are fewer; the center sampled first among equally near ones). With :math:`d_{ci}` the
       distance, :math:`w_{ci} = v_{ci} / \sum_{c'} v_{c'i}`, where
       :math:`v_{ci} = 1 / (d_{ci}^2 + 10^{-8})` in squared units of ``pos``. The gate :math:`g` is
       ``gate``, one number.
    7. **Bottleneck**: ``bottleneck.down`` and ``bottleneck.up``, both with a bias.

    Args:
        channels: Width of a row.
        bottleneck_channels: Width of the bottleneck. (default: ``16``)
        k: Number of members of a center, including the center. (default: ``16``)
        ratio: Number of centers per point of a cloud, in ``(0, 1]``; the number of centers is
            rounded up. (default: ``0.5``)
        num_interp: Number of nearest centers that a point receives from; ``None`` for all of its
            cloud, as in the authors' code. (default: ``3``)
        attention_channels: Width of the attention. (default: ``18``)
        num_heads: Number of heads of the attention. (default: ``6``)
        attention: A :class:`NeighborAttention` that several adapters share. It then determines
            ``attention_channels`` and ``num_heads``. ``None`` creates one.
        propagation_scale: Initial value of the trainable gate :math:`g`; the authors fix it at 0.3.
            (default: ``0.0``)
        center_scale: Multiplier :math:`\lambda` of the center's own row. (default: ``0.3``)
        scale: Multiplier :math:`s` of the bottleneck's correction. (default: ``1.0``)
        **kwargs: Further arguments of :class:`torch_geometric.nn.MessagePassing`.

    Shapes:
        - **input:** x ``[N, C]``; pos ``[N, 3]`` and batch ``[N]``, or a structure over x's rows
        - **output:** ``[N, C]``

    Symmetries:

    Raises:
        ValueError: If a size is out of range, a shared attention or rows have another width,
            neither ``pos`` nor ``structure`` is given, a structure has more rows than ``x``, a
            training batch has only one center, which batch norm cannot normalize, or
            ``build_structure`` rejects an argument.
        TypeError: If a size is not a number, an argument is not a tensor, or, outside of autocast,
            rows have another dtype than the weights.
        RuntimeError: From torch, if a compiled graph has no center.

    Derivatives:
        Twice differentiable in ``x``, ``pos`` and the parameters, as forces require:
        ``torch.autograd.grad(energy, pos, create_graph=True)``. The selection of centers, members
        and maxima is not differentiated. A compiled graph is differentiable once.

    Differences:
        Centers start at a canonical point, not at row 0, and have members of their own cloud only
        (the authors' indices run into other clouds). Three nearest centers by default, not all. The
        factor of the propagation is trained and starts at zero. Projections run once per row, not
        once per member. Where several members share the maximum the first receives the gradient.

    Example:
        >>> adapter = GeometryAwareAdapter(32, 8, k=4)
        >>> x, pos = torch.randn(20, 32), torch.rand(20, 3)
        >>> batch = torch.tensor([0] * 12 + [1] * 8)
        >>> torch.equal(adapter(x, pos, batch), x)
        True
    """

    def __init__(
        self,
        channels: int,
        bottleneck_channels: int = 16,
        *,
        k: int = 16,
        ratio: float = 0.5,
        num_interp: int | None = 3,
        attention_channels: int = 18,
        num_heads: int = 6,
        attention: NeighborAttention | None = None,
        propagation_scale: float = 0.0,
        center_scale: float = 0.3,
        scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        channels, k = check_count(channels, "channels"), check_count(k, "k")
        ratio = check_number(ratio, "ratio", above=0, most=1)
        if num_interp is not None:
            num_interp = check_count(num_interp, "num_interp")
        propagation_scale = check_scale(propagation_scale, "propagation_scale")
        center_scale = check_scale(center_scale, "center_scale")
        if attention is not None and not isinstance(attention, NeighborAttention):
            raise TypeError(
                "Expected 'attention' to be a NeighborAttention or None "
                f"(got {described(attention)})"
            )
        if attention is not None and attention.channels != channels:
            raise ValueError(
                f"Expected 'attention' to have {channels} channels (got {attention.channels})"
            )
        super().__init__(aggr=None, **kwargs)
        self.channels = channels
        self.k = k
        self.ratio = ratio
        self.num_interp = num_interp
        self.propagation_scale = propagation_scale
        self.center_scale = center_scale
        self.owns_attention = attention is None
        if attention is None:
            attention = NeighborAttention(channels, attention_channels, num_heads)
        self.attention = attention
        self.norm = nn.BatchNorm1d(channels)
        # Not a scalar, because sharded training rejects parameters without dimensions.
        self.gate = nn.Parameter(torch.empty(1))
        self.bottleneck = Bottleneck(channels, bottleneck_channels, scale=scale)
        self.bottleneck_channels, self.scale = self.bottleneck.bottleneck_channels, scale
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reinitialize all parameters, except those of an attention that was passed in."""
        super().reset_parameters()
        if self.owns_attention:
            self.attention.reset_parameters()
        self.norm.reset_parameters()
        nn.init.constant_(self.gate, self.propagation_scale)
        self.bottleneck.reset_parameters()

    def forward(
        self,
        x: Features,
        pos: Pos | None = None,
        batch: Batch | None = None,
        *,
        structure: Structure | None = None,
        batch_size: int | None = None,
    ) -> Features:
        """Correct ``x``; a shared ``structure`` over its rows replaces ``pos`` and ``batch``."""
        check_tensor(x, "x", shape=("N", self.channels), values=False)
        check_dtype(x, self.gate)
        if structure is None:
            structure = self._build(x, pos, batch, batch_size)
        elif not isinstance(structure, Structure):
            raise TypeError(
                f"Expected 'structure' to be a Structure or None (got {described(structure)})"
            )
        check_tensor(structure.edge_index, "structure", values=False, device=x.device)
        num_centers, num_rows = structure.center_index.numel(), structure.interp_ptr.numel() - 1
        if num_rows > x.size(0):
            raise ValueError(
                f"Expected 'x' to have at least {num_rows} rows, as 'structure' has "
                f"(got {x.size(0)})"
            )
        if not torch.compiler.is_compiling() and structure.last_row >= x.size(0):
            raise ValueError(
                f"Expected 'x' to have a row {structure.last_row}, which 'structure' names "
                f"(got {x.size(0)} rows)"
            )
        # Compiled graphs cannot count members, so they pad all neighborhoods to the largest.
        one_size = bool(structure.degree) or torch.compiler.is_compiling() or num_centers == 0
        parts = None if one_size else structure.parts
        # propagate_type: (qkv: Tensor, x: Tensor, sizes: tuple)
        z = self.propagate(
            structure.edge_index,
            size=(x.size(0), num_centers),
            qkv=self.attention.project(x),
            x=x,
            sizes=(structure.degree, structure.max_degree, parts),
        )  # [S, C]
        z = F.gelu(self._normalize(z))
        z = z + self.center_scale * x.index_select(0, structure.center_index)
        # Scale the few centers rather than the many rows that receive from them.
        z = (self.gate * z).to(x.dtype)
        back, weight, ptr = structure.interp_index, structure.interp_weight, structure.interp_ptr
        h = weighted_sums(z, back, weight, x.size(0), ptr).add_(x)  # [N, C]
        return self.bottleneck(h)

    def message(self, qkv_j: Tensor) -> Tensor:
        """Return the query, key and value of each member."""
        return qkv_j  # [E, 3 * A]

    def aggregate(
        self,
        inputs: Tensor,
        index: Tensor,
        dim_size: int,
        x: Tensor,
        edge_index_j: Tensor,
        sizes: tuple[Any, ...],  # PyG 2.6 cannot render a bare Any
    ) -> Tensor:
        """Compute the attention among the members of each center and their maximum per channel."""
        degree, max_degree, parts = sizes
        if degree:  # neither unequal nor zero
            qkv = inputs.view(dim_size, degree, inputs.size(-1))
            return self._largest(x, qkv, edge_index_j.view(dim_size, degree))
        if parts is None:
            return self._padded(x, inputs, edge_index_j, index, dim_size, max(max_degree, 1))
        # Grouped by size, so that one large neighborhood does not determine the padding of all.
        outs = [
            self._padded(x, inputs[edges], edge_index_j[edges], place, sets.numel(), size)
            for sets, edges, place, size in parts.parts
        ]
        return torch.cat(outs)[parts.order]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.channels}, {self.bottleneck_channels}, k={self.k}, "
            f"ratio={self.ratio}, num_interp={self.num_interp})"
        )

    def _padded(
        self, x: Tensor, qkv: Tensor, member: Tensor, index: Tensor, num_centers: int, size: int
    ) -> Tensor:
        qkv, mask = to_dense(qkv, index, num_centers, size)
        member, _ = to_dense(member, index, num_centers, size)
        return self._largest(x, qkv, member, mask)

    def _largest(
        self, x: Tensor, qkv: Tensor, member: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        hidden = self.attention.attend(qkv, mask)  # [S, K, A]
        return neighbor_max(x, hidden, self.attention.proj, member, mask)  # [S, C]

    def _build(
        self, x: Tensor, pos: Tensor | None, batch: Tensor | None, batch_size: int | None
    ) -> Structure:
        if pos is None:
            raise ValueError("Expected 'pos' or 'structure' to define neighborhoods (got neither)")
        check_tensor(pos, "pos", shape=("N", 3), device=x.device)
        if batch is not None:
            check_tensor(batch, "batch", kind="int", device=x.device)
        if pos.size(0) != x.size(0):
            raise ValueError(f"Expected 'pos' to have {x.size(0)} rows (got {pos.size(0)})")
        k, ratio, num_interp = self.k, self.ratio, self.num_interp
        return build_structure(
            pos, batch, k=k, ratio=ratio, num_interp=num_interp, batch_size=batch_size
        )

    def _normalize(self, z: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            # The compiler needs a guarantee of at least one center, and of two for training.
            torch._check(z.size(0) > int(self.norm.training))
        elif self.norm.training and z.size(0) < 2:
            if z.size(0) == 0:
                return z
            raise ValueError(
                "Expected at least 2 centers in a training batch, for batch norm (got 1)"
            )
        return self.norm(z)


__all__ = ["GeometryAwareAdapter"]
