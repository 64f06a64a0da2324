"""Adapters of one method combined into a new one."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import HeteroLinear
from tuned import Way, logits, points, portrait, tiny_bank, tiny_base

from pyg_peft import (
    AdapterConfig,
    BitFitConfig,
    FullFineTuningConfig,
    LinearProbeConfig,
    LoRAConfig,
    PeftModel,
    PointPEFTConfig,
    VPTConfig,
    get_peft_model,
)
from pyg_peft.testing import randomize_
from pyg_peft.tuners import MethodConfig
from pyg_peft.tuners.engine.placement import base_tensors


def two(base: nn.Module, first: MethodConfig, second: MethodConfig, **more: Any) -> PeftModel:
    model = get_peft_model(base, first, "a", **more)
    randomize_(model, torch.Generator().manual_seed(1))
    model.add_adapter("b", second, **more)
    randomize_(model, torch.Generator().manual_seed(2))
    return model.eval()


def merged(model: PeftModel, name: str) -> dict[str, Tensor]:
    """The base's weights with an adapter in them."""
    model.merge_adapter([name])
    found = {key: tensor.clone() for key, tensor in base_tensors(model.base).items()}
    model.unmerge_adapter()
    return found


SAME = [
    (LoRAConfig(rank=2), LoRAConfig(rank=2)),
    (LoRAConfig(rank=2, alpha=3.0), LoRAConfig(rank=5)),
    (LoRAConfig(rank=20), LoRAConfig(rank=24, alpha=2.0)),  # more than some layers are wide
    (BitFitConfig(), BitFitConfig()),
    (FullFineTuningConfig(), FullFineTuningConfig()),
    (LoRAConfig(rank=2, num_classes=7), LoRAConfig(rank=3, num_classes=7)),
]


@pytest.mark.parametrize("configs", SAME, ids=str)
def test_changes_of_the_weights_add_up(configs: tuple[MethodConfig, MethodConfig]):
    model = two(tiny_base().double(), *configs)
    base = {key: tensor.clone() for key, tensor in base_tensors(model.base).items()}
    own = [merged(model, name) for name in "ab"]
    before = {name: logits(model, **double()) for name in "ab" if model.set_adapter(name) is None}
    model.add_weighted_adapter(["a", "b"], [0.5, 1.5], "both")
    assert model.active_adapter == "both"
    for key, found in merged(model, "both").items():
        if key.endswith("num_batches_tracked"):
            continue
        start, weights = base[key], (0.25, 0.75) if "running" in key else (0.5, 1.5)
        if start.shape != found.shape:
            start = torch.zeros_like(found)
        expected = start + sum(
            w * (tuned[key] - start) for w, tuned in zip(weights, own, strict=True)
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for name in "ab":
        model.set_adapter(name)
        assert torch.equal(logits(model, **double()), before[name])


def double() -> dict[str, Any]:
    return {"pos": points()["pos"].double()}


def test_it_trains_saves_and_loads_like_any_other(tmp_path):
    model = two(tiny_base(), LoRAConfig(rank=2), LoRAConfig(rank=3))
    model.add_weighted_adapter(["a", "b"], [0.5, 0.5], "both")
    model.delete_adapter("a")
    logits(model.train()).sum().backward()
    assert all(
        p.grad is not None for n, p in model.base.named_parameters() if ".adapters.both." in n
    )
    expected = logits(model.eval())
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(tiny_base(), tmp_path)), expected)


def test_one_of_weight_one_is_the_same():
    model = two(tiny_base(), BitFitConfig(), BitFitConfig())
    expected = logits(model)
    model.add_weighted_adapter(["b"], [1.0], "again")
    assert torch.equal(logits(model), expected)


def test_layers_with_a_weight_for_each_type():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.narrow = HeteroLinear(6, 9, 2), HeteroLinear(9, 3, 2)

        def forward(self, x: Tensor, kind: Tensor) -> Tensor:
            return self.narrow(self.wide(x, kind), kind)

    call = torch.randn(8, 6).double(), torch.arange(8) % 2
    configs = [LoRAConfig(rank=rank, modules_to_save=()) for rank in (2, 3)]
    model = two(Net().double(), *configs, example=call)
    base = {key: tensor.clone() for key, tensor in base_tensors(model.base).items()}
    own = [merged(model, name) for name in "ab"]
    model.add_weighted_adapter(["a", "b"], [2.0, -1.0], "both")
    for key, found in merged(model, "both").items():
        expected = base[key] + 2 * (own[0][key] - base[key]) - (own[1][key] - base[key])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "config",
    [AdapterConfig(bottleneck_channels=4), VPTConfig(num_prompts=2), LinearProbeConfig()],
    ids=str,
)
def test_methods_that_are_no_change_of_weights_are_refused(config: MethodConfig):
    model = two(tiny_base(), config, config)
    before = portrait(model)
    with pytest.raises(NotImplementedError, match=f"{config.method} has no weighted sum: a "):
        model.add_weighted_adapter(["a", "b"], [0.5, 0.5], "both")
    assert portrait(model) == before


def test_and_so_are_banks():
    way = Way("point_peft", has_bank=True)
    model = two(tiny_base(), way.config(), way.config(), memory_bank=tiny_bank())
    with pytest.raises(NotImplementedError, match="point_peft has no weighted sum"):
        model.add_weighted_adapter(["a", "b"], [0.5, 0.5], "both")
    assert isinstance(way.config(), PointPEFTConfig)


MISTAKES: list[tuple[Any, Any, Any, type[Exception], str]] = [
    ("ab", [1, 1], "c", TypeError, "'adapters' to be a list of names"),
    ([], [], "c", ValueError, "at least one name"),
    (["a", "a"], [1, 1], "c", ValueError, "each once"),
    (["a", "z"], [1, 1], "c", ValueError, "'adapter_name' to be one of a, b, c4 "),
    (["a", "b"], [1], "c", ValueError, r"each of the 2 adapters \(got 1\)"),
    (["a", "b"], [1, float("nan")], "c", ValueError, "'weights' to be finite"),
    (["a", "b"], [1, "1"], "c", TypeError, "'weights' to hold numbers"),
    (["a", "b"], 0.5, "c", TypeError, "'weights' to be a list"),
    (["a", "b"], [1, 1], "a", ValueError, "which exists"),
    (["a", "c4"], [1, 1], "c", ValueError, "of one method .got lora and bitfit"),
    (["a", "b"], [1, 1], "c", ValueError, "same settings .got 'dropout' 0.0 and 0.5"),
]


@pytest.mark.parametrize(("adapters", "weights", "name", "kind", "message"), MISTAKES)
def test_mistakes_change_nothing(adapters, weights, name, kind, message):
    model = two(tiny_base(), LoRAConfig(rank=2), LoRAConfig(rank=2, dropout=0.5))
    model.add_adapter("c4", BitFitConfig())
    before = portrait(model)
    with pytest.raises(kind, match=message):
        model.add_weighted_adapter(adapters, weights, name)
    assert portrait(model) == before and list(model.peft_config) == ["a", "b", "c4"]


def test_variances_stay_positive():
    model = two(tiny_base(), FullFineTuningConfig(), FullFineTuningConfig())
    model.set_adapter("a")
    expected = merged(model, "a")
    for weights in ([1.5, -0.5], [0.1, -0.5]):
        name = f"w{int(10 * weights[0])}"
        model.add_weighted_adapter(["a", "b"], weights, name)
        for key, tensor in merged(model, name).items():
            if "running" in key:
                torch.testing.assert_close(tensor, expected[key])
        model.set_adapter("a")
