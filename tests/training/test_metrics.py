import pytest
import torch

pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")

from pyg_peft.training.evaluation.forward import check_precision
from pyg_peft.training.evaluation.metrics import MacroAccuracy, classification_metrics
from pyg_peft.training.tasks.classification import Evaluation


def test_macro_accuracy_leaves_absent_classes_out():
    metric = MacroAccuracy(3)
    metric.update(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 0, 0, 1]))
    assert float(metric.compute()) == pytest.approx((2 / 3 + 0) / 2)


def test_batches_add_up_to_the_whole():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 4, generator=generator)
    y = torch.randint(4, (50,), generator=generator)
    parts, whole = classification_metrics(4, "val_"), classification_metrics(4, "val_")
    for rows in torch.arange(50).split(7):
        parts.update(logits[rows], y[rows])
    whole.update(logits, y)
    assert parts.compute() == whole.compute()
    right = (logits.argmax(1) == y).double().mean()
    assert float(whole.compute()["val_accuracy"]) == pytest.approx(float(right))


def test_evaluation_agrees_with_the_metrics():
    generator = torch.Generator().manual_seed(1)
    found, y = (torch.randint(3, (40,), generator=generator) for _ in range(2))
    confusion = torch.zeros(3, 3, dtype=torch.long)
    confusion.index_put_((y, found), torch.ones(40, dtype=torch.long), accumulate=True)
    metric = classification_metrics(3)
    metric.update(found, y)
    result, expected = Evaluation(confusion), metric.compute()
    assert result.count == 40
    assert result.accuracy == pytest.approx(float(expected["accuracy"]))
    assert result.macro_accuracy == pytest.approx(float(expected["macro_accuracy"]))


def test_precision_that_rounds_positions_is_refused():
    assert check_precision("bf16-mixed") is torch.bfloat16
    with pytest.raises(ValueError, match="float32 \\(got 'bf16-true'\\)"):
        check_precision("bf16-true")
