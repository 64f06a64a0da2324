"""``evaluate --data FOLDER`` of other shapes (issue 12, C16): test shapes only, or no splits."""

import json

import numpy as np
import pytest

from pyg_peft.cli import evaluate as evaluate_command
from pyg_peft.cli import main
from pyg_peft.datasets.npz.write import write_shapes

SIZES = '{"embed_dim": 24, "depth": 1, "num_heads": 3, "num_centers": 6, "patch_size": 4}'


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


def test_the_validation_split_of_a_run_with_groups(tmp_path, capsys):
    """The same clouds validate again, since clouds of one group stay together."""
    generator = np.random.default_rng(0)
    clouds = [generator.normal(size=(30, 3)) for _ in range(24)]
    write_shapes(
        tmp_path / "set.npz",
        clouds,
        [n % 2 for n in range(24)],
        class_names=["a", "b"],
        split=["train"] * 20 + ["test"] * 4,
        group=[n // 4 for n in range(24)],
    )
    output = str(tmp_path / "out")
    arguments = [
        *("fit", "--data", str(tmp_path / "set.npz"), "--output", output),
        *("--backbone=random", "--backbone_args", SIZES),
        *("--group_field", "group", "--method", "linear_probe"),
        *("--preprocessing.num_points", "24", "--batch_size", "4", "--val_fraction", "0.3"),
        *("--options.logger", "none", "--trainer.max_epochs", "1"),
        *("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"),
    ]
    assert main(arguments) == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    capsys.readouterr()
    assert main(["evaluate", output, "--split", "val"]) == 0
    shown = capsys.readouterr().out
    assert f"accuracy {100 * result['val']['accuracy']:.2f} %" in shown
    assert f"({result['val']['count']} clouds)" in shown
    seen: list[object] = []
    real = evaluate_command.groups_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate_command, "groups_of", lambda *a: seen.append(a[1]) or real(*a))
        assert main(["evaluate", output, "--split", "val"]) == 0
    assert seen == ["group"]
    result["run"]["group_field"] = 3
    (tmp_path / "out" / "result.json").write_text(json.dumps(result))
    assert main(["evaluate", output]) == 2
    assert "'run.group_field' in" in capsys.readouterr().err


def test_folders_of_test_shapes_and_of_classes(tmp_path, capsys):
    own, output = fill(tmp_path / "own", "a", "b"), str(tmp_path / "out")
    arguments = [
        *("fit", "--data", own, "--output", output, "--backbone=random", "--backbone_args", SIZES),
        *("--method", "linear_probe", "--preprocessing.num_points", "24", "--batch_size", "4"),
        *(
            "--test_fraction",
            "0",
            "--val_fraction",
            "0.34",
            "--options.logger",
            "none",
            "--trainer.max_epochs",
            "1",
        ),
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
