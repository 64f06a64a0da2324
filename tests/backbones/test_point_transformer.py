"""Point Transformer: published sizes, its block by hand, one graph a level."""

import itertools
from typing import Any

import pytest
import torch
from flat_backbones import CASES
from torch import Tensor
from torch_geometric.nn import PointTransformerConv

from pyg_peft.backbones import (
    PointTransformer,
    PointTransformerBlock,
    PointTransformerSegmentation,
)
from pyg_peft.backbones.point_transformer import level as levels
from pyg_peft.backbones.point_transformer.level import Summit, TransitionDown, TransitionUp
from pyg_peft.geometry import knn_graph
from pyg_peft.testing import assert_local, hops, random_clouds, randomize_

CHANNELS, DEPTHS = (32, 64, 128, 256, 512), (1, 2, 3, 5, 2)


def block_size(c: int, share: int = 8) -> int:
    n = c // share
    pos_nn = (9 + 3) + 6 + (3 * c + c)
    attn_nn = 2 * c + (c * n + n) + 2 * n + (n * n + n)
    return (c * c + 2 * c) + 3 * c * c + pos_nn + attn_nn + 2 * c + (c * c + 2 * c)


def encoder_size(in_channels: int) -> int:
    total, width = 0, in_channels
    for number, (c, depth) in enumerate(zip(CHANNELS, DEPTHS, strict=True)):
        total += (width + (3 if number else 0)) * c + 2 * c + depth * block_size(c)
        width = c
    return total


def decoder_size() -> int:
    top = CHANNELS[-1]
    total = (top * top + top) + (2 * top * top + 3 * top) + block_size(top)
    for fine, coarse in itertools.pairwise(CHANNELS):
        total += (fine * fine + 3 * fine) + (coarse * fine + 3 * fine) + block_size(fine)
    return total


def count(model) -> int:
    return sum(p.numel() for p in model.parameters())


def awake(module: Any) -> Any:
    return randomize_(module.double(), torch.Generator().manual_seed(1)).eval()


def clouds(sizes=(9, 4), channels=6):
    return random_clouds(sizes, channels, generator=torch.Generator().manual_seed(0))


def test_published_sizes():
    head = 32 * 32 + 32 + 64 + 32 * 13 + 13
    scenes = PointTransformerSegmentation(13, in_channels=3)
    biases = 3 * sum(p.size(0) for n, p in scenes.named_parameters() if n.endswith("lin.weight"))
    ours = encoder_size(6) + decoder_size() + head
    assert count(scenes) == ours
    # Published for scenes with colors: 7.8 M, biases of queries, keys and values among them.
    assert round((ours + biases) / 1e6, 1) == 7.8
    head = (512 * 256 + 3 * 256) + (256 * 128 + 3 * 128) + 128 * 40 + 40
    assert count(PointTransformer(40)) == encoder_size(3) + head


def test_configuration_errors():
    wrong: list[tuple[str, dict[str, Any]]] = [
        (r"'depths' to name as many levels .*, 5 \(got 1\)", {"depths": (1,)}),
        (r"'k' to name as many levels .*, 5 \(got 2\)", {"k": (8, 8)}),
        (r"'share' to divide 32 \(got 5\)", {"share": 5}),
        (r"'share' to be >= 1 \(got 0\)", {"share": 0}),
        (r"'stride' to be >= 1 \(got 0\)", {"stride": 0}),
    ]
    for message, change in wrong:
        with pytest.raises(ValueError, match=message):
            PointTransformer(4, **change)


def test_block_is_the_papers_formula():
    block = awake(PointTransformerBlock(6, share=2))
    data = clouds([9])
    edge_index = knn_graph(data.pos, 4, loop=True)
    out = block(data.x, data.pos, edge_index)
    x = block.norm1(block.lin_in(data.x)).relu()
    conv, rows = block.conv, []
    for i in range(9):
        near = edge_index[0][edge_index[1] == i]
        delta = conv.pos_nn(data.pos[i] - data.pos[near])
        weight = conv.attn_nn[:-1](conv.lin_dst(x[i]) - conv.lin_src(x[near]) + delta)
        weight = weight.softmax(dim=0)  # [4, 3]: channels c and c + 3 share one
        rows.append((torch.cat([weight, weight], dim=1) * (conv.lin(x[near]) + delta)).sum(dim=0))
    expected = (data.x + block.norm3(block.lin_out(block.norm2(torch.stack(rows)).relu()))).relu()
    torch.testing.assert_close(out, expected)


def test_block_holds_pygs_layer_and_is_local():
    block = awake(PointTransformerBlock(6, share=1))
    data = clouds([9])
    edge_index = knn_graph(data.pos, 3, loop=True)
    assert type(block.conv) is PointTransformerConv
    assert_local(block, data, hops(edge_index, 9), call=lambda m, c: m(c.x, c.pos, edge_index))


def test_transitions_by_hand():
    data = clouds()
    x, pos, batch = data.x, data.pos, data.batch
    down = awake(TransitionDown(6, 8, stride=4, k=3, depth=0))
    out, center, ids = down(x, pos, batch)
    assert ids.tolist() == [0, 0, 0, 1]
    for row, p in enumerate(center):
        distance = (pos - p).norm(dim=1).masked_fill(batch != ids[row], torch.inf)
        near = distance.argsort()[:3]
        messages = down.conv.local_nn(torch.cat([x[near], pos[near] - p], dim=1))
        torch.testing.assert_close(out[row], messages.max(dim=0).values)
    stay = awake(TransitionDown(6, 8, stride=1, k=3, depth=0))
    out, same, _ = stay(x, pos, batch)
    assert same is pos
    torch.testing.assert_close(out, stay.mlp(x))

    summit = awake(Summit(6, k=3, depth=0))
    mean = torch.stack([x[:9].mean(dim=0), x[9:].mean(dim=0)])
    expected = summit.mlp(torch.cat([x, summit.of_cloud(mean)[batch]], dim=1))
    torch.testing.assert_close(summit(x, pos, batch), expected)

    up = awake(TransitionUp(5, 6, k=3, depth=0))
    coarse_x = torch.randn(2, 5).double()
    out = up(x, pos, batch, coarse_x, pos[[0, 9]], batch[[0, 9]])
    torch.testing.assert_close(out, up.mlp(x) + up.coarse_mlp(coarse_x)[batch])


def test_blocks_of_a_level_share_one_graph(monkeypatch):
    model = CASES["PointTransformerSegmentation"].make()
    graphs: list[Tensor] = []
    seen: list[Any] = []

    def counted(*args: Any, **kwargs: Any) -> Tensor:
        graphs.append(knn_graph(*args, **kwargs))
        return graphs[-1]

    monkeypatch.setattr(levels, "knn_graph", counted)
    for name, module in model.named_modules():
        if isinstance(module, PointTransformerBlock | PointTransformerConv):
            module.register_forward_pre_hook(
                lambda _, args, name=name: seen.append((name, args[2]))
            )
    data = clouds((20, 9), 2)
    model(data.x, data.pos, data.batch)
    assert len(graphs) == 6  # a level of the encoder or the decoder each
    assert len(seen) == 2 * (1 + 2 + 1 + 3 * 2)
    assert all(any(edges is graph for graph in graphs) for _, edges in seen)


def test_a_classifier_lends_its_levels_to_segmentation():
    source = CASES["PointTransformer"].make()
    untold = CASES["PointTransformer"].untold
    model = PointTransformerSegmentation.from_checkpoint(source.state_dict(), 6, **untold)
    for key, value in model.state_dict().items():
        if key.startswith("levels."):
            assert torch.equal(value.double(), source.state_dict()[key].float().double())
