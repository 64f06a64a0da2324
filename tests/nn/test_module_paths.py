"""Globs of module paths, for targets and for the module that a bank reads."""

import pytest
from torch import nn

from pyg_peft.nn.cloud_rows import CloudRows
from pyg_peft.nn.module_paths import matches_glob
from pyg_peft.trainable import match_modules

BLOCKS = ["blocks", "blocks.0", "blocks.0.attn", "blocks.0.attn.proj", "blocks.1.attn"]
PATHS = ["", "stem", *BLOCKS]


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("", [""]),
        ("*", ["stem", "blocks"]),
        ("**", PATHS),
        ("st?m", ["stem"]),
        ("[!s]*", ["blocks"]),
        ("blocks.*", ["blocks.0"]),
        ("blocks.*.attn", ["blocks.0.attn", "blocks.1.attn"]),
        ("blocks.**", BLOCKS),
        ("**.attn", ["blocks.0.attn", "blocks.1.attn"]),
        ("**.attn.**", ["blocks.0.attn", "blocks.0.attn.proj", "blocks.1.attn"]),
        ("**.**.proj", ["blocks.0.attn.proj"]),
        ("block", []),
        ("Stem", []),
    ],
)
def test_a_glob_matches_whole_paths(glob: str, expected: list[str]):
    assert [path for path in PATHS if matches_glob(path, glob)] == expected


def test_two_stars_are_any_depth_in_targets_and_one_segment_in_a_bank():
    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Identity()))
    assert list(match_modules(net, ["**.0"])) == ["0", "1.0"]
    assert CloudRows.find(net, "**.0").module == CloudRows.find(net, "*.0").module == "1.0"
    assert CloudRows.find(net, "1.***1").module == "1.1"
    with pytest.raises(ValueError, match=r"'module' to name one module \(got 0, 1\)"):
        CloudRows.find(net, "**")
    with pytest.raises(ValueError, match="'module' to name a module of Sequential"):
        CloudRows.find(net, "")
