"""The property battery over every method: a method without a recipe fails."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from pyg_peft import MemoryBank, PeftModel, get_peft_model, testing
from pyg_peft.backbones import PointMAE
from pyg_peft.testing import Clouds, random_clouds
from pyg_peft.tuners import (
    METHODS,
    AdapterConfig,
    BitFitConfig,
    FullFineTuningConfig,
    LinearProbeConfig,
    LoRAConfig,
    MethodConfig,
    PointPEFTConfig,
    VPTConfig,
)

CHANNELS = 24
# Fewer points than patches, a single point, an empty cloud in the middle and one at the end.
SIZES = [30, 5, 0, 12, 1, 0]


@dataclass(frozen=True)
class Recipe:
    """One setting of a method that the battery runs on."""

    config: MethodConfig
    has_bank: bool = False


POINT_PEFT = PointPEFTConfig(
    bottleneck_channels=6, num_prompts=5, prompt_bottleneck_channels=4, attention_channels=6, k=4
)
RECIPES = {
    "adapter": Recipe(AdapterConfig(bottleneck_channels=4)),
    "bitfit": Recipe(BitFitConfig()),
    "full_fine_tuning": Recipe(FullFineTuningConfig()),
    "linear_probe": Recipe(LinearProbeConfig()),
    "lora": Recipe(LoRAConfig(rank=2)),
    "point_peft": Recipe(POINT_PEFT),
    "point_peft with a bank": Recipe(POINT_PEFT, has_bank=True),
    "vpt": Recipe(VPTConfig(num_prompts=3)),
    "vpt shallow": Recipe(VPTConfig(num_prompts=3, deep=False)),
}
every_recipe = pytest.mark.parametrize("name", RECIPES)


def new_base(seed: int = 0) -> PointMAE:
    """Build a small backbone in double precision, without dropout, its statistics not trivial."""
    torch.manual_seed(seed)
    base = PointMAE(
        5,
        embed_dim=CHANNELS,
        depth=2,
        num_heads=6,
        num_centers=8,
        patch_size=4,
        drop_path=0.0,
        head_dropout=0.0,
    ).double()
    testing.randomize_(base, torch.Generator().manual_seed(seed))
    return base.eval()


def new_bank() -> MemoryBank:
    values = torch.randn(20, CHANNELS, generator=torch.Generator().manual_seed(5)).double()
    keys = torch.nn.functional.normalize(values, dim=-1)
    return MemoryBank(keys, values, sample_id=torch.arange(20))


def attach(name: str, base: torch.nn.Module, adapter_name: str = "default") -> PeftModel:
    recipe = RECIPES[name]
    torch.manual_seed(2)
    bank = new_bank() if recipe.has_bank else None
    model = get_peft_model(base, recipe.config, adapter_name, memory_bank=bank)
    return model.double().eval()


def awake(name: str) -> PeftModel:
    model = attach(name, new_base())
    testing.randomize_(model, torch.Generator().manual_seed(3))
    return model


def call(model: Any, clouds: Clouds) -> Tensor:
    """Call a tuned model, or a base."""
    more: dict[str, Tensor] = {}
    if getattr(model, "memory_bank", None) is not None:
        more["sample_id"] = torch.arange(clouds.batch_size)
    return model(pos=clouds.pos, batch=clouds.batch, batch_size=clouds.batch_size, **more)


def owned_buffers(model: PeftModel) -> list[str]:
    """The buffers that an adapter holds, and may therefore train."""
    return [name for name, _ in model.named_buffers() if ".peft." in name]


@pytest.fixture
def clouds(generator: torch.Generator) -> Clouds:
    return random_clouds(SIZES, generator=generator)


def test_every_method_has_a_recipe():
    assert {name.split()[0] for name in RECIPES} == set(METHODS)
    assert all(type(r.config) is METHODS[name.split()[0]] for name, r in RECIPES.items())


@every_recipe
def test_identity_where_claimed_and_nowhere_else(
    name: str, clouds: Clouds, generator: torch.Generator
):
    base = new_base()
    reference = call(base, clouds)
    model = attach(name, base)
    if RECIPES[name].config.identity_at_init:
        testing.assert_identity_at_init(
            model, clouds, reference=reference, generator=generator, call=call
        )
    else:
        assert not torch.equal(call(model, clouds), reference)


@every_recipe
@settings(max_examples=5)
@given(sizes=st.lists(st.integers(0, 20), min_size=2, max_size=4), seed=st.integers(0, 2**31))
def test_clouds_do_not_see_each_other(name: str, sizes: list[int], seed: int):
    clouds = random_clouds([9, *sizes, 1], generator=torch.Generator().manual_seed(seed))
    testing.assert_batch_isolated(awake(name), clouds, call=call, rows="cloud")


@every_recipe
def test_gradients(name: str, clouds: Clouds):
    testing.assert_gradients(awake(name), clouds, call=call)


@every_recipe
def test_nothing_frozen_moves(name: str, clouds: Clouds):
    model = awake(name)
    before = {key: value.clone() for key, value in new_base().state_dict().items()}
    testing.assert_frozen_after_step(model, clouds, call=call, moving_buffers=owned_buffers(model))
    after = model.unload().state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


@every_recipe
def test_training_mode_reaches_only_what_is_trained(name: str):
    model = attach(name, new_base()).train()
    for path, module in model.base.named_modules():
        if "peft" not in path.split(".") and isinstance(module, torch.nn.BatchNorm1d):
            slot = getattr(module, "peft", torch.nn.Identity())
            assert module.training == bool(list(slot.buffers())), path


@every_recipe
def test_unloading_leaves_no_trace(name: str, clouds: Clouds, generator: torch.Generator):
    testing.assert_leaves_no_trace(
        new_base(),
        clouds,
        attach=lambda base: attach(name, base),
        detach=lambda model: model.unload(),
        generator=generator,
        call=call,
    )


@every_recipe
def test_disabling_gives_the_base_bit_for_bit(name: str, clouds: Clouds):
    reference, model = call(new_base(), clouds), awake(name)
    tuned = call(model, clouds)
    assert not torch.equal(tuned, reference)
    with model.disable_adapter():
        assert torch.equal(call(model, clouds), reference)
        with model.disable_adapter():
            assert torch.equal(call(model, clouds), reference)
        assert torch.equal(call(model, clouds), reference)
    assert torch.equal(call(model, clouds), tuned)


@every_recipe
def test_training_one_adapter_moves_no_other(name: str, clouds: Clouds):
    model, recipe = awake(name), RECIPES[name]
    first = call(model, clouds)
    model.add_adapter("second", recipe.config, memory_bank=new_bank() if recipe.has_bank else None)
    testing.randomize_(model.double(), torch.Generator().manual_seed(11))
    moving = [buffer for buffer in owned_buffers(model) if ".second." in buffer]
    testing.assert_frozen_after_step(model, clouds, call=call, moving_buffers=moving)
    model.eval()
    assert not torch.equal(call(model, clouds), first)
    model.set_adapter("default")
    assert torch.equal(call(model, clouds), first)
    model.delete_adapter("second")
    assert torch.equal(call(model, clouds), first)


@every_recipe
def test_saved_and_loaded(name: str, clouds: Clouds):
    def load(folder: Path) -> PeftModel:
        torch.manual_seed(4)
        return PeftModel.from_pretrained(new_base(), folder)

    testing.assert_saved_and_loaded(
        awake(name),
        clouds,
        save=lambda model, folder: model.save_pretrained(folder),
        load=load,
        call=call,
    )


@every_recipe
def test_the_file_holds_what_is_trained_and_no_more(name: str, tmp_path: Path):
    model = awake(name)
    model.save_pretrained(tmp_path)
    saved = sum(t.numel() for t in load_file(tmp_path / "adapter_model.safetensors").values())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    buffers = dict(model.named_buffers())
    assert saved == trained + sum(buffers[key].numel() for key in owned_buffers(model))


@every_recipe
def test_copies(name: str, clouds: Clouds):
    testing.assert_deepcopy_and_pickle(awake(name), clouds, call=call)


@every_recipe
def test_checkpointing(name: str, clouds: Clouds):
    testing.assert_checkpoints(awake(name), clouds, call=call)


@pytest.mark.slow
@every_recipe
def test_compiles(name: str, generator: torch.Generator):
    model = awake(name)

    def call_on_patches(compiled: Any, clouds: Clouds) -> Tensor:
        frozen = model.precompute(pos=clouds.pos, batch=clouds.batch, batch_size=clouds.batch_size)
        return compiled(**frozen)

    batches = [random_clouds(sizes, generator=generator) for sizes in ([20, 30], [12, 25, 9])]
    testing.assert_compiles(model, batches, call=call_on_patches, backend="eager")


@pytest.mark.slow
def test_patches_are_compiled_with_the_model(generator: torch.Generator):
    model = awake("lora")
    batches = [random_clouds(sizes, generator=generator) for sizes in ([20, 3], [12, 25, 9])]
    testing.assert_compiles(model, batches, call=call, backend="eager")


def test_merging_changes_no_answer_and_leaves_no_adapter(clouds: Clouds):
    model = awake("lora")
    tuned = call(model, clouds)
    merged = model.merge_and_unload()
    assert not [key for key in merged.state_dict() if "peft" in key]
    torch.testing.assert_close(call(merged, clouds), tuned, rtol=1e-9, atol=1e-9)
