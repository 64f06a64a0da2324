"""What all backbones on flat clouds promise, classifiers and segmentation models alike."""

import copy
import json
from inspect import signature
from typing import Any

import pytest
import torch
from flat_backbones import CASES, CHANNELS, CLASSES, Case
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from pyg_peft.backbones import PointMAE, PointNet
from pyg_peft.backbones.flat_backbone import FlatBackbone
from pyg_peft.backbones.point_mae.encoder import PointMAEEncoder
from pyg_peft.backbones.point_mae.with_head import PointMAEWithHead
from pyg_peft.errors import CheckpointError
from pyg_peft.testing import (
    assert_batch_isolated,
    assert_deepcopy_and_pickle,
    assert_gradients,
    assert_permutation_equivariant,
    assert_saved_and_loaded,
    assert_sensitive,
    random_clouds,
    randomize_,
)

SIZES = (14, 3, 0, 9, 1)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def clouds_of(sizes=SIZES, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return random_clouds(sizes, CHANNELS, generator=generator, dtype=dtype)


def body(model) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items() if not k.startswith("head.")}


# ---- contract -------------------------------------------------------------------------------


def test_shapes_and_steps(case: Case):
    model, clouds = case.make(), clouds_of()
    logits = case.call(model, clouds)
    rows = len(clouds.pos) if case.segments else len(SIZES)
    assert logits.shape == (rows, CLASSES)
    assert logits.isfinite().all()
    call = {"batch": clouds.batch, "batch_size": clouds.batch_size}
    features = model.forward_features(clouds.x, clouds.pos, **call)
    assert features.shape == (rows, model.embed_dim)
    assert torch.equal(model.forward_head(features), logits)


def test_one_cloud_needs_no_batch(case: Case):
    model, clouds = case.make(), clouds_of([9])
    assert torch.equal(model(clouds.x, clouds.pos), case.call(model, clouds))


def test_config_rebuilds_the_model(case: Case):
    model = case.make()
    assert list(model.config) == list(signature(type(model)).parameters)
    again = type(model)(**json.loads(json.dumps(model.config))).double().eval()
    assert again.config == model.config
    again.load_state_dict(model.state_dict())
    assert torch.equal(case.call(again, clouds_of()), case.call(model, clouds_of()))
    assert f"num_classes={CLASSES}, in_channels={CHANNELS}" in repr(model)


def test_config_of_a_users_subclass_is_that_of_its_parent():
    class Mine(PointNet):
        def __init__(self) -> None:
            super().__init__(num_classes=4, head_dropout=0.1)

    assert Mine().config == PointNet(num_classes=4, head_dropout=0.1).config


def test_config_of_a_users_own_family():
    class Mine(FlatBackbone):
        def __init__(self, num_classes: int, width: int = 3) -> None:
            super().__init__(num_classes, 0, head_channels=(), head_dropout=0.0)
            self.width = width

    class Mine2(Mine):
        def __init__(self) -> None:
            super().__init__(num_classes=4, width=5)

    assert Mine2().config == {"num_classes": 4, "width": 5}


ENCODER: dict[str, Any] = {
    "embed_dim": 24,
    "num_heads": 3,
    "num_centers": 4,
    "patch_size": 4,
    "in_channels": 0,
    "drop_path": 0.0,
}


def test_config_of_a_family_on_the_encoder_of_point_mae():
    class Mine(PointMAEWithHead):
        def __init__(self, num_classes: int, depth: int = 1) -> None:
            super().__init__(depth=depth, **ENCODER)
            self.num_classes = num_classes

    assert Mine(4).config == {"num_classes": 4, "depth": 1}
    encoder = PointMAEEncoder(depth=1, **ENCODER)
    assert encoder.config["depth"] == 1 and "PointMAEEncoder" in repr(encoder)


def test_reset_is_reproducible(case: Case):
    model, states = case.make(), []
    for _ in range(2):
        torch.manual_seed(1)
        model.reset_parameters()
        states.append(copy.deepcopy(model.state_dict()))
    assert all(torch.equal(states[0][key], value) for key, value in states[1].items())
    # and it reaches everything
    old = case.make().state_dict()
    still = [k for k, v in states[0].items() if torch.equal(v, old[k]) and "num_batches" not in k]
    assert not still


def test_reset_head(case: Case):
    model = case.make().train()
    before = body(model)
    model.reset_head(9)
    assert model.num_classes == model.config["num_classes"] == 9
    assert {p.dtype for p in model.head.parameters()} == {torch.float64}
    assert model.head.training
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert case.call(model.eval(), clouds_of()).size(1) == 9
    for build in (model.reset_head, lambda number: case.make(num_classes=number)):
        with pytest.raises(ValueError, match=r"Expected 'num_classes' to be >= 1 \(got 0\)"):
            build(0)


def test_input_errors(case: Case):
    model, clouds = case.make(), clouds_of([9, 4])
    x, pos, batch = clouds.x, clouds.pos, clouds.batch
    wrong: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (ValueError, r"'pos' to be given \(got None\)", {"pos": None}),
        (ValueError, "'pos' to be finite", {"pos": pos / 0}),
        (TypeError, "'pos' to be floating point", {"pos": pos.long()}),
        (ValueError, r"'x' to have 2 channels \(got None\)", {"x": None}),
        (ValueError, r"'x' to have 2 channels \(got shape \[13, 3\]\)", {"x": pos}),
        (ValueError, r"'x' to have 13 rows \(got \[9, 2\]\)", {"x": x[:9]}),
        (ValueError, "'batch' to be sorted", {"batch": batch.flip(0)}),
        (ValueError, r"'batch' to be of shape \[13\]", {"batch": batch[:9]}),
        (ValueError, "ids below batch_size 1", {"batch_size": 1}),
        (ValueError, "'pos' to be on .*meta", {"pos": pos.to("meta")}),
    ]
    for error, message, change in wrong:
        with pytest.raises(error, match=message):
            model(**{"x": x, "pos": pos, "batch": batch, **change})
    plain = case.make(in_channels=0)
    assert plain(pos=pos, batch=batch).isfinite().all()
    with pytest.raises(ValueError, match=r"'x' to be None .* \(got 2 channels\)"):
        plain(x, pos, batch)
    with pytest.raises(ValueError, match=r"'in_channels' to be >= 0 \(got -1\)"):
        case.make(in_channels=-1)


# ---- properties -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=5)
@given(
    sizes=st.lists(st.integers(0, 20), min_size=2, max_size=3).filter(
        lambda sizes: sum(size > 0 for size in sizes) > 1
    ),
    seed=st.integers(0, 999),
)
def test_clouds_do_not_see_each_other_and_order_does_not_matter(name, sizes, seed):
    case = CASES[name]
    model, clouds = case.make(), clouds_of(sizes, seed)
    assert_batch_isolated(model, clouds, rows=case.rows)
    generator = torch.Generator().manual_seed(seed)
    assert_permutation_equivariant(model, clouds, generator=generator, rows=case.rows)


def test_sees_positions_and_features(case: Case, generator):
    for what in ("x", "pos"):
        assert_sensitive(case.make(), clouds_of(), generator=generator, to=what)


def test_every_parameter_gets_a_gradient(case: Case):
    model = case.make()
    names = [n for n, _ in model.named_parameters() if n.endswith(case.canceled or ("?",))]
    assert_gradients(model, clouds_of((30, 25)), may_be_zero=names)


@pytest.mark.parametrize("sizes", [[20, 9, 30], [1, 1, 2], [0, 3, 0, 1]])
def test_clouds_of_any_size_train(case: Case, sizes):
    model = case.make().train()
    clouds = clouds_of(sizes).leaves()
    logits = case.call(model, clouds)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert clouds.pos.grad is not None
    assert clouds.pos.grad.isfinite().all()


def test_ids_with_gaps(case: Case):
    model, clouds = case.make(), clouds_of([5, 7])
    gaps = model(clouds.x, clouds.pos, clouds.batch * 3 + 1, batch_size=6)
    expected = case.call(model, clouds)
    torch.testing.assert_close(gaps if case.segments else gaps[[1, 4]], expected)


def test_no_points_and_no_clouds(case: Case):
    model, clouds = case.make(), clouds_of([0])
    for size in (0, 2):
        logits = model(clouds.x, clouds.pos, clouds.batch, batch_size=size)
        assert logits.shape == (0 if case.segments else size, CLASSES)
        assert logits.isfinite().all()


def test_coincident_points_and_strided_input(case: Case):
    model, clouds = case.make(), clouds_of([40])
    same = torch.ones_like(clouds.pos).requires_grad_()
    logits = model(clouds.x, same)
    assert logits.isfinite().all()
    logits.sum().backward()
    assert same.grad is not None
    assert same.grad.isfinite().all()
    strided = clouds.pos.t().contiguous().t()
    assert torch.equal(model(clouds.x, strided), model(clouds.x, clouds.pos))


def test_double_positions_meet_single_weights(case: Case):
    single, clouds = case.make(torch.float32), clouds_of()
    expected = case.call(case.make(), clouds)
    logits = case.call(single, clouds)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.double(), expected, rtol=1e-3, atol=1e-3)


# ---- files ----------------------------------------------------------------------------------


def test_saved_and_loaded(case: Case):
    def load(folder):
        return case.model.from_checkpoint(folder / "own.safetensors", **case.untold).double()

    model = randomize_(case.make(torch.float32).double(), torch.Generator().manual_seed(1))
    state = {key: value.float().double() for key, value in model.state_dict().items()}
    model.load_state_dict({k: v.to(model.state_dict()[k].dtype) for k, v in state.items()})
    assert_saved_and_loaded(
        model,
        clouds_of(),
        save=lambda module, folder: save_file(module.state_dict(), folder / "own.safetensors"),
        load=load,
    )
    assert load_config(case, model) == model.config


def load_config(case: Case, model) -> dict[str, Any]:
    return case.model.from_checkpoint(model.state_dict(), **case.untold).config


def test_copies_and_pickles(case: Case):
    assert_deepcopy_and_pickle(case.make(), clouds_of())


def test_leftover_missing_and_wrong_are_all_named(case: Case):
    state = case.make().state_dict()
    key = next(key for key in state if key.endswith("running_mean"))
    broken = {**state, "bonus": torch.zeros(1), key: torch.zeros(99)}
    del broken["head.lins.1.bias"]
    with pytest.raises(CheckpointError) as caught:
        case.model.from_checkpoint(broken, **case.untold)
    name = type(case.make()).__name__
    for part in (f"fit {name}", "leftover: 'bonus'", "'head.lins.1.bias'", f"'{key} [99] instead"):
        assert part in str(caught.value)


def test_a_missing_level_and_a_foreign_file(case: Case):
    state = case.make().state_dict()
    gap = {key: value for key, value in state.items() if not key.startswith("levels.0.")}
    for content in (gap, PointMAE(4, 12, 1, 3).state_dict(), {"a.weight": torch.zeros(2)}):
        with pytest.raises(CheckpointError, match="to be a checkpoint of"):
            case.model.from_checkpoint(content, CLASSES, **case.untold)


def test_number_of_classes(case: Case):
    state = case.make().state_dict()
    with pytest.raises(ValueError, match=r"'num_classes' to be 4.*got 15.*reset_head\(15\)"):
        case.model.from_checkpoint(state, 15, **case.untold)
    headless = {key: value for key, value in state.items() if not key.startswith("head.")}
    with pytest.raises(ValueError, match=r"'num_classes' to be given.*got None"):
        case.model.from_checkpoint(headless, **case.untold)
    model = case.model.from_checkpoint(headless, 7, **case.untold)
    assert model.num_classes == 7
    assert all(torch.equal(v.float(), body(model)[k].float()) for k, v in headless.items())
