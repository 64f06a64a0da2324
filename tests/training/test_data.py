from typing import Any

import pytest
import torch
from torch_geometric.data import Data

from pyg_peft.datasets import ProceduralShapes, ScaleTranslate
from pyg_peft.datasets.preprocessing import Preprocessing

pytest.importorskip("lightning", reason="lightning is not installed")

from pyg_peft.training.fitting.data_module import ShapeDataModule


def module(**options: Any) -> ShapeDataModule:
    options = {"batch_size": 8, "val_fraction": 0.25, **options}
    shapes = ProceduralShapes(num_shapes=48, num_points=32)
    return ShapeDataModule(
        shapes,
        test=ProceduralShapes("test", num_shapes=12, num_points=32),
        preprocessing=Preprocessing(16),
        augmentation=ScaleTranslate(),
        **options,
    )


def ids(loader) -> list[int]:
    return [row for data in loader for row in data.sample_id.tolist()]


def test_validation_is_carved_out_of_training_by_class():
    data = module()
    train, val = ids(data.train_dataloader()), ids(data.val_dataloader())
    assert not set(train) & set(val) and len(val) == 12
    assert sorted(data.val_set.labels.tolist()) == list(range(12))
    assert ids(module(seed=1).val_dataloader()) != val


def test_the_bank_sees_training_samples_unaugmented_and_nothing_else():
    data = module()
    bank = set(ids(data.bank_dataloader()))
    assert set(ids(data.train_dataloader())) <= bank and len(bank) == 36
    assert not bank & set(ids(data.val_dataloader()))
    first, again = (next(iter(data.bank_dataloader())).pos for _ in range(2))
    assert torch.equal(first, again)


def test_groups_stay_together():
    groups = torch.arange(48) // 12
    data = module(groups=groups)
    train, val = set(ids(data.train_dataloader())), set(ids(data.val_dataloader()))
    assert not {row // 12 for row in train} & {row // 12 for row in val}


def test_data_that_cannot_train_are_refused_before():
    module().check_trainable()
    items = [Data(pos=torch.rand(9, 3), y=torch.tensor([row])) for row in range(2)]
    with pytest.raises(ValueError, match=r"clouds to validate on.*\(got none, and 2 to train on"):
        ShapeDataModule(items, class_names=["a", "b"]).check_trainable()
    ShapeDataModule(items, items, class_names=["a", "b"]).check_trainable()
    with pytest.raises(ValueError, match=r"two classes or more \(got \('a',\)\)"):
        ShapeDataModule(items[:1] * 4, class_names=["a"]).check_trainable()


def test_an_epoch_is_a_function_of_its_number():
    def epoch(data: ShapeDataModule, number: int) -> list[torch.Tensor]:
        loader = data.train_dataloader()
        loader.batch_sampler.sampler.set_epoch(number)  # pyright: ignore
        return [batch.pos for batch in loader]

    run = module()
    seen = [epoch(run, number) for number in range(3)]
    resumed = epoch(module(), 2)
    assert all(torch.equal(a, b) for a, b in zip(seen[2], resumed, strict=True))
    assert not torch.equal(seen[1][0], seen[2][0])


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_do_not_change_the_batches(workers):
    data = module(num_workers=workers)
    expected = [batch.pos for batch in module().train_dataloader()]
    found = [batch.pos for batch in data.train_dataloader()]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_iterator_that_was_made_early_shows_the_epoch_that_was_set_late(workers: int):
    """Lightning makes the iterator of a resumed run before it knows the epoch."""

    def epoch(number: int, *, early: bool) -> list[torch.Tensor]:
        loader = module(num_workers=workers).train_dataloader()
        sampler: Any = loader.batch_sampler.sampler  # pyright: ignore
        if not early:
            sampler.set_epoch(number)
        batches = iter(loader)
        sampler.set_epoch(number)
        return [batch.pos for batch in batches]

    expected, found = epoch(2, early=False), epoch(2, early=True)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_items_without_an_id_get_one():
    items = [Data(pos=torch.randn(9, 3), y=torch.tensor([n % 2])) for n in range(10)]
    data = ShapeDataModule(items, batch_size=4, class_names=["a", "b"], predict=items[:3])
    assert sorted(ids(data.train_dataloader()) + ids(data.val_dataloader()))[-1] <= 9
    assert ids(data.predict_dataloader()) == [0, 1, 2]


def test_errors():
    shapes = ProceduralShapes(num_shapes=24, num_points=8)
    with pytest.raises(ValueError, match="'batch_size' to be >= 1"):
        ShapeDataModule(shapes, batch_size=0)
    data = ShapeDataModule(shapes)
    with pytest.raises(ValueError, match="to have a test split"):
        data.test_dataloader()
    with pytest.raises(ValueError, match="'predict' to be a data set"):
        data.predict_dataloader()
