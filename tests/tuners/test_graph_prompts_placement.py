"""Which layers take prompts as virtual nodes, and models of PyG's users that do."""

from pathlib import Path
from typing import Any

import pytest
import torch
from prompted import PLACED, OneLayer, config, either_way
from pyg_models import MODELS, PointTransformerClassifier, call_model, seed_fps
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import (
    EdgeConv,
    PointNetConv,
    PointTransformerConv,
    PPFConv,
    SAGEConv,
    SimpleConv,
)
from tuned import portrait

from pyg_peft import MemoryBank, PeftModel, get_peft_model
from pyg_peft.errors import PlacementError
from pyg_peft.geometry import enable_pyg_ops
from pyg_peft.nn.cloud_rows import CloudRows
from pyg_peft.testing import random_clouds, randomize_
from pyg_peft.tuners.graphs.prompts import _targets


def paths_of(model: PeftModel, name: str) -> list[str]:
    end = f".peft.adapters.default.{name}"
    return [p.removesuffix(end) for p, _ in model.base.named_modules() if p.endswith(end)]


def test_the_first_targets_that_can_are_prompted():
    base = PLACED["nodes"].case.make()
    targets = ("levels.*", "levels.*.blocks.*")
    method = config(*targets, prompt_depth=2)
    model = get_peft_model(base, method)
    assert paths_of(model, "prompt") == ["levels.0.blocks.0", "levels.1.blocks.0"]
    assert len(paths_of(model, "adapter")) == 7
    model = get_peft_model(model.unload(), config(*targets, num_prompts=None))
    assert not paths_of(model, "prompt"), "prompts on graphs are asked for"


def test_no_target_can():
    base = PLACED["nodes"].case.make()
    before = portrait(base)
    method = config("levels.*")
    with pytest.raises(PlacementError, match=r"levels.2\); num_prompts=0.*can: levels.0.blocks.0"):
        get_peft_model(base, method)
    assert portrait(base) == before


def test_the_model_itself_takes_none():
    """What layers share of a forward ends with the model's call, before its prompts could go."""
    net = PointTransformerConv(4, 4)
    with pytest.raises(PlacementError, match=r"can take prompts.*modules that can: none"):
        get_peft_model(net, config(PointTransformerConv, modules_to_save=()))
    x, pos, edges = torch.randn(3, 4), torch.randn(3, 3), torch.tensor([[0, 1], [1, 2]])
    plain = config(PointTransformerConv, modules_to_save=(), num_prompts=0)
    assert get_peft_model(net, plain).eval()(x, pos, edges).shape == (3, 4)


@pytest.mark.parametrize(
    ("conv", "width"),
    [
        (PointNetConv(nn.Linear(7, 4)), 4),
        (PointNetConv(nn.Linear(3, 4)), None),  # positions alone
        (EdgeConv(nn.Linear(8, 4)), 4),
        (SAGEConv((5, 3), 4), 5),
        (PPFConv(nn.Linear(8, 4)), None),  # wants normals
        (nn.Linear(4, 4), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_which_layers_take_prompts(conv: nn.Module, width: int | None):
    method = config("conv", modules_to_save=(), num_prompts=2)
    if width is None:
        with pytest.raises(PlacementError, match=r"can take prompts: .* \(got conv\).*can: none"):
            get_peft_model(OneLayer(conv), method)
    else:
        model = get_peft_model(OneLayer(conv), method)
        prompts: Any = model.get_submodule("base.conv.peft.adapters.default.prompt")
        assert prompts.prompt.channels == width


class Looser(nn.Module):
    """Takes edges of any form."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x: Tensor, edge_index: Any) -> Tensor:
        return self.lin(x)


def test_calls_that_do_not_fit():
    x, pos, batch = torch.randn(3, 4), torch.randn(3, 3), torch.zeros(3).long()
    edges = torch.tensor([[0, 1], [1, 2]])
    method = config("conv", modules_to_save=(), num_prompts=2)
    net = OneLayer(SimpleConv(), torch.ones(2))
    net.conv.in_channels = net.conv.out_channels = 4  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"edges alone.*\(got edge_weight besides\)"):
        get_peft_model(net, method, example=(x, pos, batch, edges))
    sparse = torch.sparse_coo_tensor(edges, torch.ones(2), (3, 3), check_invariants=True)
    with pytest.raises(ValueError, match=r"'edge_index' of shape \[2, E\].*a sparse tensor"):
        get_peft_model(OneLayer(Looser()), method, example=(x, pos, batch, sparse))
    conv = PointNetConv(nn.Linear(7, 4))  # adds self-loops: to targets that have no source here
    with pytest.raises(ValueError, match=r"no fewer sources than targets \(got 3 and 5\)"):
        get_peft_model(OneLayer(conv), method).eval()(
            (x, None), (pos, torch.randn(5, 3)), None, edges
        )
    conv = PointNetConv(nn.Linear(7, 4), add_self_loops=False, flow="target_to_source")
    with pytest.raises(ValueError, match=r"'flow' of 'conv'.*\(got 'target_to_source'\)"):
        get_peft_model(OneLayer(conv), method).eval()((x, None), (pos, pos), None, edges)
    model = get_peft_model(OneLayer(EdgeConv(nn.Sequential(nn.Flatten(), nn.Linear(6, 4)))), method)
    with pytest.raises(ValueError, match=r"features \[N, 3\] \(got \[3, 4\]\).*'example'"):
        model(x, pos, batch, edges)


def test_widths_are_measured_and_saved(tmp_path: Path):
    class Odd(nn.Module):
        """Its first linear layer is not its input's."""

        def __init__(self) -> None:
            super().__init__()
            self.b, self.conv = nn.Linear(6, 4), SimpleConv()

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.b(torch.cat([self.conv(x, edge_index), x[:, :2]], dim=1))

    torch.manual_seed(0)
    net = OneLayer(Odd()).eval()
    example = (torch.randn(5, 4), torch.randn(5, 3), None, torch.tensor([[0, 1, 3], [1, 2, 4]]))
    method = config("conv", modules_to_save=(), num_prompts=2)
    model = get_peft_model(net, method, example=example)
    randomize_(model, torch.Generator().manual_seed(0))
    tuned = model.eval()(*example)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(model.unload(), tmp_path)
    assert torch.equal(loaded(*example), tuned)
    assert loaded.peft_config["default"].to_dict()["in_channels"] == {"conv": 4}


# ---- models of PyG's users -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["transformer cls", "transformer seg", "pointnet2 cls"])
@either_way
def test_a_users_model(name: str, has_bank: bool, tmp_path: Path):
    """Positions of deeper levels are told by the modules that sample them."""

    def base() -> nn.Module:
        torch.manual_seed(0)
        made = MODELS[name][0]().double()
        return randomize_(made, torch.Generator().manual_seed(0)).eval()

    generator = torch.Generator().manual_seed(0)
    data = [
        Data(pos=torch.randn(12 + i, 3, generator=generator).double(), sample_id=torch.tensor([i]))
        for i in range(6)
    ]
    bank, module = None, "sa3_module" if "net" in name else "transition_down.0"
    targets = ("sa?_module.conv",) if "net" in name else ("transformers_*.*",)
    with enable_pyg_ops():
        if has_bank:
            bank = MemoryBank.from_loader(base(), DataLoader(data, batch_size=2), module=module)  # type: ignore[arg-type]
        method = config(*targets, modules_to_save=(MODELS[name][4],))
        model = get_peft_model(base(), method, memory_bank=bank)
        randomize_(model, torch.Generator().manual_seed(1)).eval()
        batch: Any = Batch.from_data_list(data[:3])  # type: ignore[arg-type]
        tuned = call_model(name, model, batch.pos, batch.batch)
        model.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(base(), tmp_path)
        assert torch.equal(call_model(name, loaded, batch.pos, batch.batch), tuned)
        with model.disable_adapter():
            assert not torch.equal(call_model(name, model, batch.pos, batch.batch), tuned)


def test_clouds_of_a_users_model_are_told_right():
    """One answer of the bank moves the scores of its own cloud, and of no other."""
    torch.manual_seed(0)
    base = randomize_(PointTransformerClassifier().double(), torch.Generator().manual_seed(0))
    bank = MemoryBank(torch.randn(8, 24).double(), source=CloudRows("transition_down.0"))
    method = config("transformers_down.*", modules_to_save=())
    model = randomize_(
        get_peft_model(base, method, memory_bank=bank), torch.Generator().manual_seed(1)
    ).eval()
    clouds = random_clouds([12, 1, 9, 6], generator=torch.Generator().manual_seed(2))
    query = torch.randn(4, 24, generator=torch.Generator().manual_seed(3)).double()

    def scores(query: Tensor) -> Tensor:
        seed_fps()
        return model(None, clouds.pos, clouds.batch, query=query)

    with enable_pyg_ops():
        before = scores(query)
        for cloud in range(4):
            moved = query.clone()
            moved[cloud] = -moved[cloud]
            changed = (scores(moved) != before).any(dim=1)
            assert changed.tolist() == [other == cloud for other in range(4)]


def test_who_receives():
    x, pos = torch.rand(5, 2), torch.rand(3, 3)
    assert _targets(x, None) == (5, False)
    assert _targets((x, x[:2]), None) == (2, True)
    assert _targets((x, None), pos) == (3, True)
    assert _targets((x, None), None) == (5, True)
    assert _targets(x, (x, pos)) == (3, True)
