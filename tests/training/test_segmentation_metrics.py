import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyg_peft.training.evaluation.part_iou import choose_parts, part_mask, shape_ious

PARTS = [[0, 1, 2], [3], [4, 5]]


def draw(sizes: list[int], seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores, truth, clouds of points, categories of clouds; few labels, so parts are absent."""
    generator = torch.Generator().manual_seed(seed)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    category = torch.randint(len(PARTS), (len(sizes),), generator=generator)
    scores = torch.randn(len(batch), 6, generator=generator)
    truth = [
        int(torch.randint(max(1, len(PARTS[c]) - 1), (), generator=generator)) + PARTS[c][0]
        for c in category[batch].tolist()
    ]
    return scores, torch.tensor(truth, dtype=torch.long), batch, category


def by_counting(
    scores: Tensor, target: Tensor, batch: Tensor, category: Tensor
) -> dict[str, float]:
    """The benchmark's definition, point after point."""
    found: dict[int, list[float]] = {}
    right = total = 0
    for cloud, kind in enumerate(category.tolist()):
        points = [i for i, owner in enumerate(batch.tolist()) if owner == cloud]
        if not points:
            continue
        guess = {i: max(PARTS[kind], key=lambda part, i=i: float(scores[i, part])) for i in points}
        truth = {i: int(target[i]) for i in points}
        right += sum(guess[i] == truth[i] for i in points)
        total += len(points)
        ious = []
        for part in PARTS[kind]:
            own = {i for i in points if truth[i] == part}
            taken = {i for i in points if guess[i] == part}
            ious.append(len(own & taken) / len(own | taken) if own | taken else 1.0)
        found.setdefault(kind, []).append(sum(ious) / len(ious))
    shapes = [iou for ious in found.values() for iou in ious]
    return {
        "accuracy": right / total,
        "instance_iou": sum(shapes) / len(shapes),
        "class_iou": sum(sum(ious) / len(ious) for ious in found.values()) / len(found),
    }


SIZES = st.lists(st.integers(0, 6), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) > 0)


@settings(max_examples=50)
@given(sizes=SIZES, seed=st.integers(0, 2**31))
def test_metrics_count_as_the_benchmark_does(sizes: list[int], seed: int):
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    from pyg_peft.training.evaluation.segmentation_metrics import segmentation_metrics

    scores, target, batch, category = draw(sizes, seed)
    whole = segmentation_metrics(PARTS, prefix="val_")
    whole.update(scores, target, batch, category)
    found = {name.removeprefix("val_"): float(value) for name, value in whole.compute().items()}
    assert found == pytest.approx(by_counting(scores, target, batch, category))

    parts = segmentation_metrics(PARTS)
    for cloud in range(len(sizes)):
        rows = batch == cloud
        one = (scores[rows], target[rows], batch[rows] * 0, category[cloud : cloud + 1])
        parts.update(*one)
    alone = {name: float(value) for name, value in parts.compute().items()}
    assert alone == pytest.approx(found)


def test_absent_parts():
    mask = part_mask([[0, 1, 2]], 3)
    cloud = torch.zeros(2, dtype=torch.long)
    zero = torch.zeros(1, dtype=torch.long)
    found, truth = torch.tensor([0, 0]), torch.tensor([0, 1])
    # 0: one of two; 1: in the truth only; 2: in neither
    assert float(shape_ious(found, truth, cloud, zero, mask)) == pytest.approx((0.5 + 0 + 1) / 3)
    assert float(shape_ious(truth, truth, cloud, zero, mask)) == 1.0


def test_other_categories_do_not_compete():
    mask = part_mask(PARTS, 6)
    scores = torch.arange(6.0).expand(3, 6)
    chosen = choose_parts(scores, torch.arange(3), torch.tensor([0, 1, 2]), mask)
    assert chosen.tolist() == [2, 3, 5]


def test_errors():
    with pytest.raises(ValueError, match=r"below 2 for category 1 \(got \[2\]\)"):
        part_mask([[0], [2]], 2)
    with pytest.raises(ValueError, match=r"for category 0 \(got \[\]\)"):
        part_mask([[]], 2)
    zero = torch.zeros(1, dtype=torch.long)
    with pytest.raises(ValueError, match="'target' to hold parts of each cloud's category"):
        shape_ious(zero, zero + 1, zero, zero, part_mask([[0], [1]], 2))


def test_reset_and_no_clouds():
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    from pyg_peft.training.evaluation.segmentation_metrics import (
        ClassMeanIoU,
        InstanceMeanIoU,
        PointAccuracy,
    )

    for kind in (ClassMeanIoU, InstanceMeanIoU, PointAccuracy):
        metric = kind(PARTS)
        metric.update(*draw([3, 2], 0))
        first = float(metric.compute())
        metric.reset()
        metric.update(*draw([3, 2], 0))
        assert float(metric.compute()) == first
        assert math.isfinite(first)
