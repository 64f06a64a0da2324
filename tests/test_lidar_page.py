"""The commands of the page on LiDAR tiles, run on real airborne scans with a small model."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyg_peft.cli import main

for package in ("jsonargparse", "lightning", "torchmetrics"):
    pytest.importorskip(package, reason=f"{package} is not installed")

laspy: Any = pytest.importorskip("laspy", reason="laspy is not installed")
ROOT = Path(__file__).resolve().parent.parent
TILES = ROOT.parent / "shared" / "data" / "als_tiles"
SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
SIZES = {
    "channels": [[8, 8], [8, 16]],
    "num_centers": [32],
    "radii": [0.3],
    "patch_sizes": [8],
    "decoder_channels": [[16], [16]],
    "head_channels": [8],
}
# Settings that make the page's run small; later options win.
SMALL = [
    *("--backbone_args", json.dumps(SIZES)),
    *("--preprocessing.num_points", "256", "--trainer.max_epochs", "1"),
    *("--options.logger", "none", "--trainer.enable_progress_bar", "false"),
    *("--trainer.accelerator", "cpu"),
]


@pytest.mark.skipif(not TILES.is_dir(), reason="the tiles in ../shared are not on this machine")
def test_the_commands_of_the_page(tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.chdir(tmp_path)
    for folder, name in (("tiles", "topography_west.laz"), ("more_tiles", "mixed_conifer.laz")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).symlink_to(TILES / name)
    text = SHELL.search((ROOT / "docs" / "lidar.md").read_text())
    assert text is not None
    lines = text[1].replace("\\\n", " ").strip().splitlines()
    lines = [line.replace('"grid_size": 0.5', '"grid_size": 2.0') for line in lines]
    fit, evaluate, elsewhere, predict = (shlex.split(line)[1:] for line in lines)
    assert main([*fit, *SMALL]) == 0
    printed = capsys.readouterr().out
    assert "true class in rows, predicted in columns" in printed and "vegetation" in printed
    result = json.loads(Path("adapter/result.json").read_text())
    assert list(result["test"]["iou"]) == ["ground", "water", "vegetation"]
    assert result["chosen_by"] == "val_mean_iou"
    confusion = result["test"]["confusion"]
    assert sum(map(sum, confusion)) == result["test"]["count"] > 3000  # all original points
    assert all(sum(row) > 100 for row in confusion)  # every class is held out in part
    assert main(evaluate) == 0
    assert f"mIoU {100 * result['test']['mean_iou']:.2f} %" in capsys.readouterr().out
    assert main(elsewhere) == 0
    # The other tile has 5 points of road and no water.
    assert "(37,652 points)" in capsys.readouterr().out
    assert "5 points have labels without a class and are ignored: 11 (5)" in caplog.text
    assert main(predict) == 0
    before, after = (laspy.read(path / "mixed_conifer.laz") for path in (TILES, Path("labeled")))
    assert set(np.unique(after.classification)) <= {1, 2, 9}
    for name in before.point_format.dimension_names:
        if name != "classification":
            assert np.array_equal(before[name], after[name]), name


def test_mistakes_of_the_command(tmp_path, capsys):
    (tmp_path / "tile.xyz").write_text("0 0 0 2\n1 1 1 5\n")
    start = ["fit", "--data", str(tmp_path), "--output", str(tmp_path / "a")]
    scene = [*start, "--task", "segmentation"]
    for more, message in (
        ([*start, "--label_field", "x"], "--label_field with '--task segmentation' only"),
        ([*scene, "--classes", '{"2": "a"}', "--data_args", '{"classes": {"2": "a"}}'], "once"),
        ([*scene, "--label_field", "kind"], "'label_field' to be a field of"),
        ([*scene, "--data_args", '{"lable": 1}'], "settings of tiles to be among"),
    ):
        assert main(more) == 2
        assert message in capsys.readouterr().err
    draw = "\n".join(f"{n % 9} {n // 9} 0 {n % 2} {n}" for n in range(81))
    (tmp_path / "tile.xyz").write_text(draw)
    read = {"columns": ["x", "y", "z", "label", "gloss"], "features": ["gloss"], "block_size": 3}
    more = ["--label_field", "label", "--data_args", json.dumps(read), "--method", "lora"]
    assert main([*scene, *more]) == 2
    assert "layer of features is zero and frozen" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
