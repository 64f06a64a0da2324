"""PointNet++, Point Transformer and DGCNN as PyG's users write them, unmodified, with adapters."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyg_models import MODELS, call_model
from torch import Tensor, nn

from pyg_peft import LoRAConfig, PeftModel, PointPEFTConfig, get_peft_model
from pyg_peft.geometry import enable_pyg_ops
from pyg_peft.testing import randomize_
from pyg_peft.tuners import AdapterConfig, MethodConfig

every_model = pytest.mark.parametrize("name", MODELS)
every_method = pytest.mark.parametrize("method", ["point_peft", "lora"])


@pytest.fixture(autouse=True)
def pyg_ops():
    with enable_pyg_ops():
        yield


def config_of(name: str, method: str) -> MethodConfig:
    _, _, _, targets, head = MODELS[name]
    if method == "lora":
        return LoRAConfig(rank=2, target_modules=targets, modules_to_save=(head,))
    return PointPEFTConfig(
        bottleneck_channels=4,
        attention_channels=6,
        k=4,
        target_modules=targets,
        modules_to_save=(head,),
    )


def new_base(name: str) -> nn.Module:
    torch.manual_seed(0)
    base = MODELS[name][0]().double()
    return randomize_(base, torch.Generator().manual_seed(0)).eval()


def points(sizes: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(batch), 3, generator=generator).double(), batch


def awake(name: str, method: str) -> PeftModel:
    torch.manual_seed(1)
    model = get_peft_model(new_base(name), config_of(name, method))
    return randomize_(model, torch.Generator().manual_seed(2)).eval()  # type: ignore[return-value]


@every_method
@every_model
def test_a_users_loop(name: str, method: str, tmp_path: Path):
    base, cloud = new_base(name), points([16, 5, 12])
    reference = call_model(name, base, *cloud)
    frozen = {key: value.clone() for key, value in base.state_dict().items()}
    model = get_peft_model(base, config_of(name, method))
    assert torch.equal(call_model(name, model, *cloud), reference), "identity at init"
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(2):
        optimizer.zero_grad()
        out = call_model(name, model.train(), *cloud)
        out[:, 0].mean().backward()
        for key, parameter in model.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, key
        optimizer.step()
    model.eval()
    now = base.state_dict()
    assert all(torch.equal(now[key], value) for key, value in frozen.items())
    tuned = call_model(name, model, *cloud)
    assert not torch.equal(tuned, reference)
    with model.disable_adapter():
        assert torch.equal(call_model(name, model, *cloud), reference)
    model.save_pretrained(tmp_path)
    torch.manual_seed(7)
    loaded = PeftModel.from_pretrained(new_base(name), tmp_path)
    assert torch.equal(call_model(name, loaded, *cloud), tuned)
    assert torch.equal(call_model(name, model.unload(), *cloud), reference)


@every_model
def test_every_trained_parameter_matters(name: str):
    model = awake(name, "point_peft").train()
    call_model(name, model, *points([16, 9, 12]))[:, 0].sum().backward()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and bool((parameter.grad != 0).any()), key


# The other models draw starts for ``fps`` batch by batch, so that a cloud alone is another cloud.
@pytest.mark.parametrize("name", ["dgcnn seg", "dgcnn cls"])
@settings(max_examples=4)
@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_clouds_do_not_see_each_other(name: str, sizes: list[int], seed: int):
    with enable_pyg_ops():
        model, (pos, batch) = awake(name, "point_peft"), points([*sizes, 1, 9], seed)
        together = call_model(name, model, pos.requires_grad_(), batch)
        for cloud in range(int(batch[-1]) + 1):
            rows = batch == cloud
            own = together[rows] if MODELS[name][2] else together[cloud : cloud + 1]
            alone = call_model(name, model, pos[rows], torch.zeros_like(batch[rows]))
            torch.testing.assert_close(own, alone, rtol=1e-7, atol=1e-9)
            (grad,) = torch.autograd.grad(own.square().sum(), pos, retain_graph=True)
            assert not bool((grad[~rows] != 0).any())


def test_a_plain_adapter_takes_the_features_of_a_level():
    """A level returns ``(x, pos, batch)``: its features change, the rest goes on as it was."""
    name, call = "pointnet2 cls modules", points([40, 25])
    base = new_base(name)
    expected = call_model(name, base, *call)
    config = AdapterConfig(
        bottleneck_channels=4, target_modules=("sa[12]_module",), modules_to_save=("mlp",)
    )
    model = get_peft_model(base, config)
    assert torch.equal(call_model(name, model, *call), expected)
    randomize_(model, torch.Generator().manual_seed(2))
    assert not torch.allclose(call_model(name, model.eval(), *call), expected)
    with model.disable_adapter():
        assert torch.equal(call_model(name, model, *call), expected)


def test_nothing_is_computed_ahead_without_tokens_or_a_bank():
    pos, batch = points([12])
    with pytest.raises(TypeError, match=r"Expected the model to be a token backbone.*DGCNN"):
        awake("dgcnn cls", "lora").precompute(pos=pos, batch=batch)
