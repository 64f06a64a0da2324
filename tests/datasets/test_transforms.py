"""One-cloud transforms: answers by hand, symmetries as documented, rows that stay together."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pyg_peft import datasets
from pyg_peft.datasets import (
    Normalize,
    OutdoorAugment,
    Resample,
    ScaleTranslate,
    UpRotate,
    keyed_generator,
)
from pyg_peft.testing import Clouds, assert_layout_invariant, random_clouds


def cloud(size: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Any:
    generator = torch.Generator().manual_seed(seed)
    pos = torch.randn(size, 3, generator=generator, dtype=dtype)
    return Data(pos=pos, x=pos[:, :2] * 2, seg=torch.arange(size), y=torch.tensor([1]))


def turned(pos: Tensor, angle: float, axis: int) -> Tensor:
    """Slow oracle: Rodrigues' formula, point by point."""
    unit = torch.zeros(3, dtype=pos.dtype)
    unit[axis] = 1.0
    rows = []
    for point in pos:
        across = torch.linalg.cross(unit, point)
        along = unit * (unit @ point) * (1 - math.cos(angle))
        rows.append(point * math.cos(angle) + across * math.sin(angle) + along)
    return torch.stack(rows)


def test_repr():
    assert repr(Resample(8)) == "Resample(8)"
    assert repr(UpRotate("y")) == "UpRotate(axis='y')"
    assert repr(ScaleTranslate()) == "ScaleTranslate(scale=(0.667, 1.5), translate=0.2)"


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Resample(0), "'num_points' to be >= 1"),
        (lambda: ScaleTranslate((0.0, 1.0)), "'scale' to be an interval above 0"),
        (lambda: ScaleTranslate((2.0, 1.0)), "'scale'"),
        (lambda: ScaleTranslate(translate=-1.0), "'translate' to be >= 0"),
        (lambda: UpRotate("up"), r"'axis' to be one of \['x', 'y', 'z'\] \(got 'up'\)"),
        (lambda: Resample(3)(Data(pos=torch.zeros(0, 3))), "empty cloud"),
        (lambda: Normalize()(Data(x=torch.zeros(1, 3))), "'data' to have 'pos'"),
    ],
)
def test_mistakes_are_named(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_normalize_by_hand():
    data: Any = Normalize()(Data(pos=torch.tensor([[1.0, 0, 0], [3, 0, 0], [2, 2, 0], [2, -2, 0]])))
    expected = [[-0.5, 0, 0], [0.5, 0, 0], [0, 1, 0], [0, -1, 0]]
    assert data.pos.tolist() == expected


def test_normalize_keeps_millimetres_far_away():
    near = cloud(50).pos.float()
    far = (near.double() + 4096.0).float()
    error = Normalize()(Data(pos=far)).pos - Normalize()(Data(pos=near)).pos
    assert error.abs().max() < 2e-4


@pytest.mark.parametrize("pos", [torch.zeros(0, 3), torch.ones(1, 3), torch.full((4, 3), 7.0)])
def test_normalize_of_nothing_and_of_one_place_is_zero(pos):
    out = Normalize()(Data(pos=pos)).pos
    assert out.shape == pos.shape
    assert torch.equal(out, torch.zeros_like(pos))


@given(st.integers(2, 30), st.integers(0, 99), st.floats(0.1, 10.0))
def test_normalize_forgets_place_and_size(size, seed, factor):
    data = cloud(size, seed)
    moved = Data(pos=data.pos * factor + torch.tensor([3.0, -1.0, 2.0]))
    torch.testing.assert_close(Normalize()(moved).pos, Normalize()(data).pos)


@given(st.integers(1, 20), st.integers(1, 40), st.integers(0, 99))
def test_resample_keeps_rows_together_and_every_point_it_can(size, wanted, seed):
    data = cloud(size)
    out: Any = Resample(wanted)(data, keyed_generator(seed))
    assert out.pos.shape == (wanted, 3)
    assert torch.equal(out.pos, data.pos[out.seg])
    assert torch.equal(out.x, data.x[out.seg])
    assert out.y.tolist() == [1]
    assert len(out.seg.unique()) == min(size, wanted)
    assert data.pos.size(0) == size  # the input is left alone


def test_resample_takes_labels_of_points_along():
    data = Data(pos=torch.rand(6, 3), y=torch.arange(6), sample_id=torch.tensor([4]))
    out: Any = Resample(3)(data)
    assert out.y.shape == (3,)
    assert out.sample_id.tolist() == [4]


@pytest.mark.parametrize(("axis", "number"), [("x", 0), ("y", 1), ("z", 2)])
def test_up_rotation_matches_the_oracle(axis, number):
    data = cloud(5)
    data.normal = torch.nn.functional.normalize(data.pos + 1)
    out: Any = UpRotate(axis)(data, keyed_generator(1))
    angle = 2 * math.pi * float(torch.rand((), generator=keyed_generator(1), dtype=torch.float64))
    assert angle > 0.1
    torch.testing.assert_close(out.pos, turned(data.pos, angle, number))
    torch.testing.assert_close(out.normal, turned(data.normal, angle, number))


def test_scale_translate_draws_one_factor_and_offset_per_axis():
    data = cloud(40)
    out: Any = ScaleTranslate()(data, keyed_generator(2))
    for axis in range(3):
        x, y = data.pos[:, axis], out.pos[:, axis]
        factor = (y[1] - y[0]) / (x[1] - x[0])
        offset = y[0] - factor * x[0]
        torch.testing.assert_close(y, factor * x + offset)
        assert 2 / 3 <= factor <= 3 / 2
        assert abs(offset) <= 0.2
    factors = (out.pos[1] - out.pos[0]) / (data.pos[1] - data.pos[0])
    assert len(factors.unique()) == 3


def test_scaled_normals_stay_normal_to_the_surface():
    tangents = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]], dtype=torch.float64)
    normal = torch.nn.functional.normalize(torch.linalg.cross(*tangents), dim=0)
    data = Data(pos=tangents, normal=normal.expand(2, 3))
    out: Any = ScaleTranslate(translate=0.0)(data, keyed_generator(0))
    torch.testing.assert_close(out.pos @ out.normal[0], torch.zeros(2, dtype=torch.float64))
    assert not torch.equal(out.normal, data.normal)


@pytest.mark.parametrize("transform", [Resample(4), UpRotate(), ScaleTranslate()])
def test_without_a_generator_the_global_one_is_used(transform):
    data = cloud(8)
    torch.manual_seed(1)
    first = transform(data).pos
    torch.manual_seed(1)
    assert torch.equal(transform(data).pos, first)
    assert not torch.equal(transform(data).pos, first)
    assert transform(Data(pos=data.pos.float())).pos.dtype == torch.float32


TRANSFORMS: dict[str, Any] = {
    "Normalize": Normalize(),
    "OutdoorAugment": OutdoorAugment(),
    "Resample": Resample(20),
    "ScaleTranslate": ScaleTranslate(),
    "UpRotate": UpRotate("y"),
}


def test_no_transform_is_left_out():
    public = (getattr(datasets, name) for name in datasets.__all__)
    found = [t.__name__ for t in public if isinstance(t, type) and issubclass(t, BaseTransform)]
    assert sorted(found) == sorted(TRANSFORMS)


def transformed(transform: Any, clouds: Clouds) -> list[Tensor]:
    data = Data(pos=clouds.pos, x=clouds.x, normal=clouds.x[:, :3], seg=clouds.batch)
    if not isinstance(transform, Normalize):
        data = transform(data, keyed_generator(0))
    else:
        data = transform(data)
    return [data.pos, data.x, data.normal, data.seg]  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_memory_layout_never_matters(name: str, dtype: torch.dtype, generator: torch.Generator):
    clouds = random_clouds([40], generator=generator, dtype=dtype)
    assert_layout_invariant(TRANSFORMS[name], clouds, call=transformed, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_bad_point_does_not_take_the_cloud_with_it(value: float):
    pos = torch.randn(5, 3)
    pos[3, 1] = value
    with pytest.raises(ValueError, match=r"'pos' to be finite \(got .* in row 3\)"):
        Normalize()(Data(pos=pos))


def test_huge_positions_are_normalized_or_refused():
    pos = torch.tensor([[1.0, 0, 0], [5.0, 0, 0]])
    found = Normalize()(Data(pos=pos * 1e37)).pos
    torch.testing.assert_close(found, torch.tensor([[-1.0, 0, 0], [1.0, 0, 0]]))
    half = Normalize()(Data(pos=pos.half() * 1e4)).pos
    torch.testing.assert_close(half, found.half())
    with pytest.raises(ValueError, match="rescale the cloud"):
        Normalize()(Data(pos=pos.double() * 1e200))


@pytest.mark.parametrize("transform", [Normalize(), ScaleTranslate(), UpRotate()])
def test_integers_cannot_be_moved(transform: Any):
    with pytest.raises(TypeError, match=r"'pos' to be floating point .got torch.int64"):
        transform(Data(pos=torch.ones(3, 3).long()))
    with pytest.raises(ValueError, match=r"'pos' to be of shape \[N, 3\]"):
        transform(Data(pos=torch.ones(3, 2)))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda value: Resample(value), "num_points"),
        (lambda value: ScaleTranslate(translate=value), "translate"),
        (lambda value: ScaleTranslate(value), "scale"),
        (lambda value: ScaleTranslate((value, value)), "scale"),
    ],
)
def test_types_are_named(make: Any, name: str):
    for value in ("3", True, None):
        with pytest.raises(TypeError, match=f"Expected '{name}' to be"):
            make(value)
