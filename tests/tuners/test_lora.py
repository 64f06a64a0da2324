"""LoRA's own questions: which layers by default, which not, and what cannot be merged."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm
from tuned import portrait

from pyg_peft import PeftModel, get_peft_model
from pyg_peft.errors import PlacementError
from pyg_peft.testing import randomize_
from pyg_peft.tuners import BitFitConfig, FullFineTuningConfig, LoRAConfig, MethodConfig

X = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))


def adapted(base: nn.Module, config: MethodConfig) -> PeftModel:
    model = get_peft_model(base, config, example=X)
    randomize_(model, torch.Generator().manual_seed(1))
    return model.eval()


def targets(model: PeftModel) -> set[str]:
    names = (name for name, _ in model.base.named_parameters())
    return {name.partition(".peft.")[0] for name in names if ".lora." in name}


# ---- which layers --------------------------------------------------------------------------------


class Encoder(nn.Module):
    """PyTorch's own transformer layer, and as in some of PyG's examples a layer never used."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.unused = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x[None])[0])


def test_by_default_a_projection_that_is_only_read_is_left_out():
    model = adapted(Encoder(), LoRAConfig(rank=2, exclude_modules=("unused",)))
    assert targets(model) == {"layer.linear1", "layer.linear2"}
    tuned = model(X)
    with model.disable_adapter():
        assert not torch.allclose(model(X), tuned)
    torch.testing.assert_close(model.merge_and_unload()(X), tuned)


@pytest.mark.parametrize("named", ["layer.self_attn.out_proj", "layer"])
def test_a_projection_that_is_named_is_not_left_out_in_silence(named: str):
    with pytest.raises(PlacementError, match=r"no call of layer\.self_attn\.out_proj\): each is"):
        get_peft_model(Encoder(), LoRAConfig(target_modules=(named,)), example=X)


@pytest.mark.parametrize("config", [LoRAConfig(), BitFitConfig()])
def test_a_layer_that_is_never_used_is_called_so(config: MethodConfig):
    with pytest.raises(PlacementError, match=r"no call of unused\).*or is never used.*exclude_mod"):
        get_peft_model(Encoder(), config, example=X)


@pytest.mark.parametrize(
    ("excluded", "left"),
    [
        (("unused", "layer.linear1"), {"layer.linear2"}),
        (("unused", "layer.linear?"), set()),
        (("layer", "unused"), set()),
        ((nn.TransformerEncoderLayer,), {"unused"}),
        (("re:.*linear1",), {"layer.linear2", "unused"}),
    ],
)
def test_excluded_modules_with_all_below(excluded: Any, left: set[str]):
    config = LoRAConfig(rank=2, exclude_modules=excluded)
    if left:
        assert targets(get_peft_model(Encoder(), config)) == left
        return
    with pytest.raises(PlacementError, match=r"linear layer outside.*'exclude_modules' .got none"):
        get_peft_model(Encoder(), config)


def test_exclusion_goes_before_targets_and_to_the_file(tmp_path):
    config = LoRAConfig(
        rank=2, target_modules=("layer",), exclude_modules=(nn.MultiheadAttention, "unused")
    )
    model = adapted(Encoder(), config)
    assert targets(model) == {"layer.linear1", "layer.linear2"}
    model.save_pretrained(tmp_path)
    torch.manual_seed(3)
    base = Encoder()
    base.load_state_dict(model.unload().state_dict())
    again = PeftModel.from_pretrained(base, tmp_path)
    assert again.peft_config["default"] == LoRAConfig(
        rank=2, target_modules=("layer",), exclude_modules=("layer.self_attn", "unused")
    )


def test_targets_that_match_nothing_to_exclude():
    with pytest.raises(PlacementError, match="nearest paths: unused"):
        get_peft_model(Encoder(), LoRAConfig(exclude_modules=("unsued",)))
    with pytest.raises(TypeError, match="'exclude_modules' to be a tuple"):
        LoRAConfig(exclude_modules="unused")  # type: ignore[arg-type]


# ---- what cannot be merged -----------------------------------------------------------------------


class Tied(nn.Module):
    """Two layers with one weight, behind one of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.a, self.b = (nn.Linear(8, 8) for _ in range(3))
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(self.own(x)).relu())


class Normed(nn.Module):
    """A layer of its own before one whose weight is computed."""

    def __init__(self, normed: nn.Module) -> None:
        super().__init__()
        self.own, self.a = nn.Linear(8, 8), normed

    def forward(self, x: Tensor) -> Tensor:
        return self.a(self.own(x))


def normed(how: str) -> Normed:
    torch.manual_seed(0)
    if how == "parametrization":
        return Normed(parametrizations.weight_norm(nn.Linear(8, 8)))
    with pytest.warns(FutureWarning, match="weight_norm"):
        return Normed(weight_norm(nn.Linear(8, 8)))


def assert_refused(model: PeftModel, message: str) -> None:
    """Merging raises, and neither weights nor outputs have moved."""
    expected, before = model(X), portrait(model)
    with pytest.raises(NotImplementedError, match=message):
        model.merge_and_unload()
    assert portrait(model) == before
    assert torch.equal(model(X), expected)
    assert model.active_adapter == "default"


TIED = r"cannot be merged: a\.weight and b\.weight are one parameter"


@pytest.mark.parametrize(
    "config",
    [
        LoRAConfig(rank=2, modules_to_save=()),
        LoRAConfig(rank=2, target_modules=("a",), modules_to_save=()),
        LoRAConfig(rank=2, target_modules=("own", "b"), modules_to_save=()),
        LoRAConfig(rank=2, target_modules=("own",), modules_to_save=("b",)),
        FullFineTuningConfig(),
    ],
)
def test_a_shared_weight_is_not_merged(config: MethodConfig):
    assert_refused(adapted(Tied(), config), f"{config.method} {TIED}")


def test_beside_a_shared_weight_others_are_merged():
    config = LoRAConfig(rank=2, target_modules=("own",), modules_to_save=())
    model = adapted(Tied(), config)
    tuned = model(X)
    merged: Any = model.merge_and_unload()
    torch.testing.assert_close(merged(X), tuned)
    assert merged.a.weight is merged.b.weight
    # biases are of one module each, though the weights are not
    model = adapted(Tied(), BitFitConfig(modules_to_save=()))
    tuned = model(X)
    torch.testing.assert_close(model.merge_and_unload()(X), tuned)


def test_one_module_under_two_names_is_merged():
    base = Tied()
    base.b = base.a
    model = adapted(base, LoRAConfig(rank=2, modules_to_save=()))
    tuned = model(X)
    torch.testing.assert_close(model.merge_and_unload()(X), tuned)


@pytest.mark.parametrize("how", ["parametrization", "hook"])
def test_a_computed_weight_is_not_merged(how: str):
    model = adapted(normed(how), LoRAConfig(rank=2, modules_to_save=()))
    assert_refused(model, "lora cannot be merged: the weight of 'a' is no parameter, but computed")
    model.unload()
    model = adapted(model.base, LoRAConfig(rank=2, target_modules=("own",), modules_to_save=()))
    tuned = model(X)
    torch.testing.assert_close(model.merge_and_unload()(X), tuned)
