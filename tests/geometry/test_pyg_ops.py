"""PyG's own neighbor functions, enabled without compiled libraries."""

import math

import pytest
import torch
import torch_geometric.typing
from geometry_cases import KNN_BACKENDS, Clouds, pairs, ragged, slow_knn
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data
from torch_geometric.nn import (
    DynamicEdgeConv,
    GravNetConv,
    XConv,
    fps,
    knn,
    knn_graph,
    knn_interpolate,
    nearest,
    radius,
    radius_graph,
)
from torch_geometric.transforms import KNNGraph, RadiusGraph

from pyg_peft import geometry
from pyg_peft.geometry import (
    enable_pyg_ops,
    pyg_ops_enabled,
    pyg_ops_worker_init,
)
from pyg_peft.geometry.pyg import legacy as pyg_legacy
from pyg_peft.geometry.pyg.searches import pyg_knn

MODERN = hasattr(torch_geometric.typing, "WITH_KNN")
FLAGS = ["WITH_KNN", "WITH_RADIUS", "WITH_NEAREST", "WITH_FPS"]

X = torch.tensor([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
Y = torch.tensor([[-1.0, 0], [1, 0]])

# Where PyG has its compiled libraries, nothing is enabled and there is nothing to test.
pytestmark = pytest.mark.skipif(
    all(getattr(torch_geometric.typing, flag) for flag in FLAGS)
    if MODERN
    else torch_geometric.typing.WITH_TORCH_CLUSTER,  # pyright: ignore[reportAttributeAccessIssue]
    reason="PyG has its own operators here",
)


@pytest.fixture(autouse=True)
def enabled():
    with enable_pyg_ops() as handle:
        yield handle


def test_by_hand_as_in_pygs_documentation():
    assert knn(X, Y, 2).tolist() == [[0, 0, 1, 1], [0, 1, 2, 3]]
    assert knn_graph(X, 2).tolist() == [[1, 2, 0, 3, 0, 3, 1, 2], [0, 0, 1, 1, 2, 2, 3, 3]]
    assert radius(X, Y, 1.5).tolist() == [[0, 0, 1, 1], [0, 1, 2, 3]]
    assert radius_graph(X, 2.5).tolist() == knn_graph(X, 2).tolist()
    assert nearest(X, Y).tolist() == [0, 0, 1, 1]
    assert fps(X, ratio=0.5, random_start=False).tolist() == [0, 3]


def test_radius_excludes_its_border_and_keeps_at_most_so_many():
    assert radius(X, Y, 1.0).shape == (2, 0)
    assert radius(X, Y, 1.01, max_num_neighbors=1).tolist() == [[0, 1], [0, 2]]
    assert radius_graph(X, 2.5, loop=True, max_num_neighbors=2).size(1) == 8
    assert radius_graph(X, 2.5, max_num_neighbors=1).tolist() == [[1, 0, 0, 1], [0, 1, 2, 3]]
    # Coincident points crowd out the point itself: no loop, and still as many as asked.
    same = radius_graph(torch.zeros(6, 3), 1.0, max_num_neighbors=3)
    assert same.size(1) == 18
    assert bool((same[0] != same[1]).all())


def test_radius_with_hundreds_of_neighbors():
    x = torch.rand(400, 3, generator=torch.Generator().manual_seed(0))
    expected = (torch.cdist(x.double(), x.double()) < 0.7).sum()
    assert radius(x, x, 0.7, max_num_neighbors=400).size(1) == expected
    assert radius_graph(x, 0.7, max_num_neighbors=1000).size(1) == expected - 400


def test_the_direction_of_flow():
    there = knn_graph(X + torch.rand(4, 2) * 0.1, 1, flow="source_to_target")
    assert there[1].tolist() == [0, 1, 2, 3]
    back = radius_graph(X, 2.5, flow="target_to_source")
    assert back[0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@settings(max_examples=50)
@given(clouds=ragged(), r=st.sampled_from([0.1, 1.0, 2.0, 50.0]), most=st.integers(1, 9))
def test_ragged_clouds_equal_the_loop(clouds: Clouds, r: float, most: int):
    c = clouds
    found = knn(c.pos, c.query, c.k, c.batch, c.query_batch, batch_size=c.batch_size)
    assert pairs(found.flip(0)) == slow_knn(c.pos, c.query, c.k, c.batch, c.query_batch)

    found = radius(c.pos, c.query, r, c.batch, c.query_batch, most, batch_size=c.batch_size).flip(0)
    squared = (c.pos[found[0]] - c.query[found[1]]).square().sum(1)
    assert bool((squared < r * r * (1 + 1e-5)).all())
    wider = slow_knn(c.pos, c.query, most, c.batch, c.query_batch, radius=r)
    narrower = slow_knn(c.pos, c.query, most, c.batch, c.query_batch, radius=r * (1 - 1e-6))
    assert set(narrower) <= set(pairs(found)) <= set(wider)


@settings(max_examples=50)
@given(clouds=ragged(["random", "far"], max_points=20), ratio=st.floats(0.01, 1.0))
def test_fps_takes_the_share_of_each_cloud(clouds: Clouds, ratio: float):
    c = clouds
    picks = fps(c.pos, c.batch, ratio, random_start=False, batch_size=c.batch_size)
    counts = torch.bincount(c.batch, minlength=c.batch_size)
    wanted = (counts.float() * ratio).ceil().long()
    assert torch.bincount(c.batch[picks], minlength=c.batch_size).tolist() == wanted.tolist()
    start = torch.cat([counts.new_zeros(1), counts.cumsum(0)])[:-1].clamp(
        max=max(0, len(c.pos) - 1)
    )
    ours = geometry.farthest_point_sample(
        c.pos, max(1, int(wanted.max())), c.batch, start=start, batch_size=c.batch_size
    )
    place = torch.arange(ours.size(1))
    assert torch.equal(picks, ours[place < wanted.unsqueeze(1)])


def test_fps_prefers_the_lowest_row_and_starts_where_torch_is_seeded():
    square = torch.tensor([[0.0, 0], [1, 0], [0, 1], [1, 1]])
    assert fps(square, ratio=1.0, random_start=False).tolist() == [0, 3, 1, 2]
    x = torch.randn(50, 3)
    torch.manual_seed(3)
    one = fps(x, ratio=0.2)
    torch.manual_seed(3)
    assert torch.equal(fps(x, ratio=0.2), one)
    starts = {int(fps(x, ratio=0.02)[0]) for _ in range(40)}
    assert len(starts) > 5


def test_nearest_breaks_ties_by_row_and_minds_clouds():
    assert nearest(torch.zeros(1, 2), X).tolist() == [0]
    batch_x, batch_y = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1])
    assert nearest(X, Y, batch_x, batch_y).tolist() == [0, 0, 1, 1]


def test_features_integers_and_cosine():
    x = torch.randn(80, 40, generator=torch.Generator().manual_seed(0))
    expected = torch.cdist(x.double(), x.double()).topk(6, largest=False).indices
    assert torch.equal(knn(x, x, 6)[1].view(80, 6), expected)
    assert knn(X.long(), Y.long(), 2).tolist() == knn(X, Y, 2).tolist()
    direction = torch.tensor([[1.0, 0], [10, 1], [0, 1]])
    assert knn(direction, torch.tensor([[0.1, 0.0]]), 2, cosine=True)[1].tolist() == [0, 1]


def test_clouds_that_only_one_side_has():
    batch_x, batch_y = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0])
    assert knn(X, Y, 2, batch_x, batch_y).tolist() == [[0, 0, 1, 1], [0, 1, 0, 1]]
    assert knn(X, Y, 2, torch.tensor([1, 1, 1, 1]), batch_y).shape == (2, 0)


def test_what_calls_them():
    x, batch = torch.randn(30, 3), torch.tensor([0] * 10 + [1] * 20)
    y, batch_y = torch.randn(4, 3), torch.tensor([0, 0, 1, 1])
    features = torch.randn(30, 16)
    assert knn_interpolate(features, x, y, batch, batch_y).shape == (4, 16)
    assert DynamicEdgeConv(torch.nn.Linear(32, 5), 4)(features, batch).shape == (30, 5)
    assert XConv(16, 8, 3, 4)(features, x, batch).shape == (30, 8)
    assert GravNetConv(16, 8, 2, 4, 3)(features, batch).shape == (30, 8)
    assert KNNGraph(4)(Data(pos=x)).num_edges == 120
    assert RadiusGraph(1.0)(Data(pos=x)).num_edges > 0


def test_gradients_pass_through_a_layer():
    layer = DynamicEdgeConv(torch.nn.Linear(6, 2), 3)
    x = torch.randn(10, 3, requires_grad=True)
    layer(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


@pytest.mark.skipif(not MODERN, reason="before PyG 2.8 there are no operators to compile")
def test_compiles_in_one_graph():
    x, y = torch.randn(20, 3), torch.randn(5, 3)

    def call(x, y):
        return knn(x, y, 3) * 2, radius(x, y, 1.0) + 1, nearest(x, y), fps(x, None, 0.3, False)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for found, expected in zip(compiled(x, y), call(x, y), strict=True):
        assert torch.equal(found, expected)


def test_is_reversible_and_nests(enabled):
    assert enabled.enabled
    with enable_pyg_ops() as inner:
        enabled.disable()
        assert not enabled.enabled
        assert knn(X, Y, 1).shape == (2, 2)
    assert not inner.enabled
    with pytest.raises(ImportError):
        knn(X, Y, 1)
    with pytest.raises(ImportError):
        DynamicEdgeConv(torch.nn.Linear(6, 2), 3)
    if MODERN:
        assert not any(getattr(torch_geometric.typing, flag) for flag in FLAGS)
        assert not hasattr(torch.ops.pyg, "knn")
    inner.disable()  # once more does no harm
    handle = enable_pyg_ops()
    assert knn(X, Y, 1).shape == (2, 2)
    handle.disable()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: knn(X, Y, 0), "'k' to be >= 1"),
        (lambda: knn(X, Y[:, :1], 1), r"'y' to be of shape \[M, 2\]"),
        (lambda: knn(X, Y, 1, torch.zeros(4).long()), "given together"),
        (lambda: knn(X * math.nan, Y, 1), "'x' to be finite"),
        (lambda: knn(X, Y / 0, 1), "'y' to be finite"),
        (lambda: radius(X, Y, 0.0), "'r' to be > 0"),
        (lambda: fps(X, ratio=1.5), "'ratio' to lie in"),
        (lambda: pyg_knn(X, X, torch.tensor([0, 3, 2, 4]), torch.tensor([0, 4])), "sorted"),
        (lambda: pyg_knn(X, X, torch.tensor([0, 3]), torch.tensor([0, 4])), "cover 4 rows"),
    ],
)
def test_errors_name_the_argument(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()


UNSORTED = torch.tensor([0, 1, 0, 1])
SORTED = torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize(
    "call",
    [
        lambda batch: knn(X, X, 2, batch, SORTED),
        lambda batch: knn(X, X, 2, SORTED, batch),
        lambda batch: knn_graph(X, 2, batch),
        lambda batch: radius(X, X, 1.5, batch, SORTED),
        lambda batch: radius(X, X, 1.5, SORTED, batch),
        lambda batch: radius_graph(X, 1.5, batch),
        lambda batch: nearest(X, X, batch, SORTED),
        lambda batch: fps(X, batch, 0.5),
        lambda batch: knn_interpolate(X, X, X, batch, SORTED),
        lambda batch: DynamicEdgeConv(torch.nn.Linear(4, 2), 2)(X, batch),
        lambda batch: DynamicEdgeConv(torch.nn.Linear(4, 2), 2)((X, X), (SORTED, batch)),
        lambda batch: GravNetConv(2, 2, 2, 2, 2)(X, batch),
        lambda batch: XConv(2, 2, 2, 2, hidden_channels=2)(X, X, batch),
        lambda batch: KNNGraph(2)(Data(pos=X, batch=batch)),
        lambda batch: RadiusGraph(1.5)(Data(pos=X, batch=batch)),
        lambda batch: pyg_legacy.knn(X, X, 2, batch, SORTED),
        lambda batch: pyg_legacy.knn(X, X, 2, SORTED, batch),
        lambda batch: pyg_legacy.knn_graph(X, 2, batch),
        lambda batch: pyg_legacy.radius(X, X, 1.5, SORTED, batch),
        lambda batch: pyg_legacy.radius_graph(X, 1.5, batch),
        lambda batch: pyg_legacy.nearest(X, X, SORTED, batch),
        lambda batch: pyg_legacy.fps(X, batch, 0.5),
    ],
)
def test_an_unsorted_batch_is_refused(call):
    call(SORTED)
    with pytest.raises(ValueError, match="'batch' to be sorted"):
        call(UNSORTED)
    with pytest.raises(ValueError, match="'batch' to be non-negative"):
        call(torch.tensor([-1, -1, 0, 0]))


def test_ids_beyond_the_batch_size_are_refused():
    with pytest.raises(ValueError, match="'batch' to hold ids below batch_size 1"):
        knn_graph(X, 2, SORTED, batch_size=1)


@pytest.mark.parametrize("graph", [knn_graph, pyg_legacy.knn_graph])
@pytest.mark.parametrize("cosine", [False, True])
def test_equal_points_keep_exactly_k_neighbors(graph, cosine: bool):
    x = torch.cat([torch.ones(6, 3), torch.eye(3), torch.ones(5, 3)])
    batch = torch.tensor([0] * 9 + [1] * 5)
    edge_index = graph(x, 3, batch, cosine=cosine)
    assert bool((edge_index[0] != edge_index[1]).all())
    assert edge_index[1].bincount(minlength=14).tolist() == [3] * 14
    assert torch.equal(batch[edge_index[0]], batch[edge_index[1]])
    loops = graph(x, 3, batch, loop=True, cosine=cosine)
    assert torch.equal(loops[0, ::3], torch.arange(14))  # itself comes first


@pytest.mark.parametrize("backend", KNN_BACKENDS)
def test_another_batch_of_the_same_points_does_not_find_itself(backend: str):
    x, batch_x, batch_y = torch.ones(4, 3), torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, 1, 1])
    with geometry.use_backend(backend):
        found = knn(x, x, 2, batch_x, batch_y)
    assert found.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3], [2, 3] * 4]


@pytest.mark.parametrize("method", ["spawn", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_workers_that_are_not_forked(method: str):
    # What a worker unpickles is PyG's own: a new process does not find the modules of tests.
    loader = torch.utils.data.DataLoader(
        [Data(pos=X), Data(pos=X)],  # pyright: ignore[reportArgumentType]
        batch_size=None,
        collate_fn=KNNGraph(2),
        num_workers=1,
        multiprocessing_context=method,
        worker_init_fn=pyg_ops_worker_init,
    )
    expected = knn_graph(X, 2)
    assert [torch.equal(data.edge_index, expected) for data in loader] == [True, True]


def test_the_data_module_enables_them_in_its_workers(enabled):
    pytest.importorskip("lightning")
    from pyg_peft.datasets import ProceduralShapes
    from pyg_peft.training import ShapeDataModule

    assert pyg_ops_enabled()
    data = ShapeDataModule(ProceduralShapes(num_shapes=20), batch_size=4)
    assert data.train_dataloader().worker_init_fn is pyg_ops_worker_init
    assert data.val_dataloader().worker_init_fn is pyg_ops_worker_init
    enabled.disable()
    assert not pyg_ops_enabled()
    assert data.train_dataloader().worker_init_fn is None


def test_the_stand_in_for_older_versions():
    """What PyG 2.6 and 2.7 call; with them installed, the tests above go through it."""
    assert torch.equal(pyg_legacy.knn(X, Y, 2), knn(X, Y, 2))
    assert torch.equal(pyg_legacy.knn_graph(X, 2), knn_graph(X, 2))
    assert torch.equal(pyg_legacy.radius(X, Y, 1.5), radius(X, Y, 1.5))
    assert torch.equal(pyg_legacy.radius_graph(X, 2.5), radius_graph(X, 2.5))
    batch = torch.tensor([0, 0, 0, 0])
    assert torch.equal(pyg_legacy.nearest(X, Y, batch), nearest(X, Y))
    assert pyg_legacy.fps(X[:, 0], None, None, False).shape == (2,)
    with pytest.raises(ValueError, match="Expected 'flow'"):
        pyg_legacy.knn_graph(X, 2, flow="sideways")


def test_the_memory_of_a_batch_does_not_matter_to_pyg():
    from torch_geometric import nn as pyg

    batch = torch.tensor([0, 0, 0, 1, 1, 1])
    strided = torch.stack([batch, batch + 7], dim=1)[:, 0]
    x = torch.arange(6.0).view(-1, 1)
    with enable_pyg_ops():
        assert torch.equal(pyg.knn_graph(x, 2, strided), pyg.knn_graph(x, 2, batch))


def test_a_complex_or_sparse_cloud_is_refused_by_name():
    from torch_geometric import nn as pyg

    x = torch.rand(4, 2)
    with enable_pyg_ops():
        with pytest.raises(TypeError, match="'x' to be of real numbers"):
            pyg.knn(x.to(torch.complex64), x.to(torch.complex64), 2)
        with pytest.raises(ValueError, match="'x' to be a dense tensor"):
            pyg.knn(x.to_sparse(), x, 2)


def test_the_stand_in_cuts_as_many_as_torch_cluster():
    x = torch.arange(50.0).view(-1, 1)
    counts = [r.size(1) for r in (pyg_legacy.radius(x, x[:1], 100), radius(x, x[:1], 100))]
    assert counts == [32, 32]
    assert pyg_legacy.radius_graph(x, 100)[1].bincount().tolist() == [32] * 50


def test_borders_without_a_cloud_are_refused():
    none = torch.zeros(0, dtype=torch.long)
    with pytest.raises(ValueError, match="'batch_x' to be sorted and to cover 4 rows"):
        pyg_knn(X, Y, none, none, 1)
