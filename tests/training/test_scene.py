import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Data

from pyg_peft import LoRAConfig, get_peft_model
from pyg_peft.backbones import PointMAESegmentation
from pyg_peft.datasets import Normalize
from pyg_peft.training.evaluation.scene import score_scene


class ByHeight(torch.nn.Module):
    """Scores that depend on the point alone, and a record of what was asked at once."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def forward(self, x: Tensor | None, pos: Tensor, batch: Tensor, batch_size: int) -> Tensor:
        self.asked.append(pos.size(0))
        assert int(batch.max()) + 1 == batch_size
        z = pos[:, 2:]
        return torch.cat([z, 1 - z, x if x is not None else 0 * z], dim=1)


@settings(max_examples=20)
@given(num_points=st.integers(1, 80), seed=st.integers(0, 2**31), featured=st.booleans())
def test_votes_of_a_function_of_points_are_that_function(num_points, seed, featured):
    generator = torch.Generator().manual_seed(seed)
    pos = torch.rand(num_points, 3, generator=generator, dtype=torch.float64) * 4 + 5e5
    x = torch.rand(num_points, 1, generator=generator) if featured else None
    model = ByHeight()
    found = score_scene(model, pos, x, size=1.5, stride=0.7, max_points=9, batch_size=3)
    z = (pos[:, 2:] - pos[:, 2].min()).float()
    expected = torch.cat([z, 1 - z, x if x is not None else 0 * z], dim=1).softmax(dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert max(model.asked) <= 9 * 3


def test_an_adapted_model_and_a_transform():
    torch.manual_seed(0)
    base = PointMAESegmentation(
        3,
        embed_dim=12,
        depth=2,
        num_heads=3,
        num_centers=8,
        patch_size=4,
        num_levels=1,
        head_channels=16,
    )
    model = get_peft_model(base, LoRAConfig(rank=2))
    pos = torch.rand(400, 3) * torch.tensor([6.0, 4.0, 2.0])
    found = score_scene(model, pos, size=2.0, max_points=64, transform=Normalize())
    assert found.shape == (400, 3)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(400))
    small = score_scene(model, pos, size=2.0, max_points=64, transform=Normalize(), batch_size=1)
    torch.testing.assert_close(small, found, rtol=1e-4, atol=1e-5)
    assert not model.training


def test_errors():
    pos = torch.rand(5, 3)
    model = ByHeight()
    with pytest.raises(ValueError, match="'pos' to have points"):
        score_scene(model, pos[:0], size=1.0)
    with pytest.raises(ValueError, match=r"'x' to have 5 rows \(got 4\)"):
        score_scene(model, pos, pos[:4], size=1.0)
    with pytest.raises(ValueError, match="'batch_size' to be >= 1"):
        score_scene(model, pos, size=1.0, batch_size=0)

    def halve(data: Data) -> Data:
        return Data(pos=data.pos[:2])  # pyright: ignore[reportOptionalSubscript]

    with pytest.raises(ValueError, match="'transform' to keep the 5 points"):
        score_scene(model, pos, size=2.0, transform=halve)
