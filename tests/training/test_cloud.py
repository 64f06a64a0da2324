"""Scores of clouds with more points than a model is made for."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Data

from pyg_peft.backbones import PointMAESegmentation
from pyg_peft.datasets import Normalize
from pyg_peft.training.evaluation.cloud import score_cloud


class ByHeight(torch.nn.Module):
    """Scores that depend on the point alone, and a record of the sizes of the blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[list[int]] = []

    def forward(self, x: Tensor | None, pos: Tensor, batch: Tensor, batch_size: int) -> Tensor:
        self.blocks.append(batch.bincount(minlength=batch_size).tolist())
        z = pos[:, 2:]
        return torch.cat([z, 1 - z, x if x is not None else 0 * z], dim=1)


class OneRow(torch.nn.Module):
    """Scores of clouds, not of points."""

    def forward(self, pos: Tensor) -> Tensor:
        return pos[:1]


@settings(max_examples=20)
@given(num_points=st.integers(1, 80), seed=st.integers(0, 2**31), featured=st.booleans())
def test_votes_of_a_function_of_points_are_that_function(num_points, seed, featured):
    generator = torch.Generator().manual_seed(seed)
    pos = torch.rand(num_points, 3, generator=generator)
    x = torch.rand(num_points, 1, generator=generator) if featured else None
    model = ByHeight()
    found = score_cloud(model, pos, x, max_points=9, num_votes=2, batch_size=3)
    z = pos[:, 2:]
    expected = torch.cat([z, 1 - z, x if x is not None else 0 * z], dim=1).softmax(dim=1)
    torch.testing.assert_close(found, expected)
    sizes = [size for call in model.blocks for size in call]
    assert max(len(call) for call in model.blocks) <= 3
    if num_points > 9:
        assert sizes == [9] * (2 * -(-num_points // 9)), "blocks of the size of training clouds"
    else:
        assert sizes == [num_points]


def test_a_cloud_that_is_not_divided_is_that_of_the_model():
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "embed_dim": 12,
        "depth": 1,
        "num_heads": 3,
        "num_levels": 1,
        "head_channels": 16,
    }
    model = PointMAESegmentation(3, num_centers=8, patch_size=4, **sizes).eval()
    pos = torch.rand(60, 3)
    with torch.no_grad():
        cloud = Normalize()(Data(pos=pos))
        expected = model(pos=cloud.pos).softmax(dim=1)
    for limit in (None, 60, 900):
        found = score_cloud(model, pos, max_points=limit, transform=Normalize())
        assert torch.equal(found, expected)
    divided = [score_cloud(model, pos, max_points=32, batch_size=size) for size in (1, 8)]
    torch.testing.assert_close(*divided)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"pos": torch.rand(0, 3)}, ValueError, "'pos' to have points"),
        ({"x": torch.rand(3, 1)}, ValueError, "'x' to have 20 rows"),
        ({"max_points": 0}, ValueError, "'max_points' to be >= 1"),
        ({"num_votes": 0}, ValueError, "'num_votes' to be >= 1"),
        ({"batch_size": 0}, ValueError, "'batch_size' to be >= 1"),
        ({"transform": 3}, TypeError, "'transform' to be a transform"),
        ({"transform": lambda data: Data(pos=data.pos[1:])}, ValueError, "to keep the 20 points"),
        ({"model": torch.nn.Linear(3, 3).forward}, TypeError, "'model' to be a"),
        ({"model": OneRow()}, ValueError, "to give scores for each of 20 points"),
    ],
)
def test_errors(changed, error, message):
    with pytest.raises(error, match=message):
        given: dict[str, Any] = {"model": ByHeight(), "pos": torch.rand(20, 3), **changed}
        score_cloud(**given)
