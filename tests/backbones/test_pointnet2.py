"""PointNet++: the paper's sizes, and its levels against slow loops and PyG's own layer."""

import itertools
from typing import Any

import pytest
import torch
from flat_backbones import CASES
from torch_geometric.nn import MLP, PointNetConv

from pyg_peft.backbones import (
    FeaturePropagation,
    GlobalSetAbstraction,
    PointNetPlusPlus,
    PointNetPlusPlusSegmentation,
    SetAbstraction,
)
from pyg_peft.backbones.layers.stages import sample_centers
from pyg_peft.geometry import ball_query
from pyg_peft.testing import randomize_

SCENES: dict[str, Any] = {
    "channels": ((32, 32, 64), (64, 64, 128), (128, 128, 256), (256, 256, 512)),
    "num_centers": (1024, 256, 64, 16),
    "radii": (0.1, 0.2, 0.4, 0.8),
    "patch_sizes": (32, 32, 32, 32),
    "decoder_channels": ((256, 256), (256, 256), (256, 128), (128, 128, 128)),
}


def linear(*widths: int, norm: bool = True) -> int:
    """Parameters of layers with bias, each with a batch norm."""
    return sum(a * b + b + (2 * b if norm else 0) for a, b in itertools.pairwise(widths))


def count(model) -> int:
    return sum(p.numel() for p in model.parameters())


def clouds(sizes=(9, 4), channels=2):
    generator = torch.Generator().manual_seed(0)
    pos = torch.randn(sum(sizes), 3, generator=generator, dtype=torch.float64)
    x = torch.randn(sum(sizes), channels, generator=generator, dtype=torch.float64)
    return x, pos, torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def awake(module: Any) -> Any:
    return randomize_(module.double(), torch.Generator().manual_seed(1)).eval()


def test_sizes_of_the_paper():
    levels = linear(3, 64, 64, 128) + linear(131, 128, 128, 256) + linear(259, 256, 512, 1024)
    head = linear(1024, 512, 256) + linear(256, 40, norm=False)
    assert count(PointNetPlusPlus(40)) == levels + head == 1_475_688
    decoder = linear(1280, 256, 256) + linear(384, 256, 128) + linear(131, 128, 128, 128)
    parts = decoder + linear(128, 128) + linear(128, 50, norm=False)
    assert count(PointNetPlusPlusSegmentation(50)) == levels + parts == 1_408_626


def test_the_networks_for_scenes():
    model = PointNetPlusPlusSegmentation(13, 6, **SCENES).eval()
    pos, x = torch.rand(300, 3), torch.rand(300, 6)
    assert model(x, pos).shape == (300, 13)
    assert [type(level).__name__ for level in model.levels] == ["SetAbstraction"] * 4


def test_configuration_errors():
    wrong: list[tuple[str, dict[str, Any]]] = [
        (r"'radii' to name as many levels .*, 2 \(got 1\)", {"radii": (0.1,)}),
        (r"'patch_sizes' to name as many levels .*, 2 \(got 3\)", {"patch_sizes": (1, 2, 3)}),
        (r"'channels' to name 2 levels and one .*got 1", {"channels": ((4,),)}),
        (r"'num_centers' to name all .*, 1 \(got 2\)", {"channels": ((4,), (5,))}),
        (r"'radii\[0\]' to be > 0 \(got 0\)", {"radii": (0, 0.4)}),
        (r"'num_centers\[0\]' to be >= 1", {"num_centers": (0, 4)}),
    ]
    for message, change in wrong:
        with pytest.raises(ValueError, match=message):
            PointNetPlusPlus(4, **change)
    with pytest.raises(ValueError, match=r"'decoder_channels' to name 3 levels \(got 1\)"):
        PointNetPlusPlusSegmentation(4, decoder_channels=((4,),))


def test_centers_per_cloud():
    _, pos, batch = clouds((9, 1, 4))
    index = sample_centers(pos, batch, 4, num_centers=3)
    assert batch[index].tolist() == [0, 0, 0, 1, 2, 2, 2]
    assert len(set(index.tolist())) == 7
    index = sample_centers(pos, batch, 4, stride=4)
    assert batch[index].tolist() == [0, 0, 0, 1, 2]
    assert sample_centers(pos[:0], batch[:0], 2, stride=4).tolist() == []


def test_set_abstraction_is_a_loop_over_balls():
    x, pos, batch = clouds()
    level = awake(SetAbstraction(2, (5, 6), num_centers=3, radius=1.5, patch_size=4))
    out, center, center_batch = level(x, pos, batch)
    assert center_batch.tolist() == [0, 0, 0, 1, 1, 1]
    for row, (p, cloud) in enumerate(zip(center, center_batch, strict=True)):
        distance = (pos - p).norm(dim=1).masked_fill(batch != cloud, torch.inf)
        near = [i for i in distance.argsort()[:4].tolist() if distance[i] <= 1.5]
        messages = level.conv.local_nn(torch.cat([x[near], pos[near] - p], dim=1))
        torch.testing.assert_close(out[row], messages.max(dim=0).values)


def test_set_abstraction_equals_pygs_layer_on_its_edges():
    x, pos, batch = clouds()
    level = awake(SetAbstraction(2, (5, 6), num_centers=3, radius=1.5, patch_size=4))
    theirs = PointNetConv(MLP([5, 5, 6], plain_last=False), add_self_loops=False).double().eval()
    theirs.load_state_dict(level.conv.state_dict())
    out, center, center_batch = level(x, pos, batch)
    edge_index = ball_query(pos, center, 1.5, 4, batch, center_batch)
    torch.testing.assert_close(out, theirs((x, None), (pos, center), edge_index))


def test_the_last_level_sees_whole_clouds():
    x, pos, batch = clouds()
    level = awake(GlobalSetAbstraction(2, (5, 6)))
    out, center, ids = level(x, pos, batch, 3)
    rows = level.mlp(torch.cat([x, pos], dim=1))
    torch.testing.assert_close(out[0], rows[:9].max(dim=0).values)
    assert not out[2].any()
    assert not center.any()
    assert ids.tolist() == [0, 1, 2]


def test_feature_propagation_interpolates_and_keeps_what_it_meets():
    x, pos, batch = clouds()
    level = awake(FeaturePropagation(2, 2, (5,), k=2))
    coarse = torch.tensor([0, 3, 9])
    out = level(x, pos, batch, x[coarse], pos[coarse], batch[coarse])
    for row in range(13):
        near = [0, 3] if batch[row] == 0 else [9]
        weight = 1 / ((pos[near] - pos[row]).square().sum(dim=1) + 1e-8)
        mean = (weight / weight.sum()) @ x[near]
        expected = level.mlp(torch.cat([mean, x[row]])[None])[0]
        torch.testing.assert_close(out[row], expected)


def test_levels_receive_the_positions_of_what_they_return():
    model = CASES["PointNetPlusPlusSegmentation"].make()
    x, pos, batch = clouds()
    seen: dict[tuple[str, int], Any] = {}
    for part in ("levels", "decoder"):
        for number, level in enumerate(getattr(model, part)):
            level.register_forward_hook(
                lambda _, args, out, key=(part, number): seen.update({key: (args, out)})
            )
    model(x, pos, batch)
    for number in range(3):
        (_, at, of, *_), out = seen["levels", number]
        assert at.size(0) == of.size(0)
        assert {part.size(0) for part in out} == {len(out[0])}
        (_, at, of, *_), out = seen["decoder", number]
        assert out.size(0) == at.size(0) == of.size(0)
    assert torch.equal(seen["decoder", 2][0][1], pos)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.long])
@pytest.mark.parametrize("size", [0, 5])
def test_ids_of_any_integer_type(dtype: torch.dtype, size: int):
    """Rows of centers are never of the ids' type: an index of uint8 is a mask."""
    level = SetAbstraction(0, (6, 5), num_centers=4, radius=1.0, patch_size=3).double()
    pos = torch.rand(size, 3, dtype=torch.float64)
    x, _, batch = level(None, pos, torch.zeros(size, dtype=dtype), 1)
    assert x.shape == (min(size, 4), 5) and batch.shape == (min(size, 4),)
