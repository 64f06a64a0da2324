"""What every task must hold, and what is said of scores that do not fit."""

from typing import Any

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data

from pyg_peft.backbones import PointNet, PointNetSegmentation
from pyg_peft.training.tasks.classification import ClassificationTask
from pyg_peft.training.tasks.contract import Scored, Task
from pyg_peft.training.tasks.registry import TASKS, find_task, list_tasks
from pyg_peft.training.tasks.segmentation import SegmentationTask

torch.manual_seed(0)
CASES: dict[str, tuple[Task, nn.Module]] = {
    "classification": (ClassificationTask(3), PointNet(3).eval()),
    "segmentation": (SegmentationTask([[0, 1], [1, 2]], 3), PointNetSegmentation(3).eval()),
}
every_task = pytest.mark.parametrize("name", list_tasks())


def batches(name: str, sizes: tuple[int, ...] = (4, 3)) -> list[Any]:
    generator, found = torch.Generator().manual_seed(1), []
    for size in sizes:
        clouds = []
        for number in range(size):
            category = torch.tensor([number % 2])
            labels = torch.randint(2, (20,), generator=generator) + category
            if TASKS[name].head == "classification":
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
    assert type(task) is find_task(name) and task.name == name


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
    assert f"val_{task.monitor}" in computed, (
        "the metric that chooses the epoch is one of the epoch's"
    )
    for key, value in computed.items():
        assert numbers[key.removeprefix("val_")] == pytest.approx(float(value), abs=1e-6), key


@every_task
def test_batches_add_up(name: str):
    task, model = CASES[name]
    clouds = [cloud for batch in batches(name) for cloud in batch.to_data_list()]
    whole = task.evaluate(model, [Batch.from_data_list(clouds)])
    assert whole.numbers() == task.evaluate(model, batches(name)).numbers()
    assert str(whole) == str(task.evaluate(model, batches(name)))


@every_task
def test_loss_falls_along_its_gradient(name: str):
    task, _ = CASES[name]
    data = batches(name)[0]
    rows = data.num_graphs if task.head == "classification" else data.num_nodes
    scores = torch.zeros(rows, task.num_outputs, requires_grad=True)
    labels = task.labels(data, rows)
    before = task.loss(scores, labels)
    before.backward()
    assert scores.grad is not None
    assert task.loss(scores.detach() - 5 * scores.grad, labels) < before
    assert set(task.progress(scores, labels)) == {"accuracy"}


@every_task
def test_scores_that_do_not_fit(name: str):
    task, _ = CASES[name]
    other: nn.Module = PointNet(5) if task.head == "classification" else PointNetSegmentation(5)
    with pytest.raises(ValueError, match=f"'model' to give 3 scores for {name} .*reset_head"):
        task.evaluate(other, batches(name))
    with pytest.raises(ValueError, match="'loader' to yield at least one batch"):
        task.evaluate(other, [])


@every_task
def test_predictions_are_probabilities(name: str):
    task, model = CASES[name]
    for data, found in task.predict(model, batches(name)):
        rows = data.num_graphs if task.head == "classification" else data.num_nodes
        assert found.shape == (rows, task.num_outputs) and not found.requires_grad
        torch.testing.assert_close(found.sum(dim=1), torch.ones(rows))
    assert not model.training


def test_predictions_are_what_evaluation_counts():
    """Also for parts: none outside of a cloud's category is predicted."""
    for name, (task, model) in CASES.items():
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

    assert DATA_MODULES.keys() == TASKS.keys()


def test_a_name_that_no_task_has():
    with pytest.raises(ValueError, match="'task' to be one of classification, segmentation"):
        find_task("dancing")
