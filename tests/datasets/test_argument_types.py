"""Types of arguments (issue 12, C23): the error names the argument."""

from typing import Any

import numpy as np
import pytest
import torch

import pyg_peft.datasets as d

kinds: Any = d
PROCEDURAL = {"num_shapes": 4, "num_points": 16}


@pytest.mark.parametrize("wrong", ["3", 2.5, True, None, [4]])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("num_points", lambda v: kinds.Resample(v)),
        ("num_points", lambda v: kinds.ProceduralShapes(num_shapes=4, num_points=v)),
        ("seed", lambda v: kinds.ProceduralStream(16, v)),
        ("seed", lambda v: kinds.Augmented([], kinds.Normalize(), v)),
        ("num_ways", lambda v: kinds.few_shot_episode([0, 1], num_ways=v, num_shots=1)),
        ("episode", lambda v: kinds.few_shot_episode([0], num_ways=1, num_shots=1, episode=v)),
        ("seed", lambda v: kinds.train_val_split(torch.zeros(4), 0.5, v)),
        ("mesh_points", lambda v: kinds.read_points("a.off", mesh_points=v)),
        (
            "key",
            lambda v: kinds.keyed_seed(v) if v != "3" and v is not True else kinds.keyed_seed(2.5),
        ),
    ],
)
def test_what_is_no_integer(name, make, wrong):
    with pytest.raises(TypeError, match=f"Expected '{name}' to "):
        make(wrong)


def test_other_types(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 3)))
    shapes = kinds.ProceduralShapes(**PROCEDURAL)
    for name, make in (
        ("num_points", lambda: kinds.ShapeFolder(tmp_path, num_points=2.5)),
        ("channels", lambda: kinds.read_points(tmp_path / "a.npy", "color")),
        ("columns", lambda: kinds.read_points(tmp_path / "a.npy", columns=[1, 2, 3])),
        ("transform", lambda: kinds.ProceduralShapes(**PROCEDURAL, transform=3)),
        ("transform", lambda: kinds.Augmented(shapes, None)),
        ("scan", lambda: kinds.ProceduralStream(scan=1)),
        ("scale", lambda: kinds.ScaleTranslate(scale=2.0)),
        ("translate", lambda: kinds.ScaleTranslate(translate="1")),
        ("fraction", lambda: kinds.train_val_split(torch.zeros(4), "0.1")),
        ("rows", lambda: kinds.FewShotSubset(shapes, torch.tensor([0.5]), (0,))),
        ("one_sided", lambda: kinds.ScanEffects(one_sided="1")),
        ("normalize", lambda: kinds.ShapeFolder(tmp_path, normalize=1)),
    ):
        with pytest.raises(TypeError, match=f"Expected '{name}' to "):
            make()
    with pytest.raises(ValueError, match=r"Expected 'rows' to name items in \[0, 4\) \(got 9\)"):
        kinds.FewShotSubset(shapes, torch.tensor([9]), (0,))
    assert kinds.Resample(np.int64(3)).num_points == 3
