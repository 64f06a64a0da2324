"""The advice in a message works: the option exists, and following it mends the call."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.nn import MLP, PointNetConv, TransformerConv, global_max_pool
from tuned import Way, logits, tiny_base

from pyg_peft import (
    AdapterConfig,
    BitFitConfig,
    FullFineTuningConfig,
    LoRAConfig,
    PeftModel,
    PointPEFTConfig,
    get_peft_model,
)
from pyg_peft.errors import PlacementError
from pyg_peft.geometry import knn_graph
from pyg_peft.nn.cloud_rows import CloudRows
from pyg_peft.trainable import match_modules

POS = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
BATCH = torch.arange(2).repeat_interleave(12)


def graph_config(**settings: Any) -> PointPEFTConfig:
    small: dict[str, Any] = {"bottleneck_channels": 4, "attention_channels": 6, "k": 4}
    return PointPEFTConfig(modules_to_save=(), **small, **settings)


# ---- a batch of graphs under any name ------------------------------------------------------------


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lift, self.lin = nn.Linear(3, 8), nn.Linear(8, 8)

    def run(self, data: Any) -> Tensor:
        return global_max_pool(self.lin(self.lift(data.pos)), data.batch)


class CalledBatch(Body):
    def forward(self, batch: Any) -> Tensor:
        return self.run(batch)


class CalledGraph(Body):
    def forward(self, graph: Any) -> Tensor:
        return self.run(graph)


class CalledInputs(Body):
    def forward(self, inputs: Any) -> Tensor:
        return self.run(inputs)


class CalledOddly(Body):
    def forward(self, scene: Any) -> Tensor:
        return self.run(scene)


@pytest.mark.parametrize("kind", [CalledBatch, CalledGraph])
def test_a_batch_of_graphs_is_found_by_itself(kind: type[nn.Module]):
    torch.manual_seed(0)
    data = Batch(pos=POS, batch=BATCH)
    base = kind().eval()
    expected = base(data).detach()
    model = get_peft_model(base, graph_config(target_modules=["lin"]), example=data)
    assert torch.equal(model(data), expected)


@pytest.mark.parametrize("kind", [CalledInputs, CalledOddly])
def test_a_batch_of_graphs_under_another_name_is_said_with_a_dot(kind: type[nn.Module]):
    torch.manual_seed(0)
    data = Batch(pos=POS, batch=BATCH)
    with pytest.raises(PlacementError, match=r"\('\w+\.pos' if '\w+' is a PyG batch\)") as caught:
        get_peft_model(kind(), graph_config(target_modules=["lin"]))
    said = re.search(r"\('(\w+\.pos)' if", str(caught.value))
    assert said is not None
    config = graph_config(target_modules=["lin"], pos_name=said.group(1))
    assert get_peft_model(kind(), config, example=data)(data).shape == (2, 8)


# ---- the source of positions ---------------------------------------------------------------------


class Beside(nn.Module):
    """``spare`` is never called, and ``around`` runs only what is in it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = PointNetConv(MLP([3, 8]))
        self.spare = PointNetConv(MLP([3, 8]))
        self.around = Around()

    def forward(self, pos: Tensor, batch: Tensor) -> Tensor:
        return self.around.lin(self.conv(None, pos, knn_graph(pos, 3, batch)))


class Around(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 8)

    def forward(self, x: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        return self.lin(x)


def test_a_source_that_is_never_called_is_named():
    config = graph_config(target_modules=["around.lin"], pos_from="spare")
    with pytest.raises(
        PlacementError, match=r"'pos_from' .* is called before 'around.lin' .*spare"
    ):
        get_peft_model(Beside(), config, example=(POS, BATCH))
    config = graph_config(target_modules=["around.lin"], pos_from="around")
    with pytest.raises(RuntimeError, match=r"call of 'around', .* never called.*'pos_from'"):
        get_peft_model(Beside(), config, example=(POS, BATCH))
    config = graph_config(target_modules=["around.lin"], pos_from="")
    assert get_peft_model(Beside(), config, example=(POS, BATCH))(POS, BATCH).shape == (24, 8)


# ---- nearest paths -------------------------------------------------------------------------------


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([TransformerConv(8, 8) for _ in range(6)])
        self.output = nn.Linear(8, 2)


def test_nearest_paths_name_the_output_layer_and_the_form_that_works():
    base = Deep()
    with pytest.raises(PlacementError, match=r"output; '\*\*\.lin_key' matches at any depth"):
        match_modules(base, ["lin_key"])
    assert len(match_modules(base, ["**.lin_key"])) == 6
    for target in ("head", "classifier"):
        with pytest.raises(PlacementError, match=r"nearest paths: .*\boutput"):
            match_modules(base, [target])
        with pytest.raises(ValueError, match=r"nearest paths: .*\boutput"):
            CloudRows.find(base, target)


# ---- modules that are never called ---------------------------------------------------------------


class WithSpare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare, self.head = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.used(x))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (LoRAConfig, {"rank": 1}),
        (BitFitConfig, {}),
        (FullFineTuningConfig, {}),
        (AdapterConfig, {"target_modules": ("used", "spare"), "bottleneck_channels": 2}),
    ],
)
def test_a_module_that_is_never_called_is_left_out_as_the_message_says(kind: Any, settings: Any):
    x = torch.randn(5, 3)
    with pytest.raises(PlacementError, match="got no call of spare") as caught:
        get_peft_model(WithSpare(), kind(**settings), example=x)
    advised = [name for name in vars(kind(**settings)) if f"'{name}'" in str(caught.value)]
    named = set(re.findall(r"'(\w+)'", str(caught.value)))
    assert named == set(advised), "nothing is advised that the method has not"
    if "exclude_modules" in advised:
        settings = {**settings, "exclude_modules": ("spare",)}
    else:
        settings = {**settings, "target_modules": ("used",)}
    assert get_peft_model(WithSpare(), kind(**settings), example=x)(x).shape == (5, 2)


@pytest.mark.parametrize("kind", [LoRAConfig, BitFitConfig])
def test_a_saved_module_that_is_never_called_is_left_out_as_the_message_says(kind: Any):
    x = torch.randn(5, 3)
    settings: dict[str, Any] = {"exclude_modules": ("spare",), "modules_to_save": ("spare", "head")}
    with pytest.raises(
        PlacementError, match=r"no call of spare.*leave it out of 'modules_to_save'"
    ):
        get_peft_model(WithSpare(), kind(**settings), example=x)
    settings["modules_to_save"] = ("head",)
    assert get_peft_model(WithSpare(), kind(**settings), example=x)(x).shape == (5, 2)


def test_what_full_fine_tuning_leaves_out_is_the_bases(tmp_path: Any):
    way = Way("full_fine_tuning")
    model = way.awake(exclude_modules=("blocks.0",))
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained and not [name for name in trained if name.startswith("base.blocks.0.")]
    expected = logits(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(tiny_base(), tmp_path)), expected)
    other = tiny_base()
    with torch.no_grad():
        other.blocks[0].mlp.fc1.bias.add_(1.0)  # type: ignore[index,union-attr]
    with pytest.raises(ValueError, match="its frozen weights differ"):
        PeftModel.from_pretrained(other, tmp_path)
    with pytest.raises(PlacementError, match="outside 'exclude_modules'"):
        way.attach(tiny_base(), exclude_modules=("**",))
