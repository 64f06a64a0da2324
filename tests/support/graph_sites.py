"""Every kind of layer that a method can sit at, called as its users do, and how far it sees."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from pyg_models import FeaturePropagation, GlobalSetAbstraction, SetAbstraction
from torch import Tensor, nn
from torch_geometric.nn import (
    MLP,
    DynamicEdgeConv,
    EdgeConv,
    GravNetConv,
    PointNetConv,
    PointTransformerConv,
    PPFConv,
    XConv,
    fps,
    knn_interpolate,
    radius,
)

from pyg_peft.geometry import build_structure, farthest_point_sample, knn_graph
from pyg_peft.testing import Clouds, hops, randomize_

WIDTH, K = 8, 3
RADIUS = 1.2


class Reach(NamedTuple):
    """How far a model sees, in Boolean matrices: who receives, from whom.

    Attributes:
        layer: of the rows that the layer returns, from the points ``[M, N]``.
        adapter: of these rows among themselves, by a geometry-aware adapter ``[M, M]``.
        spread: of the points, from these rows ``[N, M]``.
    """

    layer: Tensor
    adapter: Tensor
    spread: Tensor

    def of_points(self, *, adapted: bool) -> Tensor:
        """Which point reaches which row of the model's output ``[N, N]``."""
        rows = self.adapter.double() @ self.layer.double() if adapted else self.layer.double()
        return self.spread.double() @ rows > 0


@dataclass(frozen=True)
class Site:
    """A layer, how it is called, and what is known of it.

    Args:
        layer: makes it, ``WIDTH`` channels in and out.
        run: calls it with features, positions and ids; returns a row per point.
        reach: how far it sees; ``None`` if that hangs on features.
        from_first: it samples points, from a cloud's first point on.
        least: points that a cloud must have, so that the layer runs.
        sees_cloud: it sees its whole cloud.
        plain: where a plain adapter sits, which needs a tensor: not at what returns a tuple.
    """

    layer: Callable[[], nn.Module]
    run: Callable[[Any, Tensor, Tensor, Tensor], Tensor]
    reach: Callable[[Clouds], Reach] | None = None
    from_first: bool = False
    least: int = 1
    sees_cloud: bool = False
    plain: str = "conv"


class OneLayer(nn.Module):
    """A layer ``conv`` between two linear ones."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site
        self.lift = nn.Linear(WIDTH, WIDTH)
        self.conv = site.layer()
        self.last = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        return self.last(self.site.run(self.conv, self.lift(x), pos, batch))


class WithoutIds(nn.Module):
    """Can do without cloud ids: its caller leaves them out."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, pos: Tensor, batch: Tensor | None = None) -> Tensor:
        return self.lin(x)


class Returns(nn.Module):
    """Returns three, of which the third is no cloud ids.

    Args:
        edges: whether it is the edges, or nothing.
    """

    def __init__(self, *, edges: bool) -> None:
        super().__init__()
        self.edges = edges
        self.conv = PointTransformerConv(WIDTH, WIDTH)

    def forward(self, x: Tensor, pos: Tensor, edge_index: Tensor) -> tuple[Any, ...]:
        return self.conv(x, pos, edge_index), pos, edge_index if self.edges else None


def make_base(site: Site, seed: int = 0) -> nn.Module:
    """A model whose norm statistics are not trivial, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        base = OneLayer(site).double()
    return randomize_(base, torch.Generator().manual_seed(seed)).eval()


# ---- what layers are called with -----------------------------------------------------------------


def graph(pos: Tensor, batch: Tensor) -> Tensor:
    return knn_graph(pos.detach(), K, batch)


def normal(pos: Tensor) -> Tensor:
    return nn.functional.normalize(pos + 1.0, dim=-1)


def first_half(pos: Tensor, batch: Tensor) -> Tensor:
    """Half of each cloud's points, the first one and then the farthest."""
    return fps(pos.detach(), batch, ratio=0.5, random_start=False)


def centers(pos: Tensor, batch: Tensor) -> Tensor:
    """Five points of each cloud, which no order of the points changes."""
    rows = farthest_point_sample(pos, 5, batch)
    return rows[rows >= 0]


def to_centers(pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    """The centers, and edges to each from the nearest points."""
    index = centers(pos, batch)
    edges = knn_graph(pos.detach(), K, batch, loop=True)
    place = torch.full((pos.size(0),), -1).index_copy(0, index, torch.arange(index.numel()))
    kept = edges[:, place[edges[1]] >= 0]
    return index, torch.stack([kept[0], place[kept[1]]])


def spread(x: Tensor, coarse: Tensor, coarse_batch: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
    """Each point receives from the nearest of the coarse ones."""
    return knn_interpolate(x, coarse, pos, coarse_batch, batch, k=1)


def on_edges(conv: Any, x: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
    return conv(x, pos, graph(pos, batch))


def bipartite(conv: Any, x: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
    index, edges = to_centers(pos, batch)
    out = conv((x, x[index]), (pos, pos[index]), edges)
    return spread(out, pos[index], batch[index], pos, batch)


def coarsen(conv: Any, x: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
    out, coarse, coarse_batch = conv(x, pos, batch)
    return spread(out, coarse, coarse_batch, pos, batch)


def refine(conv: Any, x: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
    index = first_half(pos, batch)
    return conv(x[index], pos[index], batch[index], x, pos, batch)[0]


# ---- how far they see ----------------------------------------------------------------------------


def incidence(edges: Tensor, receivers: int, sources: int) -> Tensor:
    joined = torch.zeros(receivers, sources, dtype=torch.bool)
    joined[edges[1], edges[0]] = True
    return joined


def structure_reach(pos: Tensor, batch: Tensor) -> Tensor:
    """Two steps: from the members of centers to these, and from the centers to all."""
    num = pos.size(0)
    made = build_structure(pos, batch, k=4)
    member = incidence(made.edge_index, made.center_index.numel(), num)
    back = incidence(made.interp_index, num, made.center_index.numel())
    return (back.double() @ member.double() > 0) | torch.eye(num, dtype=torch.bool)


def reach_of_points(layer: Tensor, adapter: Tensor) -> Reach:
    return Reach(layer, adapter, torch.eye(len(layer), dtype=torch.bool))


def along_edges(clouds: Clouds) -> Reach:
    edges, num = graph(clouds.pos, clouds.batch), clouds.batch.numel()
    return reach_of_points(hops(edges, num), hops(edges, num, 2))


def no_edges(clouds: Clouds) -> Reach:
    own = torch.eye(clouds.batch.numel(), dtype=torch.bool)
    return reach_of_points(own, structure_reach(clouds.pos, clouds.batch))


def nearest(clouds: Clouds) -> Reach:
    own = hops(knn_graph(clouds.pos, K, clouds.batch, loop=True), clouds.batch.numel())
    return reach_of_points(own, structure_reach(clouds.pos, clouds.batch))


def nearest_of(index: Tensor, clouds: Clouds) -> Tensor:
    distance = torch.cdist(clouds.pos, clouds.pos[index])
    distance[clouds.batch[:, None] != clouds.batch[index][None, :]] = torch.inf
    num = clouds.batch.numel()
    edges = torch.stack([distance.argmin(1), torch.arange(num)])
    return incidence(edges, num, index.numel())


def between(clouds: Clouds) -> Reach:
    """To targets that share a source: against the edges, and along them."""
    index, edges = to_centers(clouds.pos, clouds.batch)
    layer = incidence(edges, index.numel(), clouds.batch.numel())
    return Reach(layer, layer.double() @ layer.T.double() > 0, nearest_of(index, clouds))


def ball(clouds: Clouds) -> Reach:
    pos, batch = clouds.pos, clouds.batch
    index = first_half(pos, batch)
    row, col = radius(pos, pos[index], RADIUS, batch, batch[index], max_num_neighbors=64)
    layer = incidence(torch.stack([col, row]), index.numel(), batch.numel())
    return Reach(layer, structure_reach(pos[index], batch[index]), nearest_of(index, clouds))


# ---- the layers ----------------------------------------------------------------------------------

SITES: dict[str, Site] = {
    "PointNetConv": Site(
        lambda: PointNetConv(MLP([WIDTH + 3, WIDTH]), MLP([WIDTH, WIDTH])), on_edges, along_edges
    ),
    "PointNetConv against the edges": Site(
        lambda: PointNetConv(MLP([WIDTH + 3, WIDTH]), flow="target_to_source"),
        lambda conv, x, pos, batch: conv(x, pos, graph(pos, batch).flip(0)),
        along_edges,
    ),
    "PointTransformerConv": Site(lambda: PointTransformerConv(WIDTH, WIDTH), on_edges, along_edges),
    "PPFConv": Site(
        lambda: PPFConv(MLP([WIDTH + 4, WIDTH])),
        lambda conv, x, pos, batch: conv(x, pos, normal(pos), graph(pos, batch)),
        along_edges,
    ),
    "EdgeConv": Site(
        lambda: EdgeConv(MLP([2 * WIDTH, WIDTH])),
        lambda conv, x, pos, batch: conv(x, graph(pos, batch)),
        # Edges, and positions from the model around it, which tells no other neighborhoods.
        along_edges,
    ),
    "DynamicEdgeConv": Site(
        lambda: DynamicEdgeConv(MLP([2 * WIDTH, WIDTH]), K),
        lambda conv, x, pos, batch: conv(x, batch),
    ),
    "GravNetConv": Site(
        lambda: GravNetConv(WIDTH, WIDTH, 3, 4, k=K),
        lambda conv, x, pos, batch: conv(x, batch),
    ),
    "XConv": Site(
        lambda: XConv(WIDTH, WIDTH, dim=3, kernel_size=K, hidden_channels=4),
        lambda conv, x, pos, batch: conv(x, pos, batch),
        nearest,
        least=K,
    ),
    "Linear": Site(lambda: nn.Linear(WIDTH, WIDTH), lambda conv, x, pos, batch: conv(x), no_edges),
    "MLP": Site(
        lambda: MLP([WIDTH, WIDTH, WIDTH], norm="layer_norm", norm_kwargs={"mode": "node"}),
        lambda conv, x, pos, batch: conv(x),
        no_edges,
    ),
    "block without ids": Site(WithoutIds, lambda conv, x, pos, batch: conv(x, pos), no_edges),
    "block that returns edges": Site(
        lambda: Returns(edges=True),
        lambda conv, x, pos, batch: on_edges(conv, x, pos, batch)[0],
        along_edges,
        plain="conv.conv",
    ),
    "block that returns None": Site(
        lambda: Returns(edges=False),
        lambda conv, x, pos, batch: on_edges(conv, x, pos, batch)[0],
        along_edges,
        plain="conv.conv",
    ),
    "bipartite PointNetConv": Site(
        lambda: PointNetConv(MLP([WIDTH + 3, WIDTH]), add_self_loops=False), bipartite, between
    ),
    "bipartite PointTransformerConv": Site(
        lambda: PointTransformerConv(WIDTH, WIDTH, add_self_loops=False), bipartite, between
    ),
    "SetAbstraction": Site(
        lambda: SetAbstraction(0.5, RADIUS, [WIDTH + 3, WIDTH]),
        coarsen,
        ball,
        from_first=True,
        plain="conv.conv",
    ),
    "GlobalSetAbstraction": Site(
        lambda: GlobalSetAbstraction([WIDTH + 3, WIDTH]), coarsen, sees_cloud=True, plain="conv.nn"
    ),
    "FeaturePropagation": Site(
        lambda: FeaturePropagation(3, [2 * WIDTH, WIDTH]),
        refine,
        from_first=True,
        plain="conv.nn",
    ),
}

#: ``fps`` as the models of ``pyg_models`` need it for a cloud alone to be the cloud in company.
fps_from_first = partial(fps, random_start=False)
