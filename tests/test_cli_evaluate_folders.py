"""``evaluate --data FOLDER`` of other shapes (issue 12, C16): test shapes only, or no splits."""

import numpy as np
import pytest

from pyg_peft.cli import main


@pytest.fixture(autouse=True)
def command_line() -> None:
    for package in ("jsonargparse", "lightning", "torchmetrics"):
        pytest.importorskip(package, reason=f"{package} is not installed")


def fill(root, *folders: str) -> str:
    for number, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for shape in range(3):
            points = np.random.default_rng([number, shape]).normal(size=(30, 3))
            np.save(root / folder / f"{shape}.npy", points)
    return str(root)


def test_folders_of_test_shapes_and_of_classes(tmp_path, capsys):
    own, output = fill(tmp_path / "own", "a", "b"), str(tmp_path / "out")
    sizes = '{"embed_dim": 24, "depth": 1, "num_heads": 3, "num_centers": 6, "patch_size": 4}'
    arguments = [
        *("fit", "--data", own, "--output", output, "--backbone_args", sizes),
        *("--method", "linear_probe", "--preprocessing.num_points", "24", "--batch_size", "4"),
        *("--val_fraction", "0.34", "--options.logger", "none", "--trainer.max_epochs", "1"),
        *("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"),
    ]
    assert main(arguments) == 0
    capsys.readouterr()
    test_only = fill(tmp_path / "held", "test/a", "test/b")
    assert main(["evaluate", output, "--data", test_only]) == 0
    told = capsys.readouterr().out
    assert told.startswith("test ") and "no splits" not in told
    plain = fill(tmp_path / "plain", "a", "b")
    assert main(["evaluate", output, "--data", plain]) == 0
    assert (
        f"'{plain}' has no splits: all of its clouds are tested\ntest " in capsys.readouterr().out
    )
    # What the model was trained on is no test, whole or not.
    assert main(["evaluate", output]) == 2
    assert "to have a test split" in capsys.readouterr().err
    assert (
        main([*arguments[:2], test_only, *arguments[3:4], str(tmp_path / "no"), *arguments[5:]])
        == 2
    )
    assert "a training split (got only test)" in capsys.readouterr().err
