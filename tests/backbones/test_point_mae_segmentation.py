"""Point-MAE for parts: its contract, clouds of any size, files, and the property battery."""

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyg_peft import testing
from pyg_peft.backbones import PointMAE, PointMAEPretraining, PointMAESegmentation, SegmentationHead
from pyg_peft.backbones.layers.patch_propagation import mean_valid, patches_to_points
from pyg_peft.errors import CheckpointError
from pyg_peft.testing import Clouds, random_clouds

SIZES = {"embed_dim": 12, "depth": 2, "num_heads": 3, "num_centers": 6, "patch_size": 4}
HEAD = {"num_levels": 2, "head_channels": 16}


def make_model(**settings) -> PointMAESegmentation:
    """A small model in double precision, untrained but with nothing at zero."""
    torch.manual_seed(0)
    more: dict[str, Any] = {"drop_path": 0.0, "head_dropout": 0.0, **settings}
    model = PointMAESegmentation(5, **SIZES, **HEAD, **more).double()
    testing.randomize_(model, torch.Generator().manual_seed(0))
    return model.eval()


def call(model, clouds: Clouds) -> Tensor:
    more: dict[str, Tensor] = {}
    if model.num_categories:
        more["category"] = torch.arange(clouds.batch_size) % model.num_categories
    return model(pos=clouds.pos, batch=clouds.batch, batch_size=clouds.batch_size, **more)


@pytest.fixture
def clouds(generator: torch.Generator) -> Clouds:
    return random_clouds([30, 5, 0, 12, 1, 0], generator=generator)


def test_repr_and_config():
    model = make_model(num_categories=2, in_channels=1)
    assert repr(model).startswith(
        "PointMAESegmentation(\n  num_classes=5, embed_dim=12, depth=2, num_heads=3, "
        "num_centers=6, patch_size=4, num_categories=2, num_levels=2, in_channels=1, "
        "head_channels=16, drop_path=0.0, head_dropout=0.0\n"
    )
    again = PointMAESegmentation(**json.loads(json.dumps(model.config)))
    again.load_state_dict(model.state_dict())


def test_errors():
    for name, value, message in (
        ("num_classes", 0, r"'num_classes' to be >= 1 \(got 0\)"),
        ("num_levels", 3, r"'num_levels' to lie in \[1, 2\] \(got 3\)"),
        ("num_categories", -1, r"'num_categories' to be >= 0 \(got -1\)"),
        ("head_channels", 6, r"'head_channels' to be a multiple of 4 \(got 6\)"),
    ):
        with pytest.raises(ValueError, match=message):
            PointMAESegmentation(**{"num_classes": 5, **SIZES, **HEAD, name: value})
    pos = torch.randn(9, 3).double()
    model, told = make_model(), make_model(num_categories=2)
    with pytest.raises(ValueError, match=r"'pos' to be given \(got None\)"):
        model()
    with pytest.raises(ValueError, match=r"'category' to be None .* \(got a tensor\)"):
        model(pos=pos, category=torch.tensor([0]))
    with pytest.raises(ValueError, match=r"'category' to hold a number below 2 .* \(got None\)"):
        told(pos=pos)
    with pytest.raises(ValueError, match=r"'category' to lie in \[0, 1\] \(got 2 to 2\)"):
        told(pos=pos, category=torch.tensor([2]))


def test_by_hand_features_travel_to_points():
    """Three centers on a line; the point between them gets a mix, a center its own."""
    pos = torch.tensor([[0.0, 0, 0], [4, 0, 0], [8, 0, 0], [2, 0, 0]], dtype=torch.float64)
    patches = make_model().make_patches(pos)
    assert patches.mask is not None
    order = patches.center_index[0, :3]
    x = torch.zeros(1, 6, 1, dtype=torch.float64)
    x[0, :4, 0] = torch.tensor([10.0, 20.0, 40.0, 0.0], dtype=torch.float64)[
        patches.center_index[0, :4]
    ]
    found = patches_to_points(x, patches, pos, k=1).squeeze(1)
    assert found.tolist() == [10, 20, 40, 0]
    assert sorted(order.tolist())[0] == 0
    assert mean_valid(x, patches.mask).item() == pytest.approx(70 / 4)


def test_reset():
    model = make_model().train()
    for _ in range(2):
        torch.manual_seed(1)
        model.reset_parameters()
    first = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(1)
    model.reset_parameters()
    assert all(torch.equal(first[key], value) for key, value in model.state_dict().items())
    model.reset_head(9)
    assert model.num_classes == model.config["num_classes"] == 9
    assert model.head.training
    assert model.eval()(pos=torch.randn(20, 3).double()).shape == (20, 9)


def test_the_steps_make_the_whole(clouds: Clouds):
    model = make_model(num_categories=3)
    category = torch.arange(6) % 3
    patches = model.make_patches(clouds.pos, clouds.batch, 6)
    features = model.forward_features(patches, tokens=model.embed(patches))
    assert features.shape == (6, 6, 24)
    scores = model.forward_head(features, patches, clouds.pos, clouds.batch, category)
    assert torch.equal(scores, call(model, clouds))
    assert model.forward_query(patches).shape == (6, 12)
    handed = model(pos=clouds.pos, batch=clouds.batch, patches=patches, category=category)
    assert torch.equal(handed, scores)


def test_the_category_and_every_level_count(clouds: Clouds):
    model = make_model(num_categories=3)
    with torch.no_grad():
        pos, batch = clouds.pos, clouds.batch
        some, other = (
            model(pos=pos, batch=batch, batch_size=6, category=torch.full((6,), c)) for c in (0, 1)
        )
        assert not torch.allclose(some, other)
        model.head.lift.weight[:, 3:15] = 0
        assert not torch.allclose(
            some,
            model(pos=pos, batch=batch, batch_size=6, category=torch.zeros(6, dtype=torch.long)),
        )


@pytest.mark.parametrize("num_categories", [0, 3])
@settings(max_examples=10)
@given(sizes=st.lists(st.integers(0, 20), min_size=2, max_size=4), seed=st.integers(0, 2**31))
def test_clouds_do_not_see_each_other(num_categories: int, sizes: list[int], seed: int):
    generator = torch.Generator().manual_seed(seed)
    clouds = random_clouds([9, *sizes, 1], generator=generator)
    model = make_model(num_categories=num_categories)
    category = torch.randint(3, (clouds.batch_size,), generator=generator)
    together = model(
        pos=clouds.pos,
        batch=clouds.batch,
        batch_size=clouds.batch_size,
        category=category if num_categories else None,
    )
    counts = torch.bincount(clouds.batch, minlength=clouds.batch_size).tolist()
    for number, (cloud, part) in enumerate(
        zip(clouds.pos.split(counts), together.split(counts), strict=True)
    ):
        told = category[number : number + 1] if num_categories else None
        alone = model(pos=cloud, batch_size=1, category=told)
        torch.testing.assert_close(alone, part)


def test_battery(clouds: Clouds, generator: torch.Generator):
    model = make_model()
    testing.assert_batch_isolated(model, clouds, call=call)
    testing.assert_gradients(make_model(num_categories=3), clouds, call=call)
    testing.assert_sensitive(model, clouds, call=call, generator=generator)
    testing.assert_deepcopy_and_pickle(model, clouds, call=call)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_points_are_interchangeable_given_the_patches(seed: int):
    model = make_model()
    generator = torch.Generator().manual_seed(seed)
    pos = torch.randn(25, 3, generator=generator, dtype=torch.float64)
    patches = model.make_patches(pos)
    order = torch.randperm(25, generator=generator)
    scores = model(pos=pos, patches=patches)
    torch.testing.assert_close(model(pos=pos[order], patches=patches), scores[order])


@pytest.mark.parametrize("counts", [[13, 40, 2], [1, 1], [0, 3, 0], [0, 0]])
def test_clouds_of_any_size_train(counts: list[int]):
    model = make_model().train(sum(counts) > 0)
    pos = torch.randn(sum(counts), 3, dtype=torch.float64)
    batch = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    scores = model(pos=pos, batch=batch, batch_size=len(counts))
    assert scores.shape == (sum(counts), 5)
    scores.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_coincident_points_and_lower_precisions(clouds: Clouds):
    model = make_model()
    assert model(pos=torch.ones(20, 3, dtype=torch.float64)).isfinite().all()
    expected = call(model, clouds)
    single = call(make_model().float(), clouds)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=1e-3, atol=1e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = make_model().float()(pos=clouds.pos.float(), batch=clouds.batch, batch_size=6)
    assert ((mixed - expected).abs().max() / expected.abs().max()).item() < 0.05


@pytest.mark.slow
def test_compiles_without_a_break():
    torch.compiler.reset()
    model = make_model(num_categories=3).float()
    pos, batch = torch.randn(40, 3), torch.arange(2).repeat_interleave(20)
    category = torch.tensor([2, 0])
    patches = model.make_patches(pos, batch)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for order in (torch.arange(40), torch.arange(20).repeat(2) + 20 * batch):
        expected = model(pos=pos[order], batch=batch, patches=patches, category=category)
        found = compiled(pos=pos[order], batch=batch, patches=patches, category=category)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_files(tmp_path):
    model = make_model(num_categories=3).float()
    torch.save({"model_state_dict": model.state_dict(), "epoch": 3}, tmp_path / "own.pth")
    sizes = {"num_heads": 3, "num_centers": 6, "patch_size": 4}
    again = PointMAESegmentation.from_checkpoint(tmp_path / "own.pth", **sizes)
    assert again.config == {**model.config, "drop_path": 0.1, "head_dropout": 0.5}
    assert all(torch.equal(again.state_dict()[k], v) for k, v in model.state_dict().items())
    state = model.state_dict()
    with pytest.raises(ValueError, match=r"'num_classes' to be 5.*\(got 4\): .*reset_head"):
        PointMAESegmentation.from_checkpoint(state, 4, **sizes)
    with pytest.raises(ValueError, match=r"'num_categories' to be 3.*\(got 0\)"):
        PointMAESegmentation.from_checkpoint(state, num_categories=0, **sizes)
    lost = {key: value for key, value in state.items() if key != "head.reduce.bias"}
    with pytest.raises(CheckpointError, match=r"missing: 'head\.reduce\.bias'"):
        PointMAESegmentation.from_checkpoint(lost, **sizes)
    with pytest.raises(CheckpointError, match=r"leftover: 'bonus'"):
        PointMAESegmentation.from_checkpoint({**state, "bonus": torch.zeros(1)}, **sizes)


@pytest.mark.parametrize("kind", ["classifier", "autoencoder"])
def test_encoders_of_other_files(kind: str):
    torch.manual_seed(3)
    sizes = {"num_heads": 3, "num_centers": 6, "patch_size": 4}
    if kind == "classifier":
        other: torch.nn.Module = PointMAE(7, **SIZES)
    else:
        other = PointMAEPretraining(**SIZES, decoder_depth=1, decoder_num_heads=3)
    state = other.state_dict()
    with pytest.raises(ValueError, match=r"'num_classes' to be given .* \(got None\)"):
        PointMAESegmentation.from_checkpoint(state, **sizes, **HEAD)
    model = PointMAESegmentation.from_checkpoint(state, 4, num_categories=2, **sizes, **HEAD)
    assert (model.num_classes, model.num_categories, model.head_channels) == (4, 2, 16)
    name = "blocks.1.mlp.fc1.weight"
    found = next(value for key, value in state.items() if key.endswith(name))
    assert torch.equal(model.get_parameter(name), found)
    if kind == "classifier":  # a bank is the same for classification and for parts
        assert isinstance(other, PointMAE)
        patches = other.make_patches(torch.randn(30, 3))
        query = model.eval().forward_query(patches)
        torch.testing.assert_close(query, other.eval().forward_query(patches))


def test_head_alone():
    head = SegmentationHead(5, 4, 3, lift_channels=8, channels=8).eval()
    x, summary = torch.randn(7, 5), torch.randn(2, 4)
    batch = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    scores = head(x, summary, batch)
    torch.testing.assert_close(head(x[:3], summary[:1]), scores[:3])
