"""Slots on any model: what they refuse, what they put back, and what a compiler makes of them."""

import copy
import pickle
import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import Linear as PyGLinear
from tuned import SIZES, WAYS, Way, points, portrait, tiny_bank, tiny_base, train

from pyg_peft.errors import PlacementError
from pyg_peft.model import get_peft_model
from pyg_peft.nn import MemoryBank
from pyg_peft.testing import randomize_
from pyg_peft.tuners import AdapterConfig, Component, FullFineTuningConfig, LoRAConfig, Site
from pyg_peft.tuners.engine.placement import place, slots
from pyg_peft.tuners.engine.turns import Turns

every_way = pytest.mark.parametrize("way", WAYS, ids=str)
WITH_BANK = Way("point_peft", True)


class Mixed(nn.Module):
    """Linear layers of both kinds, and an attention that reads a child's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = PyGLinear(3, 8)
        self.mha = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.lift(x)[None]
        h = self.mha(h, h, h)[0][0]
        return self.head(self.norm(h))


X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


# ---- where a slot may sit ------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["blocks", "head.layers", nn.ModuleList, nn.Sequential])
def test_containers_are_refused(target: Any):
    base = tiny_base()
    before = portrait(base)
    with pytest.raises(PlacementError, match="got the container"):
        get_peft_model(base, AdapterConfig(target_modules=(target,)))
    assert portrait(base) == before


@pytest.mark.parametrize(
    "config",
    [
        LoRAConfig(rank=2, target_modules=("lift", "mha")),
        FullFineTuningConfig(modules_to_save=("mha.out_proj", "head")),
    ],
)
def test_a_slot_that_never_fires_is_named(config: Any):
    net = Mixed().eval()
    before = portrait(net)
    model = get_peft_model(net, config)
    for _ in range(2):
        with pytest.raises(PlacementError, match=r"got no call of mha\.out_proj"):
            model(X)
    model.unload()
    assert portrait(net) == before


def test_lora_on_both_kinds_of_linear_layers():
    torch.manual_seed(0)
    net = Mixed().double().eval()
    model = get_peft_model(net, LoRAConfig(rank=2, target_modules=("lift",), alpha=3.0))
    update = model.get_submodule("base.lift.peft.adapters.default.lora.update")
    nn.init.normal_(update.get_parameter("up.weight"))
    x = X.double()
    tuned = model(x)
    with model.disable_adapter():
        assert (model(x) - tuned).abs().max() > 1e-3
    assert (model.merge_and_unload()(x) - tuned).abs().max() < 1e-12


def test_an_uninitialized_layer_is_refused():
    net = nn.ModuleDict({"lift": PyGLinear(-1, 8), "head": nn.Linear(8, 2)})
    with pytest.raises((PlacementError, ValueError), match="initiali"):
        get_peft_model(net, LoRAConfig())


def test_keyword_calls_reach_the_adapter():
    class Keywords(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lift, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(input=self.lift(input=x))

    model = get_peft_model(Keywords(), LoRAConfig(rank=1))
    assert model(x=X).shape == (6, 2)


# ---- own tensors ---------------------------------------------------------------------------------


def test_trained_norm_statistics_belong_to_the_adapter():
    net = Mixed()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    config = LoRAConfig(rank=2, target_modules=("lift",), modules_to_save=("norm", "head"))
    model = get_peft_model(net, config, "a")
    model.train()(X + 3).sum().backward()
    own = model.get_submodule("base.norm.peft.adapters.a.trained")
    assert int(own.get_buffer("num_batches_tracked")) == 1
    assert not torch.equal(own.get_buffer("running_mean"), before["norm.running_mean"])
    assert all(torch.equal(net.state_dict()[key], value) for key, value in before.items())


def test_a_buffer_that_a_module_assigns_anew_is_kept():
    class Counter(nn.Module):
        steps: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("steps", torch.zeros(()))
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            self.steps = self.steps + 1
            return x * self.weight

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count, self.head = Counter(), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.count(x))

    net = Net()
    model = get_peft_model(net, FullFineTuningConfig(modules_to_save=("count",)))
    model(X)
    model(X)
    own = model.get_submodule("base.count.peft.adapters.default.trained")
    assert float(own.get_buffer("steps")) == 2 and float(net.count.steps) == 0


# ---- the memory bank -----------------------------------------------------------------------------


def test_training_with_a_bank_needs_ids():
    model = WITH_BANK.awake().train()
    with pytest.raises(ValueError, match="'sample_id' while training with a memory bank"):
        model(**points())
    assert model.eval()(**points()).shape == (len(SIZES), 4)
    without_ids = MemoryBank(tiny_bank().keys)
    model = get_peft_model(tiny_base(), WITH_BANK.config(), memory_bank=without_ids).train()
    assert model(**points()).shape == (len(SIZES), 4)


def test_a_sample_does_not_retrieve_itself_while_training():
    base = tiny_base()
    values = base.forward_query(base.make_patches(**points())).detach()
    keys = nn.functional.normalize(values, dim=-1)
    bank = MemoryBank(keys, values, sample_id=torch.arange(10, 10 + len(SIZES)))
    model = get_peft_model(base, WITH_BANK.config(), memory_bank=bank)
    seen: list[Tensor] = []

    def see(module: nn.Module, args: Any, output: Tensor) -> None:
        seen.append(output)

    bank.register_forward_hook(see)
    ids = torch.arange(10, 10 + len(SIZES))
    model.train()(**points((12, 9, 7)), sample_id=ids[:3] + 90)  # unknown ids exclude nothing
    model(**points(), sample_id=ids)
    model.eval()(**points(), sample_id=ids)
    _, training, evaluating = seen
    own = values[:, None].expand(-1, 2, -1)
    filled = [row for row, size in enumerate(SIZES) if size > 1]
    for row in filled:
        assert not (training[row, 2:] - own[row]).abs().amax(1).lt(1e-6).any()
        assert (evaluating[row, 2] - own[row, 0]).abs().max() < 1e-6


def test_the_model_inside_does_not_answer_without_the_bank():
    model = WITH_BANK.awake()
    with pytest.raises(RuntimeError, match="call the PeftModel"):
        model.base(**points())
    with pytest.raises(RuntimeError, match="call the model, not its blocks"):
        Way("point_peft").attach(tiny_base()).get_submodule("base.blocks.1")(torch.zeros(1, 9, 24))


def test_banks_that_do_not_fit():
    for config, bank, message in (
        (WITH_BANK.config(), MemoryBank(torch.eye(7)), "have 24 channels"),
        (WITH_BANK.config(num_prompts=2), tiny_bank(), "'num_prompts' to be at least 3"),
        (WITH_BANK.config(prompt_depth=0), tiny_bank(), "'prompt_depth' to be positive"),
        (WITH_BANK.config(), tiny_bank(rows=2), "more than 2 rows"),
        (Way("lora").config(), tiny_bank(), "no 'memory_bank' for the method lora"),
    ):
        base = tiny_base().train()
        before = portrait(base)
        with pytest.raises(ValueError, match=message):
            get_peft_model(base, config, memory_bank=bank)
        assert portrait(base) == before
    with pytest.raises(ValueError, match="'query' to be None without a memory bank"):
        Way("lora").attach(tiny_base())(**points(), query=torch.zeros(5, 24))


def test_a_bank_is_frozen_too():
    model = WITH_BANK.attach(tiny_base())
    digest = model.memory_bank.hash  # type: ignore[union-attr]
    train(model)
    assert model.memory_bank.hash == digest  # type: ignore[union-attr]


def test_components_that_cannot_all_be_placed_leave_no_slot():
    base = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    sites = [Site("0", "good", Component()), Site("1", "bad.name", Component())]
    with pytest.raises(KeyError, match=r"bad\.name"):
        place(base, "default", sites, Turns())
    assert not slots(base) and not base[0]._forward_hooks and not base[0]._forward_pre_hooks


# ---- compiled ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("prepared", [True, False])
def test_compiles_whole(prepared: bool):
    model = WITH_BANK.awake()
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for sizes in ((20, 20), (30, 12, 9)):
        call = points(sizes)
        if prepared:
            call = model.precompute(**call)
        torch.testing.assert_close(compiled(**call), model(**call), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_compiled_to_machine_code():
    model = Way("point_peft").awake()
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True)
    call = model.precompute(**points((20, 20)))
    grads: list[dict[str, Tensor]] = []
    outs: list[Tensor] = []
    for run in (compiled, model):
        model.zero_grad()
        outs.append(run(**call))
        outs[-1].square().sum().backward()
        grads.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(outs[0], outs[1], rtol=1e-4, atol=1e-5)
    assert grads[0].keys() == grads[1].keys() and grads[0]
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], rtol=1e-3, atol=1e-4, msg=name)


class CopiesItself(nn.Linear):
    """As PyG 2.6's linear layer: a copy is a fresh layer with equal weights, and nothing else."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "CopiesItself":
        out = CopiesItself(self.in_features, self.out_features)
        out.load_state_dict({k: v for k, v in self.state_dict().items() if k in ("weight", "bias")})
        return out


def test_a_layer_that_copies_itself_keeps_its_slot():
    base = nn.Sequential(CopiesItself(3, 4), nn.ReLU())
    model = get_peft_model(base, LoRAConfig(rank=2, target_modules=("0",), modules_to_save=()))
    randomize_(model, torch.Generator().manual_seed(0)).eval()
    expected = model(X)
    for duplicate in (copy.deepcopy(model), copy.deepcopy(copy.deepcopy(model))):
        assert torch.equal(duplicate(X), expected)
        assert duplicate.base[0].weight is not base[0].weight  # type: ignore[index]
    assert torch.equal(pickle.loads(pickle.dumps(model))(X), expected)
    bare = model.unload()
    assert vars(bare[0]).keys() == vars(CopiesItself(3, 4)).keys()  # type: ignore[index]
