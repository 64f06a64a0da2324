"""Every method on a model without a cls token that gives scores of points."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyg_peft import MemoryBank, PeftModel, get_peft_model, testing
from pyg_peft.backbones import PointMAESegmentation
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

POINT_PEFT = PointPEFTConfig(
    bottleneck_channels=6, num_prompts=5, prompt_bottleneck_channels=4, attention_channels=6, k=4
)
CONFIGS: dict[str, MethodConfig] = {
    "adapter": AdapterConfig(bottleneck_channels=4),
    "bitfit": BitFitConfig(),
    "full_fine_tuning": FullFineTuningConfig(),
    "linear_probe": LinearProbeConfig(),
    "lora": LoRAConfig(rank=2),
    "point_peft": POINT_PEFT,
    "point_peft with a bank": POINT_PEFT,
    "vpt": VPTConfig(num_prompts=3),
    "vpt shallow": VPTConfig(num_prompts=3, deep=False),
}
every_method = pytest.mark.parametrize("name", CONFIGS)


def new_base() -> PointMAESegmentation:
    torch.manual_seed(0)
    base = PointMAESegmentation(
        5,
        embed_dim=24,
        depth=2,
        num_heads=6,
        num_centers=8,
        patch_size=4,
        num_categories=3,
        num_levels=2,
        head_channels=16,
        drop_path=0.0,
        head_dropout=0.0,
    ).double()
    testing.randomize_(base, torch.Generator().manual_seed(0))
    return base.eval()


def attach(name: str, base: torch.nn.Module) -> PeftModel:
    torch.manual_seed(2)
    bank = None
    if "bank" in name:
        values = torch.randn(20, 24, generator=torch.Generator().manual_seed(5)).double()
        bank = MemoryBank(values / values.norm(dim=1, keepdim=True), sample_id=torch.arange(20))
    return get_peft_model(base, CONFIGS[name], memory_bank=bank).double().eval()


def awake(name: str) -> PeftModel:
    model = attach(name, new_base())
    testing.randomize_(model, torch.Generator().manual_seed(3))
    return model


def call(model: torch.nn.Module, clouds: Clouds) -> Tensor:
    more: dict[str, Tensor] = {"category": torch.arange(clouds.batch_size) % 3}
    if getattr(model, "memory_bank", None) is not None:
        more["sample_id"] = torch.arange(clouds.batch_size)
    return model(pos=clouds.pos, batch=clouds.batch, batch_size=clouds.batch_size, **more)


@pytest.fixture
def clouds(generator: torch.Generator) -> Clouds:
    return random_clouds([30, 5, 0, 12, 1, 0], generator=generator)


def test_every_method_is_here():
    # Methods of other layers than transformer blocks have batteries of their own.
    assert {name.split()[0] for name in CONFIGS} <= set(METHODS)


@every_method
def test_a_method_fits(name: str, clouds: Clouds, generator: torch.Generator):
    base = new_base()
    reference = call(base, clouds)
    model = attach(name, base)
    if CONFIGS[name].identity_at_init:
        testing.assert_identity_at_init(
            model, clouds, reference=reference, generator=generator, call=call
        )
    else:
        assert not torch.equal(call(model, clouds), reference)
    with model.disable_adapter():
        assert torch.equal(call(model, clouds), reference)
    counts = model.count_parameters()
    assert 0 < counts.head <= counts.trainable


@every_method
@settings(max_examples=3)
@given(sizes=st.lists(st.integers(0, 20), min_size=2, max_size=4), seed=st.integers(0, 2**31))
def test_a_cloud_alone_equals_a_cloud_in_company(name: str, sizes: list[int], seed: int):
    clouds = random_clouds([9, *sizes, 1], generator=torch.Generator().manual_seed(seed))
    model = awake(name)
    together = call(model, clouds)
    counts = torch.bincount(clouds.batch, minlength=clouds.batch_size).tolist()
    for number, (cloud, part) in enumerate(
        zip(clouds.pos.split(counts), together.split(counts), strict=True)
    ):
        alone = model(pos=cloud, batch_size=1, category=torch.tensor([number % 3]))
        torch.testing.assert_close(alone, part)


@every_method
def test_gradients_and_files(name: str, clouds: Clouds, tmp_path):
    model = awake(name)
    testing.assert_gradients(model, clouds, call=call)
    expected = call(model.eval(), clouds)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(new_base(), tmp_path)
    torch.testing.assert_close(call(again, clouds), expected, rtol=1e-5, atol=1e-5)


@every_method
def test_nothing_frozen_moves(name: str, clouds: Clouds):
    model = awake(name)
    before = {key: value.clone() for key, value in new_base().state_dict().items()}
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    call(model, clouds).square().mean().backward()
    optimizer.step()
    state = model.base.state_dict()
    assert all(torch.equal(state[key], value) for key, value in before.items())
