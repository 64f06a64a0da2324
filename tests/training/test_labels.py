"""Labels at the border: what is taken, and what is refused by name."""

import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_peft.training.data.labels import check_range, whole_labels


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor([1, 0], dtype=torch.int32),
        torch.tensor([[1], [0]]),
        torch.tensor([1.0, 0.0]),
        torch.tensor([1, 0], dtype=torch.uint8),
    ],
)
def test_whole_numbers_of_any_type_are_taken(labels: torch.Tensor):
    found = whole_labels(labels, "cloud", 2)
    assert found.dtype == torch.long and found.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "kind", "message"),
    [
        (torch.tensor([1.0, 0.5]), ValueError, r"'y' to hold whole numbers \(got 0.5\)"),
        (torch.tensor([1.0, torch.nan]), ValueError, r"whole numbers \(got nan\)"),
        (torch.tensor([1, 0, 1]), ValueError, r"each of 2 clouds \(got the shape \[3\]\)"),
        (torch.tensor([True, False]), TypeError, r"got torch.bool"),
        ([1, 0], TypeError, r"got list"),
        (None, TypeError, r"got NoneType"),
    ],
)
def test_others_are_named(labels: object, kind: type[Exception], message: str):
    with pytest.raises(kind, match=message):
        whole_labels(labels, "cloud", 2)


def test_the_range_is_named():
    check_range(torch.tensor([0, 2]), 3, "y")
    check_range(torch.tensor([0, -1, 2]), 3, "y", ignore_index=-1)
    with pytest.raises(ValueError, match=r"'y' to hold labels in \[0, 2\] \(got 3 at 1\)"):
        check_range(torch.tensor([0, 3]), 3, "y")
    with pytest.raises(ValueError, match=r"or to be -1 to be ignored \(got -2 at 0\)"):
        check_range(torch.tensor([-2, 3]), 3, "y", ignore_index=-1)


def test_the_data_module_refuses_labels_without_a_class():
    pytest.importorskip("lightning", reason="lightning is not installed")
    from pyg_peft.training.fitting.data_module import ShapeDataModule

    good = [Data(pos=torch.rand(9, 3), y=torch.tensor([row % 2])) for row in range(8)]
    bad = [*good, Data(pos=torch.rand(9, 3), y=torch.tensor([2]))]
    data = ShapeDataModule(good, good, bad, class_names=["a", "b"])
    with pytest.raises(ValueError, match=r"'test.y' to hold labels in \[0, 1\] \(got 2 at 8"):
        data.check_trainable()
    with pytest.raises(ValueError, match=r"'test\.y'"):
        data.setup("fit")


def test_the_evaluation_refuses_labels_without_a_class():
    pytest.importorskip("lightning", reason="lightning is not installed")
    from pyg_peft import LoRAConfig, get_peft_model
    from pyg_peft.backbones import PointMAE
    from pyg_peft.training.tasks.classification import evaluate

    base = PointMAE(2, embed_dim=12, depth=1, num_heads=3, num_centers=4, patch_size=4)
    model = get_peft_model(base, LoRAConfig(rank=2))
    cloud = torch.rand(20, 3)

    def loader(label: object):
        return [Batch.from_data_list([Data(pos=cloud, y=label)])]  # pyright: ignore

    for label in (1, torch.tensor([1]), torch.tensor([[1]]), torch.tensor([1.0])):
        assert evaluate(model, loader(label), 2).count == 1
    for label, message in ((0.5, "got 0.5"), (2, "got 2 at 0"), (-1, "got -1 at 0")):
        with pytest.raises(ValueError, match=message):
            evaluate(model, loader(label), 2)
    with pytest.raises(ValueError, match="at least one batch"):
        evaluate(model, [], 2)
    with pytest.raises(TypeError, match="'num_classes' to be an integer"):
        evaluate(model, loader(1), 2.5)  # pyright: ignore
