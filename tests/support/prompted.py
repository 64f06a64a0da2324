"""Models whose layers get prompts as virtual nodes, in sizes that are quick to test."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from flat_backbones import CASES, CHANNELS, Case
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import PointNetConv

from pyg_peft import MemoryBank, PeftModel, PointPEFTConfig, get_peft_model
from pyg_peft.testing import Clouds, random_clouds, randomize_

# Fewer points than neighbors, a single point, an empty cloud in the middle and one at the end.
SIZES = [20, 5, 0, 9, 1, 0]


def config(*targets: Any, **changes: Any) -> PointPEFTConfig:
    small: dict[str, Any] = {"bottleneck_channels": 4, "attention_channels": 6, "k": 4}
    settings: dict[str, Any] = {"num_prompts": 4, **small, **changes}
    return PointPEFTConfig(target_modules=targets, **settings)


@dataclass(frozen=True)
class Placed:
    """A backbone, the layers of it that take prompts, and the module a bank is filled from."""

    case: Case
    targets: tuple[str, ...]
    module: str

    def bank(self) -> MemoryBank:
        loader = DataLoader(samples(), batch_size=3)  # type: ignore[arg-type]
        return MemoryBank.from_loader(self.case.make(), loader, module=self.module)

    def attach(self, base: nn.Module, *, has_bank: bool, **changes: Any) -> PeftModel:
        torch.manual_seed(2)
        bank = self.bank() if has_bank else None
        return get_peft_model(base, config(*self.targets, **changes), memory_bank=bank)

    def awake(self, *, has_bank: bool, **changes: Any) -> PeftModel:
        model = self.attach(self.case.make(), has_bank=has_bank, **changes)
        return randomize_(model, torch.Generator().manual_seed(3)).eval()  # type: ignore[return-value]


PLACED = {
    "nodes": Placed(CASES["PointTransformer"], ("levels.*.blocks.*",), "levels.2"),
    "blocks, and layers in them": Placed(
        CASES["PointTransformer"],
        ("levels.*.blocks.*", "levels.*.blocks.*.conv", "levels.*.blocks.*.lin_in"),
        "levels.2",
    ),
    "sources": Placed(CASES["PointNetPlusPlus"], ("levels.*.conv",), "levels.1"),
    "edges": Placed(CASES["DGCNN"], ("levels.*.conv",), "mix"),
    "points": Placed(CASES["PointTransformerSegmentation"], ("**.blocks.*",), "levels.2"),
}
every_place = pytest.mark.parametrize("name", PLACED)
either_way = pytest.mark.parametrize("has_bank", [False, True], ids=["no bank", "bank"])


def samples(count: int = 8) -> list[Data]:
    generator = torch.Generator().manual_seed(7)
    return [
        Data(
            x=torch.randn(9 + i, CHANNELS, generator=generator).double(),
            pos=torch.randn(9 + i, 3, generator=generator).double(),
            sample_id=torch.tensor([i]),
        )
        for i in range(count)
    ]


def call(model: Any, clouds: Clouds) -> Tensor:
    """Call a tuned model, or a base."""
    more: dict[str, Any] = {}
    if getattr(model, "memory_bank", None) is not None:
        more["sample_id"] = torch.arange(clouds.batch_size)
    return model(clouds.x, clouds.pos, clouds.batch, batch_size=clouds.batch_size, **more)


def ragged(seed: int = 0) -> Clouds:
    return random_clouds(SIZES, CHANNELS, generator=torch.Generator().manual_seed(seed))


class OneLayer(nn.Module):
    """A layer with edges among the points of each cloud."""

    def __init__(self, conv: nn.Module, *more: Any) -> None:
        super().__init__()
        self.conv, self.more, self.head = conv, more, nn.Identity()

    def forward(self, x: Any, pos: Any, batch: Any, edge_index: Tensor) -> Any:
        if isinstance(self.conv, PointNetConv):
            return self.head(self.conv(x, pos, edge_index))
        return self.head(self.conv(x, edge_index, *self.more))
