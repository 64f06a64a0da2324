"""Balanced sampling uses every cloud, balanced weights count classes, and training ends early."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data

pytest.importorskip("lightning", reason="lightning is not installed")
pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")

from pyg_peft import LoRAConfig, get_peft_model
from pyg_peft.backbones import PointMAE
from pyg_peft.training import FitOptions, SegmentationDataModule, ShapeDataModule, fit
from pyg_peft.training.data.sampler import KeyedSampler, epoch_size
from pyg_peft.training.fitting.callbacks import KeptEpoch
from pyg_peft.training.runs.checkpoint_files import read_checkpoint
from pyg_peft.training.runs.resuming import LAST

QUIET: dict[str, Any] = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


@given(
    st.lists(st.integers(-1, 3), min_size=3, max_size=40),
    st.integers(0, 5),
    st.integers(1, 3),
)
def test_every_sample_is_used_and_classes_occur_equally(labels: list[int], epoch: int, world: int):
    classes, order = torch.tensor(labels), []
    for rank in range(world):
        sampler = KeyedSampler(range(len(labels)), 1, rank=rank, world_size=world, labels=classes)
        sampler.set_epoch(epoch)
        own = list(sampler)
        assert len(own) == len(sampler)
        order.append(own)
    mixed = [number for row in zip(*order, strict=True) for number in row]
    mixed = mixed[: epoch_size(len(labels), classes)]
    assert set(mixed) == set(range(len(labels)))
    counts = classes[mixed][classes[mixed] >= 0].bincount(minlength=4)
    assert len(set(counts[counts > 0].tolist())) <= 1
    uses = torch.tensor(mixed).bincount()
    for label in range(4):  # no sample of a class is used much more often than another
        some = uses[classes == label]
        assert some.numel() == 0 or some.max() - some.min() <= 1
    assert (uses[classes == -1] == 1).all()


def clouds(labels: list[int], seed: int = 0) -> list[Data]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Data(pos=torch.rand(24, 3, generator=generator), y=torch.tensor([label]))
        for label in labels
    ]


def test_weights_by_name_and_balanced():
    train = clouds([0] * 6 + [1] * 2)
    names = ["a", "b", "c"]
    for given_weights, expected in (
        ("balanced", [8 / 12, 2.0, 1.0]),
        ({"b": 3}, [1.0, 3.0, 1.0]),
        ([1, 2, 3], [1.0, 2.0, 3.0]),
        (None, None),
    ):
        data = ShapeDataModule(
            train, train, class_names=names, task_args={"class_weights": given_weights}
        )
        data.check_trainable()
        assert data.task.class_weights == expected  # pyright: ignore[reportAttributeAccessIssue]


def test_balanced_parts_are_counted_by_points():
    items = [
        Data(pos=torch.rand(8, 3), seg=torch.tensor([0, 0, 0, 0, 0, 0, 1, -1])) for _ in range(3)
    ]
    items.append(Data(pos=torch.rand(8, 3), seg=torch.zeros(8, dtype=torch.long)))
    data = SegmentationDataModule(
        items, items, task_args={"class_weights": "balanced"}, balanced_sampling=True
    )
    data.check_trainable()
    assert data.class_counts().tolist() == [26, 3]
    assert data.sampled_classes().tolist() == [1, 1, 1, 0]
    weights = data.task.class_weights  # pyright: ignore[reportAttributeAccessIssue]
    assert weights == pytest.approx([29 / 52, 29 / 6])


def test_clouds_without_a_class():
    labels = [0, 1] * 8 + [-1, -1]
    data = ShapeDataModule(
        clouds(labels),
        clouds([0, 1, -1]),
        class_names=["a", "b"],
        task_args={"ignore_index": -1},
        balanced_sampling=True,
    )
    data.check_trainable()
    assert sum(len(batch.y) for batch in data.train_dataloader()) == 18
    with pytest.raises(ValueError, match="-1"):
        ShapeDataModule(clouds(labels), class_names=["a", "b"]).check_trainable()


def test_a_task_that_leaves_a_setting_out_is_named():
    class Own(ShapeDataModule):
        @property
        def task(self) -> Any:
            from pyg_peft.training import ClassificationTask

            return ClassificationTask(self.num_classes)

    data = Own(clouds([0, 1] * 4), task_args={"class_weights": "balanced"})
    with pytest.raises(ValueError, match=r"of Own does not use \(got class_weights"):
        data.check_trainable()


# ---- early stopping ------------------------------------------------------------------------------


def run(folder: Path, patience: int | None, epochs: int = 12, **more: Any) -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"embed_dim": 12, "depth": 1, "num_heads": 3, "num_centers": 4}
    model = get_peft_model(PointMAE(2, **sizes, patch_size=4), LoRAConfig(rank=2))
    splits = ShapeDataModule(
        clouds([0, 1] * 4), clouds([0, 1, 1], 1), class_names=["a", "b"], batch_size=4
    )
    options = FitOptions(logger="none", patience=patience, lr=0.05)
    return fit(
        model, splits, folder, options=options, trainer={**QUIET, "max_epochs": epochs}, **more
    )


def expected_end(curves: dict[str, list[float]], patience: int) -> int:
    best, at = (-1.0, 0.0), 0
    pairs = zip(curves["val_accuracy"], curves["val_loss"], strict=True)
    for epoch, (metric, loss) in enumerate(pairs):
        if (metric, -loss) > best:
            best, at = (metric, -loss), epoch
        if epoch - at >= patience:
            return epoch + 1
    return len(curves["val_loss"])


def test_training_ends_early_and_resumes_as_if_it_had_not_been_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = run(tmp_path / "whole", None)
    end = expected_end(whole.curves, 2)
    assert 2 < end < 12, "the case must end early"
    early = run(tmp_path / "early", 2)
    assert early.curves["val_loss"] == whole.curves["val_loss"][:end]

    ends = KeptEpoch.on_train_epoch_end

    def killed(self: KeptEpoch, trainer: Any, pl_module: Any) -> None:
        ends(self, trainer, pl_module)
        if trainer.current_epoch == end - 2:
            raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(KeptEpoch, "on_train_epoch_end", killed)
        with pytest.raises(RuntimeError, match="killed"):
            run(tmp_path / "killed", 2)
    again = run(tmp_path / "killed", 2, resume=True)
    assert again.curves == early.curves and again.epoch == early.epoch
    for _ in range(2):  # a run that has ended stays ended
        finished = run(tmp_path / "early", 2, resume=True)
        assert finished.curves == early.curves and finished.epoch == early.epoch
    assert read_checkpoint(tmp_path / "early" / LAST)["epoch"] == end - 1
