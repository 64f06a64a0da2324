"""The property battery of methods: every method on every kind of model, one row each.

Rows are in ``tests/support/method_rows.py``. A method without a row, or a registered backbone of no
kind there, fails.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_rows import KINDS, ROWS, Kind, Row, rows_of
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from tuned import WAYS, Way, portrait, tiny_bank

from pyg_peft import PeftModel, testing
from pyg_peft.backbones.contract import is_token_backbone
from pyg_peft.backbones.registry import BACKBONES
from pyg_peft.checkpoint import WEIGHTS
from pyg_peft.testing import Clouds, random_clouds
from pyg_peft.tuners import METHODS

# Fewer points than patches, a single point, an empty cloud in the middle and one at the end.
SIZES = [30, 5, 0, 12, 1, 0]
ROWS_ON_PATCHES = rows_of(KINDS[0])
every_row = pytest.mark.parametrize("row", ROWS, ids=str)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
LORA = Row(KINDS[0], Way("lora"))


def clouds_for(kind: Kind, sizes: list[int] = SIZES, seed: int = 0) -> Clouds:
    generator = torch.Generator().manual_seed(seed)
    return random_clouds(sizes, max(kind.channels, 1), generator=generator)


def owned_buffers(model: PeftModel, adapter_name: str = "default") -> list[str]:
    """The buffers that an adapter holds, and may therefore train."""
    held = f".peft.adapters.{adapter_name}."
    return [name for name, _ in model.named_buffers() if held in name]


# ---- rows ----------------------------------------------------------------------------------------


def test_every_method_has_rows():
    assert {row.way.method for row in ROWS} == set(METHODS)
    assert {row.way.method for row in ROWS if row.kind.targets} >= {"adapter", "point_peft", "lora"}
    for kind in KINDS[:2]:
        assert {str(row.way) for row in rows_of(kind)} >= {str(way) for way in WAYS}


def test_every_backbone_is_of_a_kind():
    """On tokens or on points, for clouds or for points: no registered backbone is anything else."""
    kinds = {(not kind.targets, BACKBONES[kind.name].task) for kind in KINDS}
    with torch.device("meta"):
        found = {name: (is_token_backbone(kind(2)), kind.task) for name, kind in BACKBONES.items()}
    assert set(found.values()) <= kinds
    assert all(found[kind.name] == (not kind.targets, BACKBONES[kind.name].task) for kind in KINDS)


# ---- on and off ----------------------------------------------------------------------------------


@every_row
def test_identity_where_claimed_and_nowhere_else(row: Row, generator: torch.Generator):
    base, clouds, call = row.kind.base(), clouds_for(row.kind), row.kind.call
    reference = call(base, clouds)
    model = row.attach(base)
    counts = model.count_parameters()
    assert 0 < counts.head <= counts.trainable
    if row.is_identity:
        testing.assert_identity_at_init(
            model, clouds, reference=reference, generator=generator, call=call
        )
    else:
        assert not torch.equal(call(model, clouds), reference)


@every_row
def test_disabling_gives_the_base_bit_for_bit(row: Row):
    clouds, call, model = clouds_for(row.kind), row.kind.call, row.awake()
    reference = call(row.kind.base(), clouds)
    tuned = call(model, clouds)
    assert not torch.equal(tuned, reference)
    with model.disable_adapter():
        assert model.active_adapter is None and model.memory_bank is None
        assert torch.equal(call(model, clouds), reference)
        with model.disable_adapter():
            assert torch.equal(call(model, clouds), reference)
        assert torch.equal(call(model, clouds), reference)
    assert model.active_adapter == "default" and torch.equal(call(model, clouds), tuned)


@every_row
def test_unloading_leaves_no_trace(row: Row, generator: torch.Generator):
    """Also of a second adapter, and also where the base has hooks, modes and flags of its own.

    Classifiers are tuned while they train, all but a part; segmentation models the other way round.
    """
    training = row.kind.rows == "cloud"
    base = row.kind.base().train(training)
    next(base.parameters()).requires_grad_(False)
    first = next(base.children())
    first.train(not training)
    first.register_forward_hook(lambda module, args, output: None)

    def attach(base: torch.nn.Module) -> PeftModel:
        model = row.attach(base)
        model.add_adapter("second", row.config(), memory_bank=row.bank())
        return model.double()

    def detach(model: PeftModel) -> torch.nn.Module:
        released = model.unload()
        assert len(model.memory_banks) == 0 and not model.peft_config
        return released

    testing.assert_leaves_no_trace(
        base,
        clouds_for(row.kind),
        attach=attach,
        detach=detach,
        generator=generator,
        call=row.kind.call,
    )


# ---- clouds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [row for row in ROWS if not row.kind.targets], ids=str)
@settings(max_examples=5)
@given(sizes=st.lists(st.integers(0, 20), min_size=2, max_size=4), seed=st.integers(0, 2**31))
def test_clouds_do_not_see_each_other(row: Row, sizes: list[int], seed: int):
    clouds = clouds_for(row.kind, [9, *sizes, 1], seed)
    testing.assert_batch_isolated(row.awake(), clouds, call=row.kind.call, rows=row.kind.rows)


@pytest.mark.parametrize("row", [row for row in ROWS if row.kind.targets], ids=str)
def test_clouds_of_layers_do_not_see_each_other(row: Row):
    """Any sizes and orders, on every registered backbone, are drawn in ``test_graph_laws.py``."""
    clouds = clouds_for(row.kind, [9, 0, 7, 1, 0])
    testing.assert_batch_isolated(row.awake(), clouds, call=row.kind.call, rows=row.kind.rows)


# ---- training ------------------------------------------------------------------------------------


@every_row
def test_gradients(row: Row):
    testing.assert_gradients(row.awake(), clouds_for(row.kind), call=row.kind.call)


@every_row
def test_nothing_frozen_moves(row: Row):
    model, clouds = row.awake(), clouds_for(row.kind)
    before = {key: value.clone() for key, value in row.kind.base().state_dict().items()}
    moving = owned_buffers(model)
    testing.assert_frozen_after_step(model, clouds, call=row.kind.call, moving_buffers=moving)
    after = model.unload().state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@every_row
def test_training_mode_reaches_only_what_is_trained(row: Row):
    model = row.attach(row.kind.base()).train()
    for path, module in model.base.named_modules():
        if "peft" not in path.split(".") and isinstance(module, torch.nn.BatchNorm1d):
            slot = getattr(module, "peft", torch.nn.Identity())
            assert module.training == bool(list(slot.buffers())), path


@every_kind
def test_training_one_adapter_moves_no_other(kind: Kind):
    """All ways on one base: each is trained in turn, and the others answer as before."""
    rows, clouds = rows_of(kind), clouds_for(kind)
    model = rows[0].attach(kind.base(), "way0")
    testing.randomize_(model, torch.Generator().manual_seed(0))
    for number, row in enumerate(rows[1:], 1):
        bank = tiny_bank(5 + number) if row.way.has_bank else None
        model.add_adapter(f"way{number}", row.config(), memory_bank=bank)
        testing.randomize_(model.double(), torch.Generator().manual_seed(number))

    def answers() -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        model.eval()
        for name in model.peft_config:
            model.set_adapter(name)
            with torch.no_grad():
                found[name] = kind.call(model, clouds)
        return found

    before = answers()
    for name in before:
        model.set_adapter(name)
        moving = owned_buffers(model, name)
        testing.assert_frozen_after_step(model, clouds, call=kind.call, moving_buffers=moving)
        after = answers()
        changed = {key for key, answer in after.items() if not torch.equal(answer, before[key])}
        assert changed == {name}
        before = after
    model.set_adapter("way0")
    for name in list(model.peft_config)[1:]:
        model.delete_adapter(name)
        assert torch.equal(kind.call(model, clouds), before["way0"]), name
    assert list(model.peft_config) == ["way0"]


@every_row
def test_checkpointing(row: Row):
    testing.assert_checkpoints(row.awake(), clouds_for(row.kind), call=row.kind.call)


@pytest.mark.parametrize("row", ROWS_ON_PATCHES, ids=str)
def test_checkpointed_blocks_give_equal_gradients(row: Row):
    def gradients(recompute: bool) -> dict[str, Tensor]:
        model = row.awake().train()
        if recompute:
            blocks = model.base.get_submodule("blocks").children()
            for module in [*blocks, model.base.get_submodule("head.layers")]:
                run = module.forward
                module.forward = lambda *a, f=run, **k: checkpoint(f, *a, use_reentrant=False, **k)
        before = portrait(model.base)["tensors"]
        torch.manual_seed(0)
        row.kind.call(model, clouds_for(row.kind)).square().sum().backward()
        assert portrait(model.base)["tensors"] == before
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    plain, recomputed = gradients(False), gradients(True)
    assert plain.keys() == recomputed.keys() and plain
    for name, grad in plain.items():
        torch.testing.assert_close(recomputed[name], grad, rtol=1e-4, atol=1e-6, msg=name)


# ---- files and copies ----------------------------------------------------------------------------


@every_row
def test_saved_and_loaded(row: Row, tmp_path: Path):
    """The file holds what is trained, and no more."""

    def load(folder: Path) -> PeftModel:
        torch.manual_seed(4)
        return PeftModel.from_pretrained(row.kind.base(), folder)

    model = row.awake()
    testing.assert_saved_and_loaded(
        model,
        clouds_for(row.kind),
        save=lambda model, folder: model.save_pretrained(folder),
        load=load,
        call=row.kind.call,
    )
    model.save_pretrained(tmp_path)
    saved = sum(t.numel() for t in load_file(tmp_path / WEIGHTS).values())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    buffers = dict(model.named_buffers())
    assert saved == trained + sum(buffers[key].numel() for key in owned_buffers(model))


@every_row
def test_copies(row: Row):
    testing.assert_deepcopy_and_pickle(row.awake(), clouds_for(row.kind), call=row.kind.call)


# ---- compiled and merged -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS_ON_PATCHES, ids=str)
def test_compiles(row: Row):
    model = row.awake()

    def call_on_patches(compiled: Any, clouds: Clouds) -> Tensor:
        frozen = model.precompute(pos=clouds.pos, batch=clouds.batch, batch_size=clouds.batch_size)
        return compiled(**frozen)

    batches = [clouds_for(row.kind, sizes) for sizes in ([20, 30], [12, 25, 9])]
    testing.assert_compiles(model, batches, call=call_on_patches, backend="eager")


@pytest.mark.slow
def test_patches_are_compiled_with_the_model():
    batches = [clouds_for(LORA.kind, sizes) for sizes in ([20, 3], [12, 25, 9])]
    testing.assert_compiles(LORA.awake(), batches, call=LORA.kind.call, backend="eager")


@every_kind
def test_merging_changes_no_answer_and_leaves_no_adapter(kind: Kind):
    clouds, model = clouds_for(kind), Row(kind, Way("lora")).awake()
    tuned = kind.call(model, clouds)
    merged = model.merge_and_unload()
    assert not [key for key in merged.state_dict() if "peft" in key]
    torch.testing.assert_close(kind.call(merged, clouds), tuned, rtol=1e-9, atol=1e-9)
