"""The mini-PointNet: against the authors' order of operations, and its batch statistics."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pyg_peft.backbones import PatchEmbed
from pyg_peft.backbones.layers.patch_embed import MaskedBatchNorm
from pyg_peft.geometry import Patches


def make_patches(
    points: Tensor, mask: Tensor | None = None, features: Tensor | None = None
) -> Patches:
    num_clouds, num_centers, patch_size, _ = points.shape
    index = torch.zeros(num_clouds, num_centers, patch_size, dtype=torch.long)
    return Patches(points, points[:, :, 0], index, index[:, :, 0], mask, features)


def slow_embed(layer: PatchEmbed, points: Tensor) -> Tensor:
    """The formula of the paper: convolutions of width one, an explicit concatenation."""
    x = points.flatten(0, 1).transpose(1, 2)  # [B * G, 3, K]
    convolve = nn.functional.conv1d
    x = convolve(x, layer.stem.weight[..., None], layer.stem.bias)
    x = nn.BatchNorm1d.forward(copy.deepcopy(layer.norm1), x).relu()
    x = convolve(x, layer.lift.weight[..., None], layer.lift.bias)
    x_max = x.max(dim=2, keepdim=True).values
    x = torch.cat([x_max.expand(-1, -1, x.size(2)), x], dim=1)
    joint = torch.cat([layer.global_proj.weight, layer.local_proj.weight], dim=1)
    x = convolve(x, joint[..., None], layer.local_proj.bias)
    x = nn.BatchNorm1d.forward(copy.deepcopy(layer.norm2), x).relu()
    x = convolve(x, layer.proj.weight[..., None], layer.proj.bias)
    return x.max(dim=2).values.view(*points.shape[:2], -1)


def awake(embed_dim: int = 5, **kwargs) -> PatchEmbed:
    layer = PatchEmbed(embed_dim, **kwargs).double()
    with torch.no_grad():
        for value in layer.state_dict().values():
            if value.is_floating_point():
                value.add_(0.1 * torch.rand_like(value))
    return layer


def test_repr():
    assert "embed_dim=5, in_channels=2" in repr(PatchEmbed(5, in_channels=2))


def test_constructor_errors():
    with pytest.raises(ValueError, match=r"Expected 'embed_dim' to be >= 1 \(got 0\)"):
        PatchEmbed(0)
    with pytest.raises(ValueError, match=r"Expected 'in_channels' to be >= 0 \(got -1\)"):
        PatchEmbed(4, in_channels=-1)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("gradient", [False, True])
def test_against_the_papers_formula(training, gradient):
    torch.manual_seed(0)
    layer = awake().train(training)
    points = torch.randn(2, 3, 4, 3, dtype=torch.float64)
    expected = slow_embed(layer, points)
    with torch.set_grad_enabled(gradient):
        torch.testing.assert_close(layer(make_patches(points)), expected)


@settings(max_examples=20)
@given(seed=st.integers(0, 999))
def test_order_of_members_does_not_matter_but_their_place_does(seed):
    torch.manual_seed(seed)
    layer = awake().eval()
    points = torch.randn(1, 2, 5, 3, dtype=torch.float64)
    y = layer(make_patches(points))
    torch.testing.assert_close(layer(make_patches(points[:, :, torch.randperm(5)])), y)
    moved = points.clone()
    moved[0, 1, 2] += 3.0
    z = layer(make_patches(moved))
    torch.testing.assert_close(z[:, 0], y[:, 0])
    assert not torch.allclose(z[:, 1], y[:, 1])


def test_masked_patches_are_zero_and_leave_the_statistics_alone():
    torch.manual_seed(0)
    masked, removed = awake().train(), None
    removed = copy.deepcopy(masked)
    points = torch.randn(2, 3, 4, 3, dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [False, True, False]])
    y = masked(make_patches(points, mask))
    z = removed(make_patches(points[mask][None]))
    assert not y[~mask].any()
    torch.testing.assert_close(y[mask], z[0])
    for key, value in removed.state_dict().items():
        torch.testing.assert_close(masked.state_dict()[key], value)
    y.square().sum().backward()
    z.square().sum().backward()
    for ours, theirs in zip(masked.parameters(), removed.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("num_valid", [0, 1])
def test_batch_statistics_of_almost_nothing_are_finite(num_valid):
    layer = MaskedBatchNorm(2)
    before = copy.deepcopy(layer.state_dict())
    mask = torch.arange(3) < num_valid
    x = torch.randn(3, 2, requires_grad=True)
    layer(x, mask).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    for name in ("running_mean", "running_var"):
        assert torch.equal(layer.state_dict()[name], before[name])


def test_features_start_silent_and_can_learn():
    torch.manual_seed(0)
    plain = PatchEmbed(5).double().eval()
    layer = PatchEmbed(5, in_channels=2).double().eval()
    layer.load_state_dict({**layer.state_dict(), **plain.state_dict()})
    points = torch.randn(1, 2, 4, 3, dtype=torch.float64)
    features = torch.randn(1, 2, 4, 2)  # of another precision, as files have them
    y = layer(make_patches(points, features=features))
    assert torch.equal(y, plain(make_patches(points)))
    weight = layer.get_parameter("feature_stem.weight")
    assert torch.autograd.grad(y.sum(), weight)[0].any()
    nn.init.ones_(weight)
    assert not torch.allclose(layer(make_patches(points, features=features)), y)


def test_feature_errors():
    points = torch.randn(1, 2, 4, 3)
    with pytest.raises(ValueError, match=r"'x' to be None .* in_channels=0 \(got 2 channels\)"):
        PatchEmbed(5)(make_patches(points, features=torch.randn(1, 2, 4, 2)))
    layer = PatchEmbed(5, in_channels=3)
    with pytest.raises(ValueError, match=r"'x' to have 3 channels \(got None\)"):
        layer(make_patches(points))
    with pytest.raises(ValueError, match=r"'x' to have 3 channels \(got 2 channels\)"):
        layer(make_patches(points, features=torch.randn(1, 2, 4, 2)))


def test_coordinates_keep_their_precision():
    """float64 is rounded after centring only, and autocast does not touch the first layer."""
    torch.manual_seed(0)
    layer = PatchEmbed(5).eval()
    points = torch.randn(1, 2, 4, 3, dtype=torch.float64)
    assert layer(make_patches(points)).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        stems = []
        hook = layer.stem.register_forward_hook(lambda *args: stems.append(args[2]))
        y = layer(make_patches(points.float()))
        hook.remove()
    assert stems[0].dtype == torch.float32
    assert torch.equal(stems[0], layer.stem(points.float().flatten(0, 2)))
    assert y.dtype == torch.bfloat16


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    layer = PatchEmbed(5, in_channels=2)
    patches = make_patches(torch.randn(2, 3, 4, 3), features=torch.randn(2, 3, 4, 2))
    layer(patches).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in layer.parameters())


def test_reset_is_reproducible():
    layer = PatchEmbed(5, in_channels=2)
    torch.manual_seed(3)
    layer.reset_parameters()
    first = copy.deepcopy(layer.state_dict())
    torch.manual_seed(3)
    layer.reset_parameters()
    assert all(torch.equal(first[key], value) for key, value in layer.state_dict().items())
