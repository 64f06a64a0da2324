"""A method, a token backbone, a data set and a task from outside the package, one file each.

Each passes the public battery, and is fitted, saved, evaluated and shown by the command line
without a line in the package.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_peft import (
    LoRAConfig,
    MemoryBank,
    PeftModel,
    PointPEFTConfig,
    VPTConfig,
    get_peft_model,
    testing,
)
from pyg_peft.backbones import PointMAE
from pyg_peft.backbones.contract import TokenBackbone
from pyg_peft.backbones.registry import BACKBONES
from pyg_peft.cli import main
from pyg_peft.testing import Clouds, random_clouds
from pyg_peft.training.data import sources
from pyg_peft.training.fitting.tasks import DATA_MODULES, wrap_splits
from pyg_peft.training.tasks.registry import TASKS
from pyg_peft.tuners import METHODS

for needed in ("jsonargparse", "lightning", "torchmetrics"):
    pytest.importorskip(needed, reason=f"{needed} is not installed")

FILES = Path(__file__).parent / "strangers"
NAMES = ("my_method", "my_backbone", "my_data", "my_task")
SIZES = [9, 20, 1]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the three files; the registries are as before in the end."""
    for name in NAMES:
        shutil.copy(FILES / f"{name}.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    registries: list[dict[str, Any]] = [METHODS, BACKBONES, sources._OPENERS, sources._ABOUT]
    registries += [TASKS, DATA_MODULES]
    before = [dict(registry) for registry in registries]
    yield tmp_path
    for registry, content in zip(registries, before, strict=True):
        registry.clear()
        registry.update(content)
    for name in NAMES:
        sys.modules.pop(name, None)


def call(model: Any, clouds: Clouds) -> Tensor:
    return model(pos=clouds.pos, batch=clouds.batch, batch_size=clouds.batch_size)


def clouds() -> Clouds:
    return random_clouds(SIZES, generator=torch.Generator().manual_seed(0))


def tiny() -> PointMAE:
    torch.manual_seed(0)
    sizes: dict[str, int] = {"depth": 2, "num_heads": 3, "num_centers": 8, "patch_size": 4}
    return PointMAE(4, embed_dim=24, **sizes).double().eval()


def run(*arguments: str) -> None:
    assert main([f"--import={name}" for name in NAMES] + list(arguments)) == 0


def fit(*more: str) -> None:
    run(
        *("fit", "--data=boxes:12", "--output=adapter", "--trainer.max_epochs=1", "--batch_size=6"),
        *("--options.logger=none", "--trainer.enable_progress_bar=false"),
        *("--trainer.accelerator=cpu", "--preprocessing.num_points=48", *more),
    )


def test_a_method(generator: torch.Generator, capsys: pytest.CaptureFixture[str]):
    config = import_module("my_method").ChannelScaleConfig()
    base = tiny()
    reference = call(base, clouds())
    model = get_peft_model(base, config)
    testing.assert_identity_at_init(
        model, clouds(), reference=reference, generator=generator, call=call
    )
    testing.randomize_(model, generator)
    testing.assert_batch_isolated(model, clouds(), call=call, rows="cloud")
    testing.assert_gradients(model, clouds(), call=call)
    testing.assert_leaves_no_trace(
        tiny(),
        clouds(),
        attach=lambda base: get_peft_model(base, config),
        detach=lambda model: model.unload(),
        generator=generator,
        call=call,
    )
    model.save_pretrained("saved")
    again = PeftModel.from_pretrained(tiny(), "saved")
    assert torch.equal(call(again.eval(), clouds()), call(model.eval(), clouds()))

    run("inspect", "--method=channel_scale")
    assert "ChannelScale" in capsys.readouterr().out
    sizes = {"embed_dim": 24, "depth": 1, "num_heads": 3, "num_centers": 8, "patch_size": 8}
    fit("--method=channel_scale", "--backbone=random", f"--backbone_args={json.dumps(sizes)}")
    run("evaluate", "adapter", "--data=boxes:12")  # of a file no own source is opened
    run("inspect", "adapter")
    assert "channel_scale" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["point_peft", "vpt", "lora", "linear_probe"])
def test_a_token_backbone(method: str, capsys: pytest.CaptureFixture[str]):
    kind: Any = import_module("my_backbone").MaxBackbone
    checked: Any = kind(4)  # the type checker would narrow what it checks
    assert isinstance(checked, TokenBackbone)
    torch.manual_seed(0)
    base: Any = kind(4).double().eval()
    testing.assert_batch_isolated(base, clouds(), call=call, rows="cloud")
    configs = {"point_peft": PointPEFTConfig(k=3, num_prompts=4), "vpt": VPTConfig(num_prompts=2)}
    config = configs.get(method, LoRAConfig() if method == "lora" else METHODS[method]())
    bank = MemoryBank(torch.randn(12, 24, dtype=torch.float64)) if method == "point_peft" else None
    model = get_peft_model(base, config, memory_bank=bank)
    testing.randomize_(model, torch.Generator().manual_seed(1))
    testing.assert_batch_isolated(model, clouds(), call=call, rows="cloud")
    prepared = model.precompute(pos=clouds().pos, batch=clouds().batch)
    torch.testing.assert_close(model(**prepared), call(model, clouds()))

    settings = {"point_peft": {"k": 3, "num_prompts": 4}, "vpt": {"num_prompts": 2}}.get(method, {})
    torch.save(kind(7).state_dict(), "weights.pth")  # its head has another number of classes
    fit(
        *("--backbone_class=MaxBackbone", "--backbone=weights.pth", f"--method={method}"),
        f"--method_args={json.dumps(settings)}",
    )
    run("evaluate", "adapter", "--data=boxes:12")  # of a file no own source is opened
    run("inspect", "adapter")
    assert "accuracy" in capsys.readouterr().out
    run("inspect", "--backbone_class=MaxBackbone", f"--method={method}")


def test_a_data_set(capsys: pytest.CaptureFixture[str]):
    module = import_module("my_data")
    splits = sources.open_source("boxes:10")
    assert (len(splits.train), len(splits.test)) == (10, 5)
    assert splits.class_names == tuple(module.SHAPES)
    with pytest.raises(SystemExit):
        run("fit", "--help")
    assert "boxes:..." in capsys.readouterr().out


def test_a_task(capsys: pytest.CaptureFixture[str]):
    module = import_module("my_task")
    task = module.FocalTask(3)
    scores, labels = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0])
    chance = scores.softmax(dim=1)[torch.arange(5), labels]
    torch.testing.assert_close(
        task.loss(scores, labels), -((1 - chance) ** 2 * chance.log()).mean()
    )
    sizes = {"embed_dim": 24, "depth": 1, "num_heads": 3, "num_centers": 8, "patch_size": 8}
    args = ("--backbone=random", f"--backbone_args={json.dumps(sizes)}", "--method=lora")
    fit("--task=focal_classification", *args)
    config = json.loads(Path("adapter/adapter_config.json").read_text())
    assert config["preprocessing"]["task_name"] == "focal_classification"
    run("evaluate", "adapter", "--data=boxes:12")
    assert "accuracy" in capsys.readouterr().out
    cloud = sources.open_source("boxes:2").train[0].pos
    Path("cloud.xyz").write_text("\n".join(" ".join(map(str, row)) for row in cloud.tolist()))
    run("predict", "adapter", "cloud.xyz")
    assert "cloud.xyz" in capsys.readouterr().out
    del TASKS["focal_classification"], sys.modules["my_task"]  # as if it were not imported
    assert main(["predict", "adapter", "cloud.xyz"]) == 2
    assert "focal_classification" in capsys.readouterr().err


def test_a_module_that_is_not_there(capsys: pytest.CaptureFixture[str]):
    assert main(["--import", "no_such_module", "inspect"]) == 2
    assert "'--import' to name a module" in capsys.readouterr().err


def test_names_that_are_taken_and_classes_that_do_not_fit():
    from pyg_peft.backbones import register_backbone
    from pyg_peft.training import (
        ClassificationTask,
        SegmentationDataModule,
        ShapeDataModule,
        Task,
        register_source,
        register_task,
    )
    from pyg_peft.tuners import register_method

    with pytest.raises(ValueError, match="'lora', which is taken"):
        register_method(type("Mine", (LoRAConfig,), {}))
    with pytest.raises(TypeError, match="a subclass of MethodConfig"):
        register_method(PointMAE)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="to have config, from_checkpoint, reset_head"):
        register_backbone(torch.nn.Linear)
    with pytest.raises(ValueError, match="'task' of Mine"):
        register_backbone(type("Mine", (PointMAE,), {"task": "dancing"}))
    with pytest.raises(ValueError, match="'PointMAE', which is taken"):
        register_backbone(type("PointMAE", (PointMAE,), {}))
    with pytest.raises(ValueError, match="'procedural', which is taken"):
        register_source("procedural", lambda rest, options: sources.open_source("x"), "")
    mine = type("Mine", (ClassificationTask,), {})
    with pytest.raises(ValueError, match="'classification', which is taken"):
        register_task(mine, ShapeDataModule)
    with pytest.raises(TypeError, match="'task' to be a subclass of Task"):
        register_task(PointMAE, ShapeDataModule)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'data_module' to be a subclass of ShapeDataModule"):
        register_task(ClassificationTask, PointMAE)  # type: ignore[arg-type]
    other = type("Other", (ClassificationTask,), {"name": "other", "head": "dancing"})
    with pytest.raises(ValueError, match="'head' of Other"):
        register_task(other, ShapeDataModule)
    with pytest.raises(TypeError, match="'task' to implement check_labels, labels, loss"):
        register_task(type("Empty", (Task,), {}), ShapeDataModule)
    with pytest.raises(TypeError, match="'task' to set name, head, monitor"):
        members = dict.fromkeys(Task.__abstractmethods__)
        register_task(type("Nameless", (Task,), members), ShapeDataModule)
    named = type("Named", (ClassificationTask,), {"name": "named"})
    register_task(named, ShapeDataModule)
    with pytest.raises(TypeError, match="'task' of ShapeDataModule to be a Named"):
        splits = sources.open_source("procedural:12")
        wrap_splits("named", splits)
    with pytest.raises(ValueError, match="'named', which is taken"):
        register_task(named, SegmentationDataModule)
    with pytest.raises(ValueError, match="a plain word"):
        register_source("my data", lambda rest, options: sources.open_source("x"), "")
