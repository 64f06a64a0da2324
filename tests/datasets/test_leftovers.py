"""Temporary files of killed writers (issue 12, C19): the next writer removes its own kind."""

from typing import Any

import numpy as np

from pyg_peft.datasets import NpzShapes, ShapeFolder

open_folder: Any = ShapeFolder


def test_the_next_writer_of_a_set_removes_them(tmp_path):
    own, other = tmp_path / ".set.npz.abcdefgh.tmp", tmp_path / ".else.npz.abcdefgh.tmp"
    own.write_bytes(b"half"), other.write_bytes(b"half")
    NpzShapes.write(tmp_path / "set.npz", [np.eye(3)], [0], class_names=["a"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "set.npz"]


def test_the_next_writer_of_a_cache_removes_them(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "1.npy", np.random.rand(5, 3))
    cache = tmp_path / ".pyg_peft"
    cache.mkdir()
    (cache / ".processed-0123456789ab.npz.abcdefgh.tmp").write_bytes(b"half")
    open_folder(tmp_path)
    assert [path.suffix for path in cache.iterdir()] == [".npz"]
