"""Point-MAE as a whole: its contract, clouds of any size, and the machinery around it."""

import copy
import json
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pyg_peft.backbones import DropPath, PointMAE
from pyg_peft.geometry import build_patches

SIZES = {"embed_dim": 12, "depth": 2, "num_heads": 3, "num_centers": 6, "patch_size": 4}


def make_model(dtype=torch.float64, **kwargs) -> PointMAE:
    """A small model, untrained but with nothing at zero."""
    torch.manual_seed(0)
    model = PointMAE(4, **SIZES, **kwargs).eval()
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(0.2 * torch.rand_like(value) - 0.1)
    return model.to(dtype)


def make_clouds(counts, seed=0, dtype=torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pos = torch.randn(sum(counts), 3, generator=generator, dtype=dtype)
    return pos, torch.arange(len(counts)).repeat_interleave(torch.tensor(counts, dtype=torch.long))


def relative_error(value: Tensor, expected: Tensor) -> float:
    return ((value - expected).abs().max() / expected.abs().max()).item()


def patch_loss(model: PointMAE, patches) -> Tensor:
    return model.forward_head(model.forward_features(patches), patches.mask).square().sum()


def test_repr():
    assert repr(make_model()).startswith(
        "PointMAE(\n  num_classes=4, embed_dim=12, depth=2, num_heads=3, num_centers=6, "
        "patch_size=4, in_channels=0, drop_path=0.1, head_dropout=0.5\n"
    )


@pytest.mark.parametrize("name", ["num_classes", "depth", "num_centers", "patch_size"])
def test_sizes_are_positive(name):
    with pytest.raises(ValueError, match=rf"Expected '{name}' to be >= 1 \(got 0\)"):
        PointMAE(**{"num_classes": 4, **SIZES, name: 0})


def test_config_rebuilds_the_model():
    model = PointMAE(4, **SIZES, in_channels=2, drop_path=0.3, head_dropout=0.1)
    again = PointMAE(**json.loads(json.dumps(model.config)))
    assert again.config == model.config
    again.load_state_dict(model.state_dict())
    rates = [module.drop_prob for module in again.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.0, 0.3])


def test_reset_is_reproducible():
    model = make_model()
    torch.manual_seed(1)
    model.reset_parameters()
    first = copy.deepcopy(model.state_dict())
    torch.manual_seed(1)
    model.reset_parameters()
    assert all(torch.equal(first[key], value) for key, value in model.state_dict().items())


def test_reset_head():
    model = make_model().train()
    body = {k: v.clone() for k, v in model.state_dict().items() if not k.startswith("head.")}
    model.reset_head(9)
    assert model.num_classes == model.config["num_classes"] == 9
    assert {p.dtype for p in model.head.parameters()} == {torch.float64}
    assert model.head.training
    assert all(torch.equal(model.state_dict()[key], value) for key, value in body.items())
    assert model.eval()(pos=make_clouds([20])[0]).shape == (1, 9)
    with pytest.raises(ValueError, match=r"Expected 'num_classes' to be >= 1 \(got 0\)"):
        model.reset_head(0)


def test_the_steps_make_the_whole():
    model = make_model()
    pos, batch = make_clouds([20, 9])
    patches = model.make_patches(pos, batch)
    tokens = model.embed(patches)
    features = model.forward_features(patches, tokens=tokens)
    logits = model(pos=pos, batch=batch)
    assert tokens.shape == (2, 6, 12)
    assert features.shape == (2, 7, 12)
    assert torch.equal(model.forward_head(features, patches.mask), logits)
    assert torch.equal(model(patches=patches), logits)
    assert torch.equal(model(patches=patches, tokens=tokens), logits)


def test_blocks_receive_what_the_call_names():
    model = make_model()
    seen = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda *args: seen.append(args[2]), with_kwargs=True)
    patches = model.make_patches(make_clouds([20])[0])
    structure, prior = object(), torch.zeros(1, 3, 12)
    model(patches=patches, structure=structure, prior=prior)
    assert len(seen) == 2
    for kwargs in seen:
        assert kwargs["patches"] is patches
        assert kwargs["structure"] is structure
        assert kwargs["prior"] is prior


def test_input_errors():
    model = make_model()
    pos = make_clouds([20])[0]
    with pytest.raises(
        ValueError, match=r"Expected 'pos' or 'patches' to be given \(got neither\)"
    ):
        model()
    with pytest.raises(ValueError, match=r"Expected 'x' to be None .* \(got 2 channels\)"):
        model(torch.ones(20, 2), pos)
    wide = make_model(in_channels=3)
    with pytest.raises(ValueError, match=r"Expected 'x' to have 3 channels \(got None\)"):
        wide(pos=pos)
    with pytest.raises(ValueError, match=r"Expected 'x' to have 3 channels \(got 2 channels\)"):
        wide(torch.ones(20, 2), pos)
    with pytest.raises(ValueError, match="'pos' to be finite"):
        model(pos=pos / 0)
    with pytest.raises(TypeError, match="'pos' to be floating point"):
        model(pos=pos.long())
    with pytest.raises(ValueError, match="'batch' to be sorted"):
        model(pos=pos, batch=torch.arange(20) % 2)


def test_features_reach_the_logits():
    model = make_model(in_channels=3)
    pos, batch = make_clouds([20, 5])
    x = torch.randn(25, 3, dtype=torch.float64)
    assert not torch.allclose(model(x, pos, batch), model(2 * x, pos, batch))
    geometry_only = PointMAE(4, **SIZES).double().eval()
    fresh = PointMAE.from_checkpoint(
        geometry_only.state_dict(), num_heads=3, num_centers=6, patch_size=4, in_channels=3
    )
    torch.testing.assert_close(
        fresh.double().eval()(x, pos, batch), geometry_only(None, pos, batch)
    )


@settings(max_examples=25)
@given(counts=st.lists(st.integers(0, 15), min_size=1, max_size=4), seed=st.integers(0, 999))
def test_a_cloud_alone_equals_a_cloud_in_company(counts, seed):
    model = make_model()
    pos, batch = make_clouds(counts, seed)
    pos.requires_grad_()
    patches = model.make_patches(pos, batch, len(counts))
    logits = model(patches=patches)
    query = model.forward_query(patches)
    for number, cloud in enumerate(pos.detach().split(counts)):
        alone = model.make_patches(cloud, batch_size=1)
        torch.testing.assert_close(model(patches=alone)[0], logits[number])
        torch.testing.assert_close(model.forward_query(alone)[0], query[number])
        for output in (logits, query):
            (gradient,) = torch.autograd.grad(
                output[number].sum(), pos, retain_graph=True, materialize_grads=True
            )
            assert gradient.isfinite().all()
            assert not gradient[batch != number].any()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("counts", [[13, 40, 2], [1, 1], [0, 3, 0], [0, 0]])
def test_clouds_of_any_size_train(counts, training):
    model = make_model().train(training)
    pos, batch = make_clouds(counts)
    pos.requires_grad_()
    logits = model(pos=pos, batch=batch, batch_size=len(counts))
    assert logits.shape == (len(counts), 4)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_an_empty_cloud_has_a_summary_and_zero_maximum():
    model = make_model()
    patches = model.make_patches(torch.zeros(0, 3, dtype=torch.float64), batch_size=1)
    features = model.forward_features(patches)
    assert features[0, 0].any()
    assert not features[0, 1:].any()
    assert not model.forward_query(patches).any()
    cls = torch.cat([features[:, 0], torch.zeros(1, 12, dtype=torch.float64)], dim=1)
    assert torch.equal(model.head(cls), model(patches=patches))


def test_no_clouds_at_all():
    model = make_model()
    logits = model(pos=torch.zeros(0, 3), batch=torch.zeros(0, dtype=torch.long), batch_size=0)
    assert logits.shape == (0, 4)


def test_full_clouds_carry_no_mask():
    model = make_model()
    assert model.make_patches(*make_clouds([6, 7])).mask is None
    mask = model.make_patches(*make_clouds([6, 5])).mask
    assert mask is not None
    assert mask.sum(1).tolist() == [6, 5]


def test_coincident_points_and_strided_input():
    model = make_model()
    assert model(pos=torch.ones(20, 3, dtype=torch.float64)).isfinite().all()
    pos = make_clouds([20])[0]
    strided = pos.t().contiguous().t()
    assert torch.equal(model(pos=strided), model(pos=pos))


@given(seed=st.integers(0, 999))
@settings(max_examples=20)
def test_order_of_patches_does_not_matter_but_positions_do(seed):
    model = make_model()
    pos, _ = make_clouds([20], seed)
    patches = model.make_patches(pos)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    shuffled = type(patches)(
        patches.points[:, order],
        patches.center[:, order],
        patches.index[:, order],
        patches.center_index[:, order],
    )
    logits = model(patches=patches)
    torch.testing.assert_close(model(patches=shuffled), logits)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    assert not torch.allclose(model(pos=pos @ rotation), logits, rtol=1e-8, atol=1e-8)
    moved = pos.clone()
    moved[0] += 0.5  # the first point is a center
    assert not torch.allclose(model(pos=moved), logits, rtol=1e-8, atol=1e-8)


def test_every_parameter_gets_a_gradient():
    model = make_model(in_channels=2)
    pos, batch = make_clouds([20, 30])
    model(torch.randn(50, 2).double(), pos, batch).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_frozen_and_in_evaluation_nothing_moves():
    model = make_model()
    before = copy.deepcopy(model.state_dict())
    model(pos=make_clouds([20])[0]).sum().backward()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("counts", "training"), [([20, 20], False), ([20, 3], False), ([20, 3], True)]
)
def test_compiles_without_a_break(counts, training):
    torch.compiler.reset()
    model = make_model(torch.float32, drop_path=0.0, head_dropout=0.0).train(training)
    twin = copy.deepcopy(model)
    patches = model.make_patches(*make_clouds(counts, dtype=torch.float32))
    compiled = torch.compile(patch_loss, fullgraph=True, backend="eager")
    expected = patch_loss(twin, patches)
    loss = compiled(model, patches)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    expected.backward()
    loss.backward()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4)


def test_exports():
    class Scores(torch.nn.Module):
        def __init__(self, model: PointMAE) -> None:
            super().__init__()
            self.model = model

        def forward(self, patches):
            return self.model(patches=patches)

    model = Scores(make_model(torch.float32))
    patches = model.model.make_patches(*make_clouds([20, 3], dtype=torch.float32))
    other = model.model.make_patches(*make_clouds([9, 4], seed=1, dtype=torch.float32))
    # torch replaces `center` inside `center_index` too, and the guards it writes are no Python
    exported = torch.export.export(model, (patches,)).module(check_guards=False)
    torch.testing.assert_close(exported(other), model(other))


def test_checkpointed_blocks_give_the_same_gradients():
    model = make_model().train()
    twin = copy.deepcopy(model)
    for block in twin.blocks:
        plain = block.forward
        block.forward = lambda *args, plain=plain, **kwargs: checkpoint(
            plain, *args, use_reentrant=False, **kwargs
        )
    patches = model.make_patches(*make_clouds([20, 5]))
    losses = []
    for either in (model, twin):
        torch.manual_seed(5)
        losses.append(patch_loss(either, patches))
        losses[-1].backward()
    assert torch.equal(*losses)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=0)


def test_copies_and_pickles():
    model = make_model()
    pos, batch = make_clouds([20, 5])
    expected = model(pos=pos, batch=batch)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again(pos=pos, batch=batch), expected)


def test_lower_precisions():
    pos, batch = make_clouds([20, 5])
    expected = make_model()(pos=pos, batch=batch)
    # weights of single precision, coordinates of double: rounded once they are relative
    single = make_model(torch.float32)(pos=pos, batch=batch)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-4)
    model = make_model(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        patches = model.make_patches(pos.float(), batch)
        mixed = model(patches=patches)
    assert patches.points.dtype == patches.center.dtype == torch.float32
    assert relative_error(mixed, expected) < 0.03
    half = make_model(torch.bfloat16)(pos=pos, batch=batch)
    assert relative_error(half, expected) < 0.1


def test_patches_are_those_of_the_geometry():
    model = make_model()
    pos, batch = make_clouds([20, 5])
    ours = model.make_patches(pos, batch)
    theirs = build_patches(pos, batch, num_centers=6, patch_size=4)
    assert torch.equal(ours.index, theirs.index)
    assert torch.equal(ours.points, theirs.points)
