"""LoRA, BitFit, plain adapters and the linear probe on PyG's own layers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch_geometric.nn import MLP, BatchNorm, HeteroLinear, Linear
from tuned import portrait

from pyg_peft import PeftModel, get_peft_model
from pyg_peft.errors import PlacementError
from pyg_peft.testing import randomize_
from pyg_peft.tuners import (
    AdapterConfig,
    BitFitConfig,
    FullFineTuningConfig,
    LinearProbeConfig,
    LoRAConfig,
    MethodConfig,
)

X = torch.randn(12, 5, generator=torch.Generator().manual_seed(0)).double()
KIND = torch.tensor([2, 0, 1, 1, 0, 2, 2, 0, 0, 1, 2, 0])
SAVED = ("head",)


class Net(nn.Module):
    """Each kind of PyG's linear layers, one of them lazy, and batch norms of both kinds."""

    def __init__(self, lazy: bool = False) -> None:
        super().__init__()
        self.lift = Linear(-1 if lazy else 5, 8)
        self.mlp = MLP([8, 8, 8], act="relu")
        self.typed = HeteroLinear(-1 if lazy else 8, 6, num_types=3)
        self.norm = BatchNorm(6)
        self.late = nn.LazyLinear(8) if lazy else nn.Linear(6, 8)
        self.head = MLP([8, 8, 3], norm=None, dropout=0.0)

    def forward(self, x: Tensor, kind: Tensor) -> Tensor:
        return self.head(self.features(x, kind))

    def features(self, x: Tensor, kind: Tensor) -> Tensor:
        return self.late(self.norm(self.typed(self.mlp(self.lift(x)), kind)))


class Attending(Net):
    """An attention besides, which reads the weights of a child without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.mha = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor, kind: Tensor) -> Tensor:
        h = self.features(x, kind)[None]
        return self.head(self.mha(h, h, h)[0][0])


def new_net(kind: type[Net] = Net, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    net = randomize_(kind().double(), torch.Generator().manual_seed(seed))
    return net.eval()


def call(model: nn.Module) -> Tensor:
    return model(X, KIND)


LINEAR = ("lift", "mlp", "typed", "late")
CONFIGS: dict[str, MethodConfig] = {
    "lora": LoRAConfig(rank=2, alpha=3.0, target_modules=LINEAR),
    "lora by class": LoRAConfig(rank=2, target_modules=(Linear, HeteroLinear)),
    "bitfit": BitFitConfig(),
    "adapter": AdapterConfig(bottleneck_channels=2, target_modules=("mlp", Linear, HeteroLinear)),
    "linear probe": LinearProbeConfig(),
    "own norms": LoRAConfig(
        rank=2, target_modules=("lift",), modules_to_save=("head", "mlp.norms.*", BatchNorm)
    ),
    "full": FullFineTuningConfig(),
}
every_config = pytest.mark.parametrize("name", CONFIGS)


def awake(name: str, kind: type[Net] = Net) -> PeftModel:
    torch.manual_seed(1)
    model = get_peft_model(new_net(kind), CONFIGS[name], example=(X, KIND))
    randomize_(model, torch.Generator().manual_seed(2))
    return model.eval()


@every_config
def test_on_off_train_save_load(name: str, tmp_path: Path):
    base = new_net()
    reference, before = call(base), portrait(base)
    model = get_peft_model(base, CONFIGS[name], example=(X, KIND))
    if CONFIGS[name].identity_at_init:
        assert torch.equal(call(model), reference)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        call(model.train()).square().mean().backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        assert all(p.grad is not None for p in trained)
        assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
        optimizer.step()
    tuned = call(model.eval())
    assert not torch.equal(tuned, reference)
    with model.disable_adapter():
        assert torch.equal(call(model), reference)
    model.save_pretrained(tmp_path)
    torch.manual_seed(9)
    assert torch.equal(call(PeftModel.from_pretrained(new_net(), tmp_path)), tuned)
    model.unload()
    assert portrait(base) == before


@pytest.mark.parametrize("kind", [Net, Attending])
@pytest.mark.parametrize("name", ["lora", "bitfit", "own norms", "full"])
def test_merging_is_exact(name: str, kind: type[Net]):
    model = awake(name, kind)
    tuned = call(model)
    merged = model.merge_and_unload()
    assert list(merged.state_dict()) == list(new_net(kind).state_dict())
    torch.testing.assert_close(call(merged), tuned, rtol=1e-6, atol=1e-9)


def test_merging_in_single_precision():
    model = get_peft_model(new_net().float(), CONFIGS["lora"])
    randomize_(model, torch.Generator().manual_seed(2))
    with torch.no_grad():
        tuned = model.eval()(X.float(), KIND)
        merged = model.merge_and_unload()(X.float(), KIND)
    assert float((merged - tuned).abs().max() / tuned.abs().max()) < 1e-6


def test_a_module_stands_for_the_linear_layers_in_it():
    model = get_peft_model(new_net(), LoRAConfig(rank=2, target_modules=("mlp", "typed")))
    paths = {n.partition(".peft.")[0] for n, _ in model.base.named_parameters() if ".lora." in n}
    assert paths == {"mlp.lins.0", "mlp.lins.1", "typed"}
    with pytest.raises(PlacementError, match=r"'norm' to be or to hold a linear layer .got Batch"):
        get_peft_model(new_net(), LoRAConfig(target_modules=("norm",)))


def test_types_are_tuned_apart():
    model = awake("lora")
    with model.disable_adapter():
        base = call(model)
    site = model.get_submodule("base.typed.peft.adapters.default.lora.update")
    with torch.no_grad():
        for update in model.modules():
            if type(update).__name__ == "LowRankLinear":
                nn.init.zeros_(update.get_parameter("up.weight"))
        model.get_parameter("base.typed.peft.adapters.default.lora.update.up")[1:] = 0
    seen: list[Tensor] = []
    handle = model.base.typed.register_forward_hook(lambda m, a, out: seen.append(out))  # type: ignore[union-attr]
    call(model)
    with model.disable_adapter():
        call(model)
    handle.remove()
    changed = (seen[0] - seen[1]).abs().sum(1) > 1e-9
    assert torch.equal(changed, KIND == 0) and base.shape == (12, 3)
    assert "num_types=3" in repr(site)


# ---- lazy layers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [CONFIGS["lora"], CONFIGS["adapter"], CONFIGS["linear probe"]])
def test_an_example_initializes_lazy_layers(config: MethodConfig):
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    net = Net(lazy=True).double()
    torch.random.set_rng_state(state)
    model = get_peft_model(net, config, example={"x": X, "kind": KIND})
    assert net.lift.weight.shape == (8, 5) and net.late.weight.shape == (8, 6)
    assert model.training
    assert not net.lift.weight.requires_grad
    call(model.train()).sum().backward()
    with model.disable_adapter():
        expected = call(model)
    assert torch.equal(call(model.unload().eval()), expected)


def test_without_an_example_lazy_layers_are_named():
    config = LoRAConfig(target_modules=("lift",))
    with pytest.raises(PlacementError, match=r"initialized .got lift\.weight.*'example'"):
        get_peft_model(Net(lazy=True).double(), config)


def test_the_dry_run_draws_nothing_and_counts_nothing():
    net = new_net(Attending).train()
    before = portrait(net)
    state = torch.random.get_rng_state()
    with pytest.raises(PlacementError, match=r"no call of mha\.out_proj"):
        get_peft_model(
            net, LoRAConfig(target_modules=("mha.out_proj",), dropout=0.5), example=(X, KIND)
        )
    assert portrait(net) == before
    torch.random.set_rng_state(state)
    model = get_peft_model(net, CONFIGS["bitfit"], example=(X, KIND))
    assert torch.equal(torch.random.get_rng_state(), state)
    with pytest.raises(PlacementError, match=r"no call of mha\.out_proj"):
        model.add_adapter("b", LoRAConfig(target_modules=("mha.*",)), example=(X, KIND))
    assert model.active_adapter == "default" and list(model.peft_config) == ["default"]


# ---- a bias that a parent reads ------------------------------------------------------------------


def test_the_bias_of_an_attentions_projection_is_trained_in_its_call(tmp_path: Path):
    model = awake("bitfit", Attending)
    key = "base.mha.peft.adapters.default.trained_out_proj.bias"
    with torch.no_grad():
        tuned = call(model)
        model.get_parameter(key).add_(1.0)
        assert not torch.allclose(call(model), tuned)
    model.save_pretrained(tmp_path)
    assert "mha.out_proj.bias" in load_file(tmp_path / "adapter_model.safetensors")


def test_biases_can_be_excluded():
    config = BitFitConfig(exclude_modules=("mha", nn.BatchNorm1d))
    model = get_peft_model(new_net(Attending), config)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained and not [name for name in trained if ".mha." in name or "norm" in name]
    with pytest.raises(PlacementError, match="nearest paths: mha"):
        get_peft_model(new_net(Attending), BitFitConfig(exclude_modules=("mah",)))


class Reader(nn.Module):
    """Reads a child's bias without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.read, self.head = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lift(x) + self.read.bias)


def test_other_modules_that_are_never_called_are_excluded_by_the_user():
    with pytest.raises(PlacementError, match="no call of read"):
        get_peft_model(Reader().double(), BitFitConfig(), example=X)
    get_peft_model(Reader().double(), BitFitConfig(exclude_modules=("read",)), example=X)


@pytest.mark.parametrize("field", ["target_modules", "modules_to_save"])
def test_a_single_target_is_no_list(field: str):
    settings: dict[str, Any] = {field: "lift"}
    with pytest.raises(TypeError, match=f"'{field}' to be a tuple"):
        LoRAConfig(**settings)
