from typing import Any

import pytest
import torch
from torch_geometric.data import Data

from pyg_peft.datasets.augmented import apply_keyed
from pyg_peft.datasets.keyed import keyed_generator
from pyg_peft.datasets.preprocessing import Preprocessing


def cloud(size: int = 50) -> Data:
    return Data(pos=torch.randn(size, 3, generator=torch.Generator().manual_seed(0)))


def test_evaluation_depends_on_the_cloud_alone():
    prepare = Preprocessing(num_points=20).evaluation()
    first = prepare(cloud())
    torch.rand(3)
    assert torch.equal(first.pos, prepare(cloud()).pos)
    assert first.pos.shape == (20, 3)
    torch.testing.assert_close(first.pos.norm(dim=1).max(), torch.tensor(1.0))


def test_training_draws_other_points_by_key():
    prepare = Preprocessing(num_points=20).training()
    draws: list[Any] = [
        apply_keyed(prepare, cloud(), keyed_generator(key)).pos for key in (1, 1, 2)
    ]
    first, again, other = draws
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_small_clouds_keep_their_points():
    assert Preprocessing(num_points=99).evaluation()(cloud(7)).pos.shape == (7, 3)
    assert Preprocessing(num_points=None).evaluation()(cloud(7)).pos.shape == (7, 3)


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_up_is_turned_to_z_by_a_rotation(axis):
    frame = torch.cat([torch.eye(3), torch.eye(3)["xyz".index(axis)].unsqueeze(0)])
    turned = Preprocessing(None, normalize=False, up_axis=axis).evaluation()(Data(pos=frame)).pos
    assert turned[3].tolist() == [0.0, 0.0, 1.0]
    assert torch.linalg.det(turned[:3]) == 1.0


def test_meshes_are_sampled():
    mesh = Data(pos=torch.eye(3), face=torch.tensor([[0], [1], [2]]))
    prepare = Preprocessing(num_points=30).evaluation()
    found = prepare(mesh)
    assert found.pos.shape == (30, 3) and found.face is None
    assert torch.equal(found.pos, prepare(mesh).pos)
    with pytest.raises(ValueError, match="'num_points' to say how many points"):
        Preprocessing(num_points=None).evaluation()(mesh)


def test_settings_go_through_json():
    settings = Preprocessing(64, normalize=False, up_axis="y")
    assert Preprocessing.from_dict({**settings.to_dict(), "weights": {}}) == settings


@pytest.mark.parametrize(("name", "value"), [("num_points", 0), ("up_axis", "up")])
def test_errors(name, value):
    with pytest.raises(ValueError, match=name):
        Preprocessing(**{name: value})


@pytest.mark.parametrize("normalize", [True, False])
def test_positions_of_another_shape_are_refused(normalize: bool):
    with pytest.raises(ValueError, match="'pos' to be of shape"):
        Preprocessing(normalize=normalize).evaluation()(Data(pos=torch.zeros(1, 4, 3)))
