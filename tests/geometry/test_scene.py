import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from pyg_peft.geometry import scene_columns


@settings(max_examples=60)
@given(
    num_points=st.integers(0, 60),
    sides=st.tuples(st.floats(0.0, 9.0), st.floats(0.0, 9.0)),
    size=st.floats(0.5, 5.0),
    share=st.floats(0.2, 1.0),
    max_points=st.integers(1, 20),
    seed=st.integers(0, 2**31),
)
def test_blocks_cover_the_scene(num_points, sides, size, share, max_points, seed):
    generator = torch.Generator().manual_seed(seed)
    extent = torch.tensor([*sides, 3.0], dtype=torch.float64)
    pos = torch.rand(num_points, 3, generator=generator, dtype=torch.float64) * extent + 1e4
    blocks = list(scene_columns(pos, size, stride=share * size, max_points=max_points))
    seen = torch.cat(blocks) if blocks else torch.zeros(0, dtype=torch.long)
    assert seen.unique().numel() == num_points
    for rows in blocks:
        assert 1 <= rows.numel() <= max_points
        assert rows.unique().numel() == rows.numel()
        plane = pos[rows, :2]
        assert bool((plane.amax(dim=0) - plane.amin(dim=0) <= size * (1 + 1e-9)).all())


def test_against_a_loop_over_windows():
    pos = torch.rand(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pos = pos * torch.tensor([7.0, 3.5, 2.0])
    plane = pos[:, :2] - pos[:, :2].amin(dim=0)
    last = (plane.amax(dim=0) - 2.0).tolist()
    starts = [[min(step * 1.0, end) for step in range(math.ceil(end / 1.0) + 1)] for end in last]
    expected = []
    for x in starts[0]:
        for y in starts[1]:
            corner = torch.tensor([x, y], dtype=torch.float64)
            inside = ((plane >= corner) & (plane <= corner + 2.0)).all(dim=1)
            if inside.any():
                expected.append(inside.nonzero().squeeze(1).tolist())
    found = [rows.sort().values.tolist() for rows in scene_columns(pos, 2.0, max_points=1000)]
    assert found == expected


def test_overlap_and_equal_shares():
    grid = torch.cartesian_prod(torch.arange(0.25, 8, 0.5), torch.arange(0.25, 8, 0.5))
    pos = torch.cat([grid, torch.zeros(len(grid), 1)], dim=1)
    blocks = list(scene_columns(pos, size=2.0, stride=1.0, max_points=6))
    times = torch.bincount(torch.cat(blocks), minlength=len(pos))
    middle = ((grid > 2) & (grid < 6)).all(dim=1)
    assert times[middle].min() >= 4
    assert times.min() >= 1
    assert max(len(rows) for rows in blocks) - min(len(rows) for rows in blocks) <= 3


class LargestTensor(TorchDispatchMode):
    """Remembers how many elements the largest tensor had that an operator returned."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in pytree.tree_leaves(output):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return output


def test_overlap_costs_no_memory():
    pos = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) * 20
    largest = LargestTensor()
    with largest:
        seen = sum(len(rows) for rows in scene_columns(pos, size=2.0, stride=0.25))
    assert seen > 40 * len(pos)  # nearly (size / stride) ** 2 windows a point
    assert largest.elements <= pos.numel()


def test_a_stray_point_far_away():
    pos = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    pos[7, :2] = 5000.0
    blocks = [rows.sort().values.tolist() for rows in scene_columns(pos, size=2.0)]
    assert blocks == [[row for row in range(50) if row != 7], [7]]


def test_the_same_cut_each_time():
    pos = torch.rand(300, 3)
    first, second = (list(scene_columns(pos, 0.5, max_points=20)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    other = list(scene_columns(pos, 0.5, max_points=20, generator=torch.Generator().manual_seed(3)))
    assert [len(rows) for rows in other] == [len(rows) for rows in first]
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_errors():
    pos = torch.rand(5, 3)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"size": 0.0}, "'size' to be > 0"),
        ({"size": 1.0, "stride": 1.5}, r"'stride' to lie in \(0, 1.0\]"),
        ({"size": 1.0, "stride": 0.0}, "'stride' to lie"),
        ({"size": 5e-324}, "'stride' to fit"),
        ({"size": 1.0, "max_points": 0}, "'max_points' to be >= 1"),
    ]
    for settings_, message in cases:
        with pytest.raises(ValueError, match=message):
            list(scene_columns(pos, **settings_))
    with pytest.raises(TypeError, match=r"floating point|Float"):
        list(scene_columns(pos.long(), 1.0))
