"""Energy and force training: the loss sees a derivative by positions, and is differentiated too."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from flat_backbones import CASES
from plain_ops import plain_ops
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch_geometric.nn import PointNetConv, PointTransformerConv, global_add_pool
from tuned import SETTINGS, WAYS, Way, tiny_bank, tiny_base

from pyg_peft import get_peft_model
from pyg_peft.geometry import knn_graph
from pyg_peft.testing import Clouds, random_clouds, randomize_
from pyg_peft.tuners import METHODS

CHANNELS = 8


class Energy(nn.Module):
    """An energy per cloud, smooth in the positions as force fields are."""

    def __init__(self, conv: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Linear(CHANNELS, CHANNELS)
        self.convs = nn.ModuleList([conv(), conv()])
        self.head = nn.Linear(CHANNELS, 1)

    def forward(self, x: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
        edge_index = knn_graph(pos, 4, batch)
        x = self.embed(x)
        for conv in self.convs:
            x = torch.tanh(conv(x, pos, edge_index))
        return global_add_pool(self.head(x), batch, 3)


def point_net() -> nn.Module:
    width = CHANNELS + 3
    return PointNetConv(nn.Sequential(nn.Linear(width, CHANNELS), nn.Tanh()), add_self_loops=False)


def point_transformer() -> nn.Module:
    return PointTransformerConv(CHANNELS, CHANNELS, add_self_loops=False)


def gradients(model: nn.Module, clouds: Clouds, call: Any) -> list[Tensor]:
    """What an optimizer would get, and the forces themselves."""
    pos = clouds.pos.clone().requires_grad_()
    energy = call(model, pos)
    (force,) = torch.autograd.grad(energy.sum(), pos, create_graph=True)
    loss = energy.square().sum() + force.square().sum()
    trained = [p for p in model.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss, [pos, *trained], allow_unused=True)
    assert any(g is not None and bool((g != 0).any()) for g in grads[1:])
    return [force, *(torch.zeros(()).double() if g is None else g for g in grads)]


def assert_equal_to_plain_ops(model: nn.Module, clouds: Clouds, call: Any) -> None:
    found = gradients(model, clouds, call)
    with plain_ops():
        expected = gradients(model, clouds, call)
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("conv", [point_net, point_transformer])
@pytest.mark.parametrize("method", sorted(set(METHODS) - {"vpt"}))  # which is for tokens
def test_every_method_on_a_pyg_model(method: str, conv: Any, generator: torch.Generator):
    settings: dict[str, Any] = {"modules_to_save": ("head",)}
    if method not in ("full_fine_tuning", "linear_probe", "bitfit"):
        settings |= {**SETTINGS.get(method, {}), "target_modules": ("convs.*",)}
    torch.manual_seed(0)
    model = get_peft_model(Energy(conv), METHODS[method](**settings)).double()
    randomize_(model, generator)
    clouds = random_clouds([7, 3, 9], CHANNELS, generator=generator)

    def call(model: nn.Module, pos: Tensor) -> Tensor:
        return model(clouds.x, pos, clouds.batch)

    assert_equal_to_plain_ops(model.train(), clouds, call)


@pytest.mark.parametrize("name", CASES)
def test_our_flat_backbones(name: str, generator: torch.Generator):
    case = CASES[name]
    model = case.make()
    clouds = random_clouds([7, 0, 3, 9], 2, generator=generator)

    def call(model: nn.Module, pos: Tensor) -> Tensor:
        return model(clouds.x, pos, clouds.batch, batch_size=clouds.batch_size)

    assert_equal_to_plain_ops(model, clouds, call)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_method_on_tokens(way: Way, generator: torch.Generator):
    """The fused attention of torch has no second derivative: ``docs/backbones.md`` says so."""
    bank = tiny_bank() if way.has_bank else None
    model = get_peft_model(tiny_base(), way.config(), memory_bank=bank).double().eval()
    randomize_(model, generator)
    clouds = random_clouds([14, 9, 12], generator=generator)

    def call(model: nn.Module, pos: Tensor) -> Tensor:
        return model(pos=pos, batch=clouds.batch)

    with sdpa_kernel(SDPBackend.MATH):
        assert_equal_to_plain_ops(model, clouds, call)
    with pytest.raises(RuntimeError, match=r"derivative for .*scaled_dot_product.*not implemented"):
        gradients(model, clouds, call)
