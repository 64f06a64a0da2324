"""The second task of pre-training: the whole cloud, drawn from its summary."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_peft.backbones import PointMAE, PointMAECompletion, PointMAEPretraining
from pyg_peft.backbones.point_mae.completion import completion_loss
from pyg_peft.backbones.point_mae.masking import draw_mask
from pyg_peft.errors import CheckpointError
from pyg_peft.geometry import build_patches

SIZES = {
    "embed_dim": 12,
    "depth": 2,
    "num_heads": 3,
    "num_centers": 6,
    "patch_size": 4,
    "decoder_depth": 1,
    "decoder_num_heads": 3,
    "num_cloud_points": 16,
}
UNREADABLE = {"num_heads": 3, "num_centers": 6, "decoder_num_heads": 3}


def make_model(**kwargs) -> PointMAECompletion:
    torch.manual_seed(0)
    return PointMAECompletion(**{**SIZES, **kwargs}).double().eval()


def make_clouds(counts, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pos = torch.randn(sum(counts), 3, generator=generator, dtype=torch.float64)
    return pos, torch.arange(len(counts)).repeat_interleave(torch.tensor(counts, dtype=torch.long))


def make_patches(counts, seed=0):
    pos, batch = make_clouds(counts, seed)
    return build_patches(pos, batch, num_centers=6, patch_size=4, batch_size=len(counts))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_config_and_errors():
    model = make_model()
    assert PointMAECompletion(**model.config).config == model.config
    with pytest.raises(ValueError, match=r"'num_cloud_points' to be >= 1 \(got 0\)"):
        make_model(num_cloud_points=0)
    with pytest.raises(ValueError, match=r"'completion_weight' to be > 0 \(got 0.0\)"):
        make_model(completion_weight=0.0)
    plain = PointMAEPretraining.rebuild(model, *_masked(make_patches([9])))
    with pytest.raises(TypeError, match=r"'result' to be a Completion \(got Reconstruction\)"):
        model.loss(plain)


def _masked(patches):
    return patches, draw_mask(patches, 0.6, seeded())


def test_loss_by_hand():
    model = make_model()
    patches, mask = _masked(make_patches([20, 20]))
    result = model.rebuild(patches, mask)
    true = (patches.points + patches.center.unsqueeze(2))[:, :, 0]  # of four members, the first
    table = torch.cdist(result.cloud, true).square()
    drawn = table.amin(2).mean() + table.amin(1).mean()
    torch.testing.assert_close(completion_loss(result), drawn)
    expected = PointMAEPretraining.loss(model, result) + model.completion_weight * drawn
    torch.testing.assert_close(model(patches=patches, mask=mask), expected)


def test_the_summary_is_what_the_classifier_reads():
    """With nothing hidden, the drawn cloud comes from the input of the classification head."""
    model = make_model()
    patches = make_patches([30, 30])
    nothing = torch.zeros(2, 6, dtype=torch.bool)
    classifier = model.to_classifier(5).eval()
    x = classifier.forward_features(patches)
    summary = torch.cat([x[:, 0], x[:, 1:].amax(1)], dim=-1)
    drawn = model.completion(summary).unflatten(1, (16, 3))
    torch.testing.assert_close(model.rebuild(patches, nothing).cloud, drawn)


@settings(max_examples=10)
@given(counts=st.lists(st.integers(0, 15), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_a_cloud_alone_is_completed_as_in_company(counts, seed):
    model = make_model()
    pos, _ = make_clouds(counts, seed)
    patches = make_patches(counts, seed)
    mask = draw_mask(patches, 0.6, seeded(seed))
    together = model.rebuild(patches, mask)
    forth, back, num_filled, num_members = torch.zeros(()), torch.zeros(()), 0, 0
    for number, cloud in enumerate(pos.split(counts)):
        if counts[number] == 0:
            continue
        alone = model.rebuild(model.make_patches(cloud), mask[number : number + 1])
        torch.testing.assert_close(alone.cloud[0], together.cloud[number])
        valid = alone.patches.mask
        true = (alone.patches.points + alone.patches.center.unsqueeze(2))[:, :, 0]
        table = torch.cdist(alone.cloud[0], true[0] if valid is None else true[valid]).square()
        forth = forth + table.amin(1).mean()
        back = back + table.amin(0).sum()
        num_filled, num_members = num_filled + 1, num_members + table.size(1)
    # the mean over drawn points of clouds that hold points, and over members that exist
    expected = forth / max(num_filled, 1) + back / max(num_members, 1)
    torch.testing.assert_close(completion_loss(together), expected.double())


def test_patches_count_in_any_order():
    """A masked patch stands first here, where ``build_patches`` would put it last."""
    result = make_model().rebuild(*_masked(make_patches([3, 20])))
    patches = result.patches
    assert patches.mask is not None and patches.mask[0, 0] and not patches.mask[0, -1]
    turned = replace(
        patches,
        points=patches.points.flip(1),
        center=patches.center.flip(1),
        mask=patches.mask.flip(1),
    )
    turned_loss = completion_loss(replace(result, patches=turned))
    torch.testing.assert_close(turned_loss, completion_loss(result))


@pytest.mark.parametrize("counts", [[13, 40, 2], [1, 1], [0, 9, 0], [0, 0]])
@pytest.mark.parametrize("training", [False, True])
def test_clouds_of_any_size_train(counts, training):
    model = make_model().train(training)
    pos, batch = make_clouds(counts)
    loss = model(pos, batch, len(counts), generator=seeded())
    assert loss.isfinite()
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)


def test_every_parameter_gets_a_gradient():
    model = make_model()
    model(*make_clouds([30, 30]), generator=seeded()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_files():
    model = make_model()
    again = PointMAECompletion.from_checkpoint(model.state_dict(), **UNREADABLE)
    assert again.num_cloud_points == 16
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor.to(again.state_dict()[name].dtype))
    classifier = PointMAE.from_checkpoint(
        model.state_dict(), 3, num_heads=3, num_centers=6, patch_size=4
    )
    assert torch.equal(classifier.cls_token.double(), model.cls_token)
    assert torch.equal(classifier.cls_pos.double(), model.cls_pos)
    with pytest.raises(CheckpointError, match="cls_token"):
        PointMAEPretraining.from_checkpoint(model.state_dict(), **UNREADABLE)
    plain = PointMAEPretraining(**{k: v for k, v in SIZES.items() if k != "num_cloud_points"})
    with pytest.raises(CheckpointError, match="completion"):
        PointMAECompletion.from_checkpoint(plain.state_dict(), **UNREADABLE)
