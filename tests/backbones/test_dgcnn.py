"""DGCNN: published sizes, its graphs against brute force, its levels against PyG's layer."""

import itertools
from typing import Any

import pytest
import torch
from flat_backbones import CASES
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.nn import MLP, EdgeConv

from pyg_peft.backbones import DGCNN, DGCNNSegmentation, EdgeConvBlock
from pyg_peft.backbones.dgcnn.edge_conv_block import feature_graph
from pyg_peft.testing import assert_batch_isolated, random_clouds, randomize_


def layers(*widths: int) -> int:
    """Parameters of layers without bias, each with a batch norm."""
    return sum(a * b + 2 * b for a, b in itertools.pairwise(widths))


def count(model) -> int:
    return sum(p.numel() for p in model.parameters())


def awake(module: Any) -> Any:
    return randomize_(module.double(), torch.Generator().manual_seed(1)).eval()


def clouds(sizes=(9, 4), channels=6, seed=0):
    return random_clouds(sizes, channels, generator=torch.Generator().manual_seed(seed))


def test_published_sizes():
    levels = layers(6, 64) + layers(128, 64) + layers(128, 128) + layers(256, 256)
    head = layers(2048, 512, 256) + 256 + (256 * 40 + 40)
    # Published: 1.8 M, of which this is the count.
    assert count(DGCNN(40)) == levels + layers(512, 1024) + head == 1_809_576
    levels = layers(6, 64, 64) + layers(128, 64, 64) + layers(128, 64)
    decoder = layers(16, 64) + layers(1024 + 192 + 64, 256)
    head = layers(256, 256, 128) + 128 + (128 * 50 + 50)
    parts = DGCNNSegmentation(50, num_categories=16)
    assert count(parts) == levels + layers(192, 1024) + decoder + head


@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    k=st.integers(1, 6),
    channels=st.sampled_from([1, 5, 12]),
    seed=st.integers(0, 999),
)
def test_graph_in_feature_space_is_that_of_a_loop(sizes, k, channels, seed):
    data = clouds(sizes, channels, seed)
    edge_index = feature_graph(data.x, k, data.batch, len(sizes))
    expected: list[tuple[int, int]] = []
    for i in range(len(data.x)):
        distance = (data.x - data.x[i]).square().sum(dim=1)
        distance = distance.masked_fill(data.batch != data.batch[i], torch.inf)
        near = distance.argsort(stable=True)[: min(k, sizes[int(data.batch[i])])]
        expected += [(j, i) for j in near.tolist()]
    assert list(map(tuple, edge_index.t().tolist())) == expected


@pytest.mark.parametrize("by_pos", [False, True])
def test_level_equals_pygs_layer_on_its_edges(by_pos):
    data = clouds()
    level = awake(EdgeConvBlock(6, (5, 7), k=3, by_pos=by_pos))
    mlp = MLP(
        [12, 5, 7],
        act="leaky_relu",
        act_kwargs={"negative_slope": 0.2},
        bias=False,
        plain_last=False,
    )
    theirs = EdgeConv(mlp).double().eval()  # pyright: ignore[reportArgumentType]
    theirs.load_state_dict(level.conv.state_dict())
    edge_index = feature_graph(data.pos if by_pos else data.x, 3, data.batch, 2)
    expected = theirs(data.x, edge_index)
    torch.testing.assert_close(level(data.x, data.pos, data.batch), expected)
    with pytest.raises(ValueError, match=r"'k' to be >= 1 \(got 0\)"):
        EdgeConvBlock(6, (5,), k=0)


def test_graphs_are_dynamic():
    model = CASES["DGCNN"].make()
    graphs = []
    for level in model.levels:
        level.conv.register_forward_pre_hook(lambda _, args: graphs.append(args[1]))
    data = clouds((20,), 2)
    model(data.x, data.pos)
    assert not torch.equal(graphs[0], graphs[1])


def test_categories():
    model = CASES["DGCNNSegmentation"].make(num_categories=3)
    data = clouds((9, 0, 4), 2)
    call = {"x": data.x, "pos": data.pos, "batch": data.batch, "batch_size": 3}
    category = torch.tensor([2, 0, 1])
    logits = model(**call, category=category)
    assert logits.shape == (13, 4)
    other = model(**call, category=torch.tensor([2, 0, 0]))
    assert torch.equal(logits[:9], other[:9])
    assert not torch.allclose(logits[9:], other[9:])
    assert_batch_isolated(
        model,
        data,
        call=lambda m, c: (
            m(c.x, c.pos, c.batch, c.batch_size, category=category[[0, 2, 2]][: c.batch_size])
            if c.batch_size == 3
            else m(c.x, c.pos, category=category[:1] if len(c.x) == 9 else category[2:])
        ),
    )
    untold = CASES["DGCNNSegmentation"].untold
    again = DGCNNSegmentation.from_checkpoint(model.state_dict(), **untold)
    assert again.config == model.config
    for message, wrong in (
        (r"'category' to be given for num_categories=3 \(got None\)", None),
        (r"'category' to be of shape \[3\] \(got \[2\]\)", category[:2]),
        (r"'category' to lie in \[0, 3\) \(got 3\)", category + 1),
        (r"'category' to lie in \[0, 3\) \(got -1\)", category - 1),
    ):
        with pytest.raises(ValueError, match=message):
            model(**call, category=wrong)
    plain = CASES["DGCNNSegmentation"].make()
    with pytest.raises(ValueError, match=r"'category' to be None for num_categories=0"):
        plain(**call, category=category)
    with pytest.raises(ValueError, match=r"'num_categories' to be >= 0 \(got -1\)"):
        DGCNNSegmentation(4, num_categories=-1)


def test_a_classifier_lends_its_levels_to_segmentation():
    source, case = CASES["DGCNN"].make(), CASES["DGCNNSegmentation"]
    model = DGCNNSegmentation.from_checkpoint(
        source.state_dict(), 6, num_categories=2, **case.untold
    )
    assert model.num_categories == 2
    for key, value in model.state_dict().items():
        if key.startswith(("levels.", "mix.")):
            assert torch.equal(value.double(), source.state_dict()[key].float().double())
