"""What every task must hold, and what is said of scores that do not fit."""

import json
import math
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data

from pyg_peft.backbones import PointNet, PointNetSegmentation
from pyg_peft.training.tasks.classification import ClassificationTask
from pyg_peft.training.tasks.contract import Scored, Task
from pyg_peft.training.tasks.multi_label import MultiLabelEvaluation, MultiLabelTask
from pyg_peft.training.tasks.registry import TASKS, find_task, list_tasks
from pyg_peft.training.tasks.regression import RegressionTask
from pyg_peft.training.tasks.segmentation import SegmentationTask

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "strangers"))
pytest.importorskip("lightning", reason="lightning is not installed")
pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
KNOWN = set(TASKS)
FocalTask = import_module("my_task").FocalTask
for known in (TASKS, import_module("pyg_peft.training.fitting.tasks").DATA_MODULES):
    del known["focal_classification"]  # which other tests register
del sys.modules["my_task"]

torch.manual_seed(0)
CASES: dict[str, tuple[Task, nn.Module]] = {
    "classification": (ClassificationTask(3), PointNet(3).eval()),
    "segmentation": (SegmentationTask([[0, 1], [1, 2]], 3), PointNetSegmentation(3).eval()),
    "regression": (
        RegressionTask(3, mean=[100.0, 0.0, -1.0], sd=[20.0, 1.0, 0.5]),
        PointNet(3).eval(),
    ),
    "multi_label": (MultiLabelTask(3), PointNet(3).eval()),
}
CASES["focal_classification"] = (FocalTask(3), PointNet(3).eval())  # a stranger's
NAMES = ["a", "b", "c"]
# Settings of each task other than the defaults.
SETTINGS: dict[str, dict[str, Any]] = {
    "classification": {"class_weights": [1.0, 2.0, 4.0], "label_smoothing": 0.2, "ignore_index": 9},
    "focal_classification": {"class_weights": [1.0, 2.0, 4.0]},
    "segmentation": {
        "parts": [[0, 1], [1, 2]],
        "category_names": ["x", "y"],
        "class_weights": [1.0, 2.0, 4.0],
        "label_smoothing": 0.0,
    },
    "regression": {"mean": [1.0, 2.0, 3.0], "sd": [1.0, 2.0, 3.0], "loss": "huber", "delta": 2.0},
    "multi_label": {"class_weights": [1.0, 2.0, 4.0], "label_smoothing": 0.1},
}
HAVE_CLASSES = ["classification", "focal_classification", "segmentation"]
every_task = pytest.mark.parametrize("name", CASES)


def rows_of(name: str, data: Any) -> int:
    return data.num_graphs if TASK_OF[name].head == "classification" else data.num_nodes


TASK_OF = {name: type(task) for name, (task, _) in CASES.items()}


def batches(name: str, sizes: tuple[int, ...] = (4, 3)) -> list[Any]:
    generator, found = torch.Generator().manual_seed(1), []
    for size in sizes:
        clouds = []
        for number in range(size):
            category = torch.tensor([number % 2])
            labels = torch.randint(2, (20,), generator=generator) + category
            if name == "regression":
                labels = torch.rand(1, 3, generator=generator) * torch.tensor([90.0, 1.0, 2.0])
            elif name == "multi_label":
                labels = torch.tensor([[number % 2, number == 0, 0]])
            elif TASK_OF[name].head == "classification":
                labels = torch.tensor([number % 3])
            elif number == 1:
                labels[:5] = -1
            pos = torch.rand(20, 3, generator=generator)
            clouds.append(Data(pos=pos, y=labels, category=category))
        found.append(Batch.from_data_list(clouds))
    return found


@every_task
def test_every_task_has_a_case(name: str):
    task, _ = CASES[name]
    assert task.name == name
    assert KNOWN | {"focal_classification"} == set(CASES)
    if name in KNOWN:
        assert type(task) is find_task(name)


@every_task
def test_settings_are_saved_and_read(name: str):
    kind = TASK_OF[name]
    task = kind.from_dict(SETTINGS[name], NAMES)
    assert task.to_dict() == SETTINGS[name] == json.loads(json.dumps(task.to_dict()))
    again = kind.from_dict(task.to_dict(), NAMES)
    assert again.to_dict() == task.to_dict() and again.num_outputs == 3
    with pytest.raises(ValueError, match=f"settings of the task '{name}'"):
        kind.from_dict({"nonsense": 1}, NAMES)


@every_task
def test_settings_matter(name: str):
    """In the loss or in the predictions."""
    task, _ = CASES[name]
    other = TASK_OF[name].from_dict(SETTINGS[name], NAMES)
    data = batches(name)[0]
    rows = rows_of(name, data)
    scores = torch.randn(rows, 3, generator=torch.Generator().manual_seed(0))
    losses = [some.loss(scores, some.labels(data, rows)) for some in (task, other)]
    assert (losses[0] != losses[1]) == (name != "focal_classification")  # which has no weights


@pytest.mark.parametrize("name", ["classification", "segmentation", "multi_label"])
@pytest.mark.parametrize("weight", [0.25, 1.0, 7.0])
def test_equal_class_weights_change_nothing(name: str, weight: float):
    task, _ = CASES[name]
    structure = {k: v for k, v in task.to_dict().items() if k in ("parts", "category_names")}
    same = TASK_OF[name].from_dict({**structure, "class_weights": [weight] * 3}, NAMES)
    data = batches(name)[0]
    labels = task.labels(data, rows_of(name, data))
    scores = torch.randn(len(labels), 3, generator=torch.Generator().manual_seed(0))
    for smoothing in (0.0, 0.3):
        torch.testing.assert_close(
            same.loss(scores, labels, smoothing), task.loss(scores, labels, smoothing)
        )


@every_task
def test_a_row_of_predictions_by_name(name: str):
    task, model = CASES[name]
    _, found = next(iter(task.predict(model, batches(name))))
    described = task.describe(found[0], NAMES)
    assert list(described) == NAMES and list(described.values()) == found[0].tolist()
    text = task.summary(found[0], NAMES, top=2)
    assert sum(name in text.split() for name in NAMES) == (3 if name == "regression" else 2)


@pytest.mark.parametrize("name", HAVE_CLASSES)
def test_ignored_labels_are_neither_learned_nor_counted(name: str):
    ignored = {} if name == "segmentation" else {"ignore_index": 9}
    task = TASK_OF[name].from_dict(ignored, NAMES)
    mark = task.ignore_index  # pyright: ignore[reportAttributeAccessIssue]
    scores = torch.randn(4, 3, requires_grad=True)
    labels = torch.tensor([0, mark, 2, mark])
    known = [0, 2]
    if name != "focal_classification":
        torch.testing.assert_close(
            task.loss(scores, labels), task.loss(scores[known], labels[known])
        )
        nothing = task.loss(scores, torch.full_like(labels, mark))
        nothing.backward()
        assert nothing == 0 and scores.grad is not None and not scores.grad.any()
    assert task.known(scores, labels)[1].tolist() == [0, 2]
    right = (scores[known].argmax(dim=1) == labels[known]).float().mean()
    assert task.progress(scores, labels)["accuracy"] == right


@every_task
def test_evaluation_equals_the_metrics_of_an_epoch(name: str):
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    task, model = CASES[name]
    metrics = task.metrics("val_")
    for data in batches(name):
        scores = task.score(model, data).detach()
        task.update(metrics, scores, task.labels(data, scores.size(0)), data)
    numbers = task.evaluate(model, batches(name)).numbers()
    computed = metrics.compute()
    rel = 1e-5 if name == "regression" else 0.0  # sums of errors in float32; others are counts
    assert f"val_{task.monitor}" in computed, (
        "the metric that chooses the epoch is one of the epoch's"
    )
    for key, value in computed.items():
        assert numbers[key.removeprefix("val_")] == pytest.approx(
            float(value), rel=rel, abs=1e-6
        ), key


@every_task
def test_batches_add_up(name: str):
    task, model = CASES[name]
    clouds = [cloud for batch in batches(name) for cloud in batch.to_data_list()]
    whole = task.evaluate(model, [Batch.from_data_list(clouds)])
    parts = task.evaluate(model, batches(name)).numbers()
    # Sums of errors depend on the order, counts do not.
    assert whole.numbers() == (pytest.approx(parts) if name == "regression" else parts)
    assert str(whole) == str(task.evaluate(model, batches(name)))


@every_task
def test_loss_falls_along_its_gradient(name: str):
    task, _ = CASES[name]
    data = batches(name)[0]
    rows = rows_of(name, data)
    scores = torch.zeros(rows, task.num_outputs, requires_grad=True)
    labels = task.labels(data, rows)
    before = task.loss(scores, labels)
    before.backward()
    assert scores.grad is not None
    assert task.loss(scores.detach() - 0.5 * scores.grad, labels) < before
    assert task.progress(scores, labels).keys() <= {"accuracy", "mae", "exact_match"}


@every_task
def test_scores_that_do_not_fit(name: str):
    task, _ = CASES[name]
    other: nn.Module = PointNet(5) if task.head == "classification" else PointNetSegmentation(5)
    with pytest.raises(ValueError, match=f"'model' to give 3 scores for {name} .*reset_head"):
        task.evaluate(other, batches(name))
    with pytest.raises(ValueError, match="'loader' to yield at least one batch"):
        task.evaluate(other, [])


@every_task
def test_predictions_have_a_row_for_each_cloud_or_point(name: str):
    task, model = CASES[name]
    for data, found in task.predict(model, batches(name)):
        rows = rows_of(name, data)
        assert found.shape == (rows, task.num_outputs) and not found.requires_grad
        if name in HAVE_CLASSES:
            torch.testing.assert_close(found.sum(dim=1), torch.ones(rows))
        elif name == "multi_label":
            assert ((found >= 0) & (found <= 1)).all()
    assert not model.training


def test_predictions_are_what_evaluation_counts():
    """Also for parts: none outside of a cloud's category is predicted."""
    for name, (task, model) in CASES.items():
        if name not in HAVE_CLASSES:
            continue
        for data, found in task.predict(model, batches(name)):
            labels = task.labels(data, found.size(0))
            known = labels >= 0
            right = int((found.argmax(dim=1) == labels)[known].sum())
            counted = task.evaluate(model, [data]).per_class()
            assert right == sum(hits for hits, _ in counted)
            assert int(known.sum()) == sum(count for _, count in counted)


def test_a_model_that_scores_points_is_no_classifier():
    task, model = ClassificationTask(3), PointNetSegmentation(3).eval()
    with pytest.raises(ValueError, match=r"scores for each of 4 clouds \(got 80 rows"):
        task.evaluate(model, batches("classification"))


def test_labels_that_the_task_ignores():
    labels = torch.tensor([0, 255, 1, 0])
    cloud = Data(pos=torch.rand(4, 3), y=labels, category=torch.tensor([0]))
    SegmentationTask([[0, 1]], 2, ignore_index=255).check_labels([cloud], "train")
    labels[0] = 2
    with pytest.raises(ValueError, match=r"'train\[0\].y' to hold parts of its category"):
        SegmentationTask([[0, 1]], 3, ignore_index=255).check_labels([cloud], "train")


def test_a_task_without_classes_has_no_numbers_of_them():
    class Errors(Scored):
        def __add__(self, other: Any) -> Any:
            return self

        def numbers(self) -> dict[str, float]:
            return {}

        def __str__(self) -> str:
            return ""

    with pytest.raises(ValueError, match=r"for a task with classes only \(got a Errors"):
        Errors().per_class()


def test_every_task_has_a_data_module():
    pytest.importorskip("lightning", reason="lightning is not installed")
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    from pyg_peft.training.fitting.tasks import DATA_MODULES

    assert set(DATA_MODULES) >= KNOWN


def test_a_name_that_no_task_has():
    with pytest.raises(ValueError, match="'task' to be one of classification, multi_label"):
        find_task("dancing")
    assert set(list_tasks()) == set(TASKS)


# ---- regression ----------------------------------------------------------------------------------


def test_errors_by_hand_in_the_units_of_the_targets():
    task = RegressionTask(mean=[10.0], sd=[2.0])
    y = torch.tensor([[8.0], [10.0], [14.0]])
    data: Any = Batch.from_data_list([Data(pos=torch.rand(2, 3), y=row[None]) for row in y])
    labels = task.labels(data, 3)
    assert labels.flatten().tolist() == [-1.0, 0.0, 2.0]
    scores = torch.tensor([[-1.0], [1.0], [0.0]])  # 8, 12 and 10
    assert task.predictions(scores, data).flatten().tolist() == [8.0, 12.0, 10.0]
    found = task.measure(scores, data)
    assert found.mae == pytest.approx(2.0) and found.rmse == pytest.approx((20 / 3) ** 0.5)
    assert found.r2 == pytest.approx(1 - 20 / (y - y.mean()).square().sum().item())
    assert str(found) == "MAE 2, RMSE 2.582, R2 -0.071 (3 clouds)"
    assert task.loss(scores, labels) == pytest.approx((0 + 1 + 4) / 3)
    assert RegressionTask(loss="huber").loss(scores, labels) == pytest.approx((0.5 + 1.5) / 3)


def test_r2_of_a_single_cloud_is_not_a_number():
    task, model = CASES["regression"]
    data = Batch.from_data_list([batches("regression")[0].to_data_list()[0]])
    assert math.isnan(task.evaluate(model, [data]).r2)
    metrics: Any = task.metrics()
    metrics.update(torch.zeros(1, 3), torch.ones(1, 3))
    assert math.isnan(metrics.compute()["r2"])


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.rand(4, 2), r"3 numbers for each of 4 clouds \(got the shape \[4, 2"),
        (torch.full((4, 3), math.nan), "'y' to be finite"),
    ],
)
def test_targets_that_do_not_fit(y: Any, message: str):
    task, model = CASES["regression"]
    data: Any = batches("regression")[0]
    data.y = y
    with pytest.raises(ValueError, match=message):
        task.evaluate(model, [data])


# ---- several labels ------------------------------------------------------------------------------


def test_average_precision_by_hand():
    """Ties count once, and a label that no cloud has is left out."""
    chance = torch.tensor([[0.9, 0.1, 0.6], [0.8, 0.1, 0.2], [0.8, 0.7, 0.1], [0.1, 0.2, 0.1]])
    labels = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]]).bool()
    found = MultiLabelEvaluation(chance, labels)
    first = 0.5 * 1 + 0.5 * 2 / 3
    assert found.average_precision[:2].tolist() == pytest.approx([first, 1.0])
    assert found.average_precision[2].isnan() and found.map == pytest.approx((first + 1) / 2)
    assert found.macro_f1 == pytest.approx((0.8 + 1 + 0) / 3)
    assert found.exact_match == 0.5  # the first cloud has a label too many, the third too
    assert found.per_class() == [(2, 2), (1, 1), (0, 0)]


def test_labels_are_zero_or_one():
    data = [Data(pos=torch.rand(2, 3), y=torch.tensor([[0, 2, 1]]))]
    with pytest.raises(
        ValueError, match=r"'val.y' to hold a 0 or 1 for each label \(got 2 at 0, 1"
    ):
        MultiLabelTask(3).check_labels(data, "val")
    with pytest.raises(ValueError, match="'y' to hold a 0 or 1"):
        MultiLabelTask(3).labels(Batch.from_data_list(data), 1)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClassificationTask(2, class_weights=[1.0]), "'class_weights' to hold 2 weights"),
        (lambda: ClassificationTask(2, class_weights=[1.0, 0.0]), "'class_weights' to be > 0"),
        (lambda: ClassificationTask(2, label_smoothing=1.0), "'label_smoothing' to lie in"),
        (lambda: RegressionTask(loss="mae"), "'loss' to be one of mse, huber"),
        (lambda: RegressionTask(mean=[0.0]), "'mean' and 'sd' to be given together"),
        (lambda: RegressionTask(mean=[0.0], sd=[0.0]), "'sd' to be above 0"),
        (lambda: RegressionTask(2, mean=[0.0], sd=[1.0]), "'mean' to hold 2 numbers"),
    ],
)
def test_settings_that_do_not_fit(make: Any, message: str):
    with pytest.raises(ValueError, match=message):
        make()
