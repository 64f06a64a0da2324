"""Points with the ignored label: neither learned from nor counted nor drawn as wrong."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch_geometric.data import Batch, Data

from pyg_peft import LoRAConfig, PeftModel, get_peft_model
from pyg_peft.backbones import PointMAESegmentation
from pyg_peft.datasets.part_labels import IGNORE_INDEX
from pyg_peft.training.evaluation.part_iou import part_mask, shape_ious

pytest.importorskip("lightning", reason="lightning is not installed")
pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")

from pyg_peft.training import (
    SegmentationDataModule,
    SegmentationModule,
    evaluate_parts,
)
from pyg_peft.training.evaluation.segmentation_metrics import segmentation_metrics
from pyg_peft.training.fitting.run import FitOptions, fit

SIZES: dict[str, Any] = {"embed_dim": 12, "depth": 1, "num_heads": 3, "num_centers": 6}
HEAD: dict[str, Any] = {"patch_size": 4, "num_levels": 1, "head_channels": 16}


def model() -> PeftModel:
    torch.manual_seed(0)
    return get_peft_model(PointMAESegmentation(2, **SIZES, **HEAD), LoRAConfig(rank=2))


def cloud(number: int, *, ignored: int = 0) -> Data:
    generator = torch.Generator().manual_seed(number)
    pos = torch.rand(40, 3, generator=generator)
    seg = (pos[:, 2] > 0.5).long()
    seg[:ignored] = IGNORE_INDEX
    return Data(pos=pos, seg=seg)


def test_iou_and_metrics_leave_them_out():
    mask = part_mask([[0, 1]], 2)
    zero = torch.zeros(5, dtype=torch.long)
    found, truth = torch.tensor([0, 1, 1, 0, 1]), torch.tensor([0, 1, 0, -1, -1])
    expected = shape_ious(found[:3], truth[:3], zero[:3], zero[:1], mask)
    assert torch.equal(shape_ious(found, truth, zero, zero[:1], mask), expected)
    other = torch.where(truth == -1, 255, truth)
    assert torch.equal(shape_ious(found, other, zero, zero[:1], mask, 255), expected)
    with pytest.raises(ValueError, match="parts of each cloud's category"):
        shape_ious(found, other, zero, zero[:1], mask)

    scores = F.one_hot(found, 2).float()
    whole, part = (segmentation_metrics([[0, 1]], 2) for _ in range(2))
    two = torch.tensor([0, 0, 0, 0, 0, 1, 1])  # the second cloud has no label at all
    more = torch.cat([scores, scores[:2]])
    whole.update(more, torch.tensor([0, 1, 0, -1, -1, -1, -1]), two, torch.tensor([0, 0]))
    part.update(scores[:3], truth[:3], zero[:3], zero[:1])
    assert whole.compute() == part.compute()


def test_the_loss_is_that_of_the_others():
    module = SegmentationModule(model(), [[0, 1]], 2, label_smoothing=0.1)
    scores = torch.randn(6, 2, requires_grad=True)
    labels = torch.tensor([0, 1, -1, 0, -1, 1])
    loss = module.task.loss(scores, labels, module.label_smoothing)
    accuracy = module.task.progress(scores, labels)["accuracy"]
    known = labels >= 0
    expected = F.cross_entropy(scores[known], labels[known], label_smoothing=0.1)
    torch.testing.assert_close(loss, expected)
    right = (scores.argmax(dim=1) == labels)[known]
    assert float(accuracy) == float(right.float().mean())
    loss.backward()
    assert not scores.grad[~known].any()  # pyright: ignore[reportOptionalSubscript]
    ignored = torch.full((6,), -1)
    nothing = module.task.loss(scores, ignored, module.label_smoothing)
    accuracy = module.task.progress(scores, ignored)["accuracy"]
    assert float(nothing.detach()) == 0 and float(accuracy) == 0 and nothing.requires_grad


def test_fit_evaluate_and_confusion(tmp_path):
    items = [cloud(n, ignored=5 * (n % 3)) for n in range(12)]
    items.append(cloud(12, ignored=40))
    data = SegmentationDataModule(items[:8], items[8:], items[8:], batch_size=3)
    settings = {"max_epochs": 1, "enable_progress_bar": False, "enable_model_summary": False}
    report = fit(model(), data, tmp_path, options=FitOptions(logger="none"), trainer=settings)
    assert report.test is not None
    expected = sum(int((item.seg >= 0).sum()) for item in items[8:])  # pyright: ignore
    assert report.test.count == expected
    assert len(report.test.shape_iou) == 4, "the cloud without labels is left out"  # pyright: ignore
    assert all(value == value for values in report.curves.values() for value in values)


def test_another_ignored_label(tmp_path):
    item = cloud(0)
    item.seg[:7] = 255  # pyright: ignore
    names = ["bottom", "top"]
    data = SegmentationDataModule([item], [item], part_names=names, ignore_index=255, batch_size=2)
    data.check_labels()
    batch: Any = Batch.from_data_list([data.val_set[0]])  # pyright: ignore
    assert int((batch.y == IGNORE_INDEX).sum()) == 7
    assert evaluate_parts(model(), [batch], data.parts, 2).count == 33
    batch.y = torch.where(batch.y == IGNORE_INDEX, 255, batch.y)
    assert evaluate_parts(model(), [batch], data.parts, 2, ignore_index=255).count == 33
    with pytest.raises(ValueError, match=r"points of item 0 of 'dataset' to lie in \[-1, 1\]"):
        SegmentationDataModule([item], [item], part_names=names).check_labels()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda seg: seg.float() + 0.5, "points of item 1 of 'dataset' to be whole numbers"),
        (lambda seg: seg - 3, r"item 1 of 'dataset' to lie in \[-1, 1\]"),
        (lambda seg: seg + 7, r"item 1 of 'dataset' to lie in \[-1, 1\]"),
        (lambda seg: seg[:-1], "item 1 of 'dataset' to give a label per point"),
    ],
)
def test_labels_that_are_none_are_named_before_training(change: Any, message: str):
    items = [cloud(0), cloud(1)]
    items[1].seg = change(items[1].seg)
    data = SegmentationDataModule(items, items[:1], part_names=["bottom", "top"], batch_size=2)
    with pytest.raises(ValueError, match=message):
        data.check_trainable()


def test_a_part_of_another_category_is_named():
    items = [cloud(0), cloud(1)]
    for number, item in enumerate(items):
        item.category = torch.tensor([number])
    data = SegmentationDataModule(items, items, parts=[[0, 1], [0]], batch_size=2)
    with pytest.raises(ValueError, match=r"'train\[1\].y' to hold parts of its category, \[0\]"):
        data.check_trainable()


def test_the_picture_shows_them_pale():
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from pyg_peft.viz import plot_parts

    pos, truth = torch.rand(8, 3), torch.tensor([0, 0, 1, 1, -1, -1, 0, 1])
    found = torch.tensor([0, 0, 1, 0, 0, 1, 0, 1])
    figure = plot_parts(pos, truth, found, ["bottom", "top"])
    assert figure.axes[2].get_title() == "83.3 % right"
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["bottom", "top", "differs from the truth", "ignored"]
    nothing = plot_parts(pos, torch.full((8,), -1), found)
    assert nothing.axes[2].get_title() == "no point has a label"
