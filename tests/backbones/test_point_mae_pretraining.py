"""Pre-training: which patches are hidden, what the loss sees, and clouds of any size."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyg_peft.backbones import PointMAEPretraining
from pyg_peft.backbones.point_mae.masking import draw_mask
from pyg_peft.geometry import Patches, build_patches

SIZES = {
    "embed_dim": 12,
    "depth": 2,
    "num_heads": 3,
    "num_centers": 6,
    "patch_size": 4,
    "decoder_depth": 1,
    "decoder_num_heads": 3,
}


def make_model(**kwargs) -> PointMAEPretraining:
    torch.manual_seed(0)
    return PointMAEPretraining(**{**SIZES, **kwargs}).double().eval()


def make_clouds(counts, seed=0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pos = torch.randn(sum(counts), 3, generator=generator, dtype=torch.float64)
    return pos, torch.arange(len(counts)).repeat_interleave(torch.tensor(counts, dtype=torch.long))


def make_patches(counts, seed=0) -> Patches:
    pos, batch = make_clouds(counts, seed)
    return build_patches(pos, batch, num_centers=6, patch_size=4, batch_size=len(counts))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_repr_and_config():
    model = make_model()
    assert "mask_ratio=0.6" in repr(model).splitlines()[1]
    assert PointMAEPretraining(**model.config).config == model.config


@pytest.mark.parametrize("name", ["depth", "num_centers", "patch_size", "decoder_depth"])
def test_sizes_are_positive(name):
    with pytest.raises(ValueError, match=rf"Expected '{name}' to be >= 1 \(got 0\)"):
        make_model(**{name: 0})


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_mask_ratio(ratio):
    with pytest.raises(ValueError, match=r"Expected 'mask_ratio' to lie in \(0, 1\)"):
        make_model(mask_ratio=ratio)


def test_input_errors():
    model = make_model()
    with pytest.raises(
        ValueError, match=r"Expected 'pos' or 'patches' to be given \(got neither\)"
    ):
        model()
    with pytest.raises(ValueError, match=r"'mask' to be bool of shape \[1, 6\]"):
        model(make_clouds([20])[0], mask=torch.ones(1, 5, dtype=torch.bool))


def test_reset_is_reproducible():
    model = make_model()
    torch.manual_seed(1)
    model.reset_parameters()
    first = copy.deepcopy(model.state_dict())
    torch.manual_seed(1)
    model.reset_parameters()
    assert all(torch.equal(first[key], value) for key, value in model.state_dict().items())


@settings(max_examples=25)
@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_masks_hide_a_share_of_the_patches_that_exist(counts, seed):
    patches = make_patches(counts)
    mask = draw_mask(patches, 0.6, seeded(seed))
    assert torch.equal(mask, draw_mask(patches, 0.6, seeded(seed)))
    valid = torch.ones_like(mask) if patches.mask is None else patches.mask
    assert not (mask & ~valid).any()
    assert mask.sum(1).tolist() == [int(0.6 * n) for n in valid.sum(1).tolist()]


def test_masks_are_uniform():
    patches = make_patches([6] * 1000)
    share = draw_mask(patches, 0.6, seeded()).double().mean(0)
    torch.testing.assert_close(share, torch.full_like(share, 0.5), rtol=0, atol=0.06)


def test_hidden_points_do_not_reach_the_encoder():
    """Only the centers of hidden patches are known to the model."""
    model = make_model()
    patches = make_patches([40, 40])
    mask = draw_mask(patches, 0.6, seeded())
    points = patches.points.clone().requires_grad_()
    patches = type(patches)(points, patches.center, patches.index, patches.center_index)
    rebuilt = model.reconstruct(patches=patches, mask=mask).points
    (gradient,) = torch.autograd.grad(rebuilt.sum(), points)
    assert not gradient[mask].any()
    assert gradient[~mask].flatten(1).any(1).all()


def test_loss_by_hand():
    model = make_model()
    pos, batch = make_clouds([20, 20])
    result = model.reconstruct(pos, batch, generator=seeded())
    table = torch.cdist(result.points.flatten(0, 1), result.masked.points.flatten(0, 1)).square()
    expected = table.amin(2).mean() + table.amin(1).mean()
    torch.testing.assert_close(model(pos, batch, generator=seeded()), expected)


@settings(max_examples=15)
@given(counts=st.lists(st.integers(0, 15), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_a_cloud_alone_is_rebuilt_as_in_company(counts, seed):
    model = make_model()
    pos, _ = make_clouds(counts, seed)
    patches = make_patches(counts, seed)
    mask = draw_mask(patches, 0.6, seeded(seed))
    together = model.reconstruct(patches=patches, mask=mask)
    for number, cloud in enumerate(pos.split(counts)):
        alone = model.reconstruct(cloud, batch_size=1, mask=mask[number : number + 1])
        num_masked = alone.points.size(1)
        assert num_masked == mask[number].sum()
        torch.testing.assert_close(alone.points[0], together.points[number, :num_masked])
        torch.testing.assert_close(
            alone.masked.points[0], together.masked.points[number, :num_masked]
        )


@pytest.mark.parametrize("counts", [[13, 40, 2], [1, 1], [0, 9, 0], [0, 0]])
@pytest.mark.parametrize("training", [False, True])
def test_clouds_of_any_size_train(counts, training):
    model = make_model().train(training)
    pos, batch = make_clouds(counts)
    loss = model(pos, batch, len(counts), generator=seeded())
    assert loss.isfinite()
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    if max(counts) < 2:
        assert loss == 0  # a single patch stays visible: there is nothing to rebuild
    else:
        assert len(gradients) == len(list(model.parameters()))


def test_every_parameter_gets_a_gradient():
    model = make_model()
    model(*make_clouds([30, 30]), generator=seeded()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_training_lowers_the_loss():
    model = make_model().train()
    pos, batch = make_clouds([30] * 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model(pos, batch, generator=seeded())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_classifier_takes_the_encoder_along():
    model = make_model()
    classifier = model.to_classifier(3, in_channels=2, drop_path=0.0)
    assert classifier.config["num_centers"] == 6
    assert classifier.config["in_channels"] == 2
    assert {p.dtype for p in classifier.parameters()} == {torch.float64}
    with torch.no_grad():
        classifier.norm.weight.add_(1)
    assert not torch.equal(classifier.norm.weight, model.norm.weight)  # a copy
