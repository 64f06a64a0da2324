import math

import pytest
import torch
import torch_geometric.typing
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.nn import voxel_grid
from torch_geometric.transforms import GridSampling

from pyg_peft.geometry import enable_pyg_ops, grid_sample
from pyg_peft.geometry.pyg import legacy
from pyg_peft.geometry.pyg.voxels import pyg_grid_cluster

HAS_OWN = getattr(
    torch_geometric.typing,
    "WITH_GRID_CLUSTER",
    getattr(torch_geometric.typing, "WITH_TORCH_CLUSTER", False),
)
own = pytest.mark.skipif(HAS_OWN, reason="PyG has its own operator here")


def slow_sample(pos: Tensor, size: float, batch: Tensor) -> tuple[list[int], list[int]]:
    """Point by point, with a dictionary of cubes; cubes in the order of cloud, x, y, z."""
    cubes: dict[tuple[int, ...], list[int]] = {}
    middle: dict[int, float] = {}
    for row, point in enumerate(pos.tolist()):
        low = pos[batch == batch[row]].amin(dim=0).tolist()
        place = [(value - least) / size for value, least in zip(point, low, strict=True)]
        cube = [math.floor(value) for value in place]
        middle[row] = sum((a - b - 0.5) ** 2 for a, b in zip(place, cube, strict=True))
        cubes.setdefault((int(batch[row]), *cube), []).append(row)
    kept = [min(cubes[key], key=lambda row: (middle[row], row)) for key in sorted(cubes)]
    cube_of = {row: n for n, key in enumerate(sorted(cubes)) for row in cubes[key]}
    return kept, [cube_of[row] for row in range(len(pos))]


def test_by_hand():
    pos = torch.tensor([[0.0, 0, 0], [0.9, 0.9, 0.9], [0.5, 0.4, 0.5], [0.4, 0.5, 0.5], [1, 0, 0]])
    index, inverse = grid_sample(pos, 1.0)
    assert index.tolist() == [2, 4]  # 2 and 3 are equally near to the middle
    assert inverse.tolist() == [0, 0, 0, 0, 1]


@settings(max_examples=40)
@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    size=st.floats(0.05, 3.0),
    steps=st.sampled_from((0, 4)),
    seed=st.integers(0, 2**31),
)
def test_against_a_loop(counts, size, steps, seed):
    pos = torch.rand(sum(counts), 3, generator=torch.Generator().manual_seed(seed)).double() * 2
    if steps:  # points that share places, so that some are equally near
        pos = (pos * steps).round() / steps
    batch = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    index, inverse = grid_sample(pos, size, batch)
    expected, cubes = slow_sample(pos, size, batch)
    assert index.tolist() == expected
    assert inverse.tolist() == cubes
    assert bool((batch[index].diff() >= 0).all())


def test_a_cloud_does_not_depend_on_others():
    one, other = torch.rand(40, 3), 5 * torch.rand(30, 3) - 9
    alone = grid_sample(one, 0.4)
    batch = torch.tensor([0] * 30 + [1] * 40)
    index, inverse = grid_sample(torch.cat([other, one]), 0.4, batch)
    assert torch.equal(index[batch[index] == 1] - 30, alone.index)
    first = int((batch[index] == 0).sum())
    assert torch.equal(inverse[30:] - first, alone.inverse)


def test_kept_points_and_large_coordinates():
    pos = torch.rand(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    index, inverse = grid_sample(pos, 0.2)
    assert torch.equal(inverse[index], torch.arange(len(index)))
    far = pos * 128 + torch.tensor([272_000.0, 5_240_000.0, 800.0])  # meters of a map
    near = far - far.amin(dim=0)
    assert torch.equal(grid_sample(far, 25.6).inverse, grid_sample(near, 25.6).inverse)


def test_empty_clouds():
    index, inverse = grid_sample(torch.zeros(0, 3), 1.0)
    assert (index.shape, inverse.shape) == ((0,), (0,))
    index, _ = grid_sample(torch.zeros(3, 3), 1.0, torch.tensor([1, 1, 4]), batch_size=6)
    assert index.tolist() == [0, 2]


def test_mistakes():
    pos = torch.rand(4, 3)
    with pytest.raises(ValueError, match="'size' to be > 0"):
        grid_sample(pos, 0.0)
    with pytest.raises(ValueError, match="'size' to be large enough to number the cubes"):
        grid_sample(pos, 1e-12)
    with pytest.raises(ValueError, match="'size' to be large enough"):
        grid_sample(pos, 1e-300)
    with pytest.raises(ValueError, match="'batch' to be sorted"):
        grid_sample(pos, 1.0, torch.tensor([1, 0, 0, 0]))
    with pytest.raises(ValueError, match="finite"):
        grid_sample(pos * float("nan"), 1.0)


# ---- PyG's own grid ------------------------------------------------------------------------------


def slow_cluster(
    pos: Tensor, size: list[float], start: list[float] | None, end: list[float] | None
) -> list[int]:
    """torch_cluster's definition, number by number."""
    columns = range(pos.size(1))
    start = [min(pos[:, axis].tolist()) for axis in columns] if start is None else start
    end = [max(pos[:, axis].tolist()) for axis in columns] if end is None else end
    cells = [int((end[axis] - start[axis]) / size[axis]) + 1 for axis in columns]
    steps = [math.prod(cells[:axis]) for axis in columns]
    return [
        sum(int((row[axis] - start[axis]) / size[axis]) * steps[axis] for axis in columns)
        for row in pos.tolist()
    ]


@settings(max_examples=40)
@given(
    count=st.integers(1, 30),
    width=st.integers(1, 3),
    size=st.floats(0.1, 2.0),
    bounds=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_cells_against_a_loop(count, width, size, bounds, seed):
    generator = torch.Generator().manual_seed(seed)
    pos = torch.rand(count, width, generator=generator, dtype=torch.float64) * 4 - 2
    sizes = [size * (1 + axis) for axis in range(width)]
    start, end = ([-2.5] * width, [1.0] * width) if bounds else (None, None)
    tensors = [None if some is None else torch.tensor(some).double() for some in (start, end)]
    found = pyg_grid_cluster(pos, torch.tensor(sizes).double(), *tensors)
    assert found.tolist() == slow_cluster(pos, sizes, start, end)
    same = legacy.grid_cluster(pos, torch.tensor(sizes).double(), *tensors)
    assert torch.equal(found, same)


@own
def test_voxel_grid_as_in_pygs_documentation():
    pos = torch.tensor([[0.0, 0.0], [11.0, 9.0], [2.0, 8.0], [2.0, 2.0], [8.0, 3.0]])
    with pytest.raises(ImportError):
        voxel_grid(pos, 5.0)
    with enable_pyg_ops():
        assert voxel_grid(pos, size=5.0).tolist() == [0, 5, 3, 0, 1]
        batch = torch.tensor([0, 0, 1, 1, 1])
        both = voxel_grid(pos, size=5.0, batch=batch)
        assert both.tolist() == [0, 5, 9, 6, 7]
        bounded = voxel_grid(pos, [5.0, 5.0], batch, start=[0.0, 0.0], end=[11.0, 9.0])
        assert bounded.tolist() == both.tolist()
    with pytest.raises(ImportError):
        voxel_grid(pos, 5.0)


@own
def test_grid_sampling_of_a_cloud_and_a_batch():
    pos = torch.tensor([[0.0, 0, 0], [0.2, 0, 0], [3, 3, 3]])
    cloud = Data(pos=pos, y=torch.tensor([1, 1, 0]))
    with enable_pyg_ops():
        small = GridSampling(1.0)(cloud)
        assert small.pos is not None
        torch.testing.assert_close(small.pos, torch.tensor([[0.1, 0, 0], [3, 3, 3]]))
        assert torch.as_tensor(small.y).tolist() == [1, 0]
        both = GridSampling(1.0)(Batch.from_data_list([Data(pos=pos), Data(pos=pos)]))
        assert both.batch is not None and both.batch.tolist() == [0, 0, 1, 1]


@own
def test_compiled_voxel_grid():
    pos = torch.rand(20, 3)
    with enable_pyg_ops():
        found = torch.compile(lambda x: voxel_grid(x, 0.3), backend="aot_eager")(pos)
        assert torch.equal(found, voxel_grid(pos, 0.3))


def test_mistakes_of_cells():
    pos = torch.rand(4, 3)
    with pytest.raises(ValueError, match="'size' to be 3 numbers above 0"):
        pyg_grid_cluster(pos, torch.ones(2))
    with pytest.raises(ValueError, match="'size' to be 3 numbers above 0"):
        pyg_grid_cluster(pos, torch.tensor([1.0, 0, 1]))
    with pytest.raises(ValueError, match="'size' to be large enough to number the cells"):
        pyg_grid_cluster(pos, torch.full((3,), 1e-9))
    with pytest.raises(ValueError, match="'start' to be 3 numbers"):
        pyg_grid_cluster(pos, torch.ones(3), torch.zeros(2))
    with pytest.raises(ValueError, match="'pos' to be finite"):
        pyg_grid_cluster(pos * float("inf"), torch.ones(3))
    assert pyg_grid_cluster(torch.zeros(0, 3), torch.ones(3)).shape == (0,)
