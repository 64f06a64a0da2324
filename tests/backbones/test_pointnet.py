"""PointNet: the paper's sizes, its T-Nets, and public weights that others have trained."""

import itertools

import numpy as np
import pytest
import torch
from flat_backbones import CASES
from torch import Tensor

from pyg_peft.backbones import PointNet, PointNetSegmentation, TNet, orthogonality_penalty
from pyg_peft.backbones.pointnet.keys import map_pointnet_keys
from pyg_peft.errors import CheckpointError

FILE = "data/checkpoints/learning3d_pointnet_cls_modelnet40.t7"


def linear(*widths: int, norm: bool = True) -> int:
    """Parameters of layers with bias, each with a batch norm."""
    pairs = itertools.pairwise(widths)
    return sum(a * b + b + (2 * b if norm else 0) for a, b in pairs)


def t_net(channels: int) -> int:
    mlps = linear(channels, 64, 128, 1024) + linear(1024, 512, 256)
    return mlps + linear(256, channels**2, norm=False)


def count(model) -> int:
    return sum(p.numel() for p in model.parameters())


def test_sizes_of_the_paper():
    layers = linear(3, 64, 64) + linear(64, 64, 128, 1024)
    head = linear(1024, 512, 256) + linear(256, 40, norm=False)
    assert count(PointNet(40, transforms=False)) == layers + head == 819_624  # published: 0.8 M
    assert count(PointNet(40)) == layers + head + t_net(3) + t_net(64) == 3_480_049  # 3.5 M
    decoder = linear(1088, 512, 256, 128) + linear(128, 128) + linear(128, 50, norm=False)
    assert count(PointNetSegmentation(50)) == layers + t_net(3) + t_net(64) + decoder


def test_t_net_is_the_identity_at_first_and_one_matrix_a_cloud_later():
    net, batch = TNet(5).double().eval(), torch.tensor([0, 0, 0, 2])
    x = torch.randn(4, 5, dtype=torch.float64)
    assert torch.equal(net(x, batch, 4), x)
    torch.nn.init.normal_(net.lin.weight)
    matrices = net.matrices(x, batch, 4)
    expected = torch.stack([x[i] @ matrices[batch[i]] for i in range(4)])
    torch.testing.assert_close(net(x, batch, 4), expected)
    assert not torch.allclose(net(x, batch, 4), x)
    identity = torch.eye(5).expand(3, 5, 5)
    assert orthogonality_penalty(identity) == 0
    rotations = torch.linalg.qr(torch.randn(3, 5, 5, dtype=torch.float64)).Q
    assert orthogonality_penalty(rotations) < 1e-20


def test_channels_name_two_levels():
    with pytest.raises(ValueError, match=r"'channels' to name two levels \(got 1\)"):
        PointNet(4, channels=((64, 64),))


def test_levels_receive_positions_by_name_or_place():
    model = CASES["PointNetSegmentation"].make()
    seen: list[tuple[Tensor, ...]] = []
    for level in (*model.levels, *model.decoder):
        level.register_forward_pre_hook(lambda module, args: seen.append(args))
    pos, batch = torch.randn(8, 3).double(), torch.arange(2).repeat_interleave(4)
    model(torch.randn(8, 2).double(), pos, batch)
    assert len(seen) == 3
    assert all(torch.equal(args[1], pos) and torch.equal(args[2], batch) for args in seen)


def test_a_classifier_lends_its_levels_to_segmentation_and_back():
    classifier, segments = CASES["PointNet"].make(), CASES["PointNetSegmentation"].make()
    for source, target in ((classifier, PointNetSegmentation), (segments, PointNet)):
        model = target.from_checkpoint(source.state_dict(), 6)
        assert model.num_classes == 6
        ours = model.state_dict()
        for key, value in source.state_dict().items():
            if key.startswith("levels."):
                assert torch.equal(ours[key].double(), value.float().double())
        with pytest.raises(ValueError, match=r"'num_classes' to be given.*got None"):
            target.from_checkpoint(source.state_dict())


# ---- public weights -------------------------------------------------------------------------


def published(shared_dir) -> dict[str, Tensor]:
    return torch.load(shared_dir / FILE, weights_only=True, map_location="cpu")


def test_every_published_key_is_used(shared_dir):
    state = published(shared_dir)
    model = PointNet.from_checkpoint(shared_dir / FILE)
    assert count(model) == 819_624
    assert (model.num_classes, model.transforms, model.head_channels) == (40, False, (512, 256))
    mapped = map_pointnet_keys(state)
    assert mapped.keys() == model.state_dict().keys()
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in mapped.items())
    assert sum(v.numel() for v in mapped.values()) == sum(v.numel() for v in state.values())


def test_misfits_of_the_published_layout_are_named(shared_dir):
    state = published(shared_dir)
    with pytest.raises(CheckpointError, match=r"leftover: 'feature_model\.conv6\.weight'"):
        PointNet.from_checkpoint({**state, "feature_model.conv6.weight": torch.zeros(3, 3, 1)})
    with pytest.raises(CheckpointError, match=r"'head\.lins\.0\.weight' once"):
        map_pointnet_keys({**state, "head.lins.0.weight": torch.zeros(512, 1024)})
    del state["bn2.running_var"]
    with pytest.raises(CheckpointError, match=r"missing: 'head\.norms\.1\.module\.running_var'"):
        PointNet.from_checkpoint(state)


def test_a_damaged_t7_file(tmp_path):
    (tmp_path / "cut.t7").write_bytes(b"T7")
    with pytest.raises(CheckpointError, match=r"intact \.t7 file of tensors"):
        PointNet.from_checkpoint(tmp_path / "cut.t7")


def accuracy(shared_dir, step: int, axes: tuple[int, int, int]) -> float:
    """Share of the right answers on every ``step``-th cloud of ModelNet40's test file."""
    with np.load(shared_dir / "data/modelnet40/modelnet40_test.npz", allow_pickle=False) as file:
        cloud, label = file["xyz"][::step] * file["scale"], file["label"][::step]
    clouds = torch.from_numpy(cloud.astype(np.float32)[:, :, axes])
    model = PointNet.from_checkpoint(shared_dir / FILE).eval()
    right = 0
    with torch.no_grad():
        for part, y in zip(clouds.split(8), torch.from_numpy(label).split(8), strict=True):
            batch = torch.arange(len(part)).repeat_interleave(part.size(1))
            right += int((model(pos=part.flatten(0, 1), batch=batch).argmax(1) == y).sum())
    return right / len(clouds)


def test_public_weights_recognize_shapes(shared_dir):
    assert accuracy(shared_dir, 33, (0, 2, 1)) >= 0.8  # 60 clouds; all of them: below
    assert accuracy(shared_dir, 99, (0, 1, 2)) < 0.5  # without the swap of axes


@pytest.mark.slow
def test_public_weights_reach_their_accuracy(shared_dir):
    assert accuracy(shared_dir, 1, (0, 2, 1)) == pytest.approx(0.8592, abs=0.002)  # 1697 of 1975
