"""Training, evaluation and scenes call a model as its own forward wants to be called."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import global_mean_pool

from pyg_peft import LoRAConfig, PeftModel, get_peft_model
from pyg_peft.backbones import DGCNNSegmentation, PointNet
from pyg_peft.datasets import PartLabels
from pyg_peft.testing import randomize_
from pyg_peft.training.evaluation.forward import base_of, forward_batch
from pyg_peft.training.evaluation.scene import score_scene
from pyg_peft.training.tasks.classification import evaluate
from pyg_peft.training.tasks.segmentation import evaluate_parts, score_points


class Named(nn.Module):
    """Scores of points that also see their cloud's mean; or of clouds. As our backbones are called.

    Args:
        pools: whether clouds are scored, not points.
    """

    def __init__(self, pools: bool = False) -> None:
        super().__init__()
        self.pools = pools
        self.lift, self.head = nn.Linear(3, 8), nn.Linear(16, 2)

    def score(self, pos: Tensor, batch: Tensor, size: int | None = None) -> Tensor:
        h = self.lift(pos).relu()
        mean = global_mean_pool(h, batch, size)
        h = torch.cat([h, mean[batch]], dim=1)
        return self.head(global_mean_pool(h, batch, size) if self.pools else h)

    def forward(self, x: Any, pos: Tensor, batch: Tensor, batch_size: int) -> Tensor:
        assert x is None
        return self.score(pos, batch, batch_size)


class Whole(Named):
    def forward(self, data: Any) -> Tensor:
        return self.score(data.pos, data.batch)


class WithFeatures(Named):
    def forward(self, x: Any, pos: Tensor, batch: Any = None) -> Tensor:
        assert x is None
        return self.score(pos, batch)


class WithoutFeatures(Named):
    def forward(self, pos: Tensor, batch: Tensor) -> Tensor:
        return self.score(pos, batch)


every_style = pytest.mark.parametrize("style", [Whole, WithFeatures, WithoutFeatures])


def tuned(style: type[Named], pools: bool = False) -> PeftModel:
    torch.manual_seed(0)
    model = get_peft_model(style(pools), LoRAConfig(rank=2))
    randomize_(model, torch.Generator().manual_seed(0))
    return model


def clouds(count: int = 12) -> list[Data]:
    """Ragged clouds whose upper points are another part; every other cloud is flat."""
    draw = torch.Generator().manual_seed(0)
    items: list[Data] = []
    for number in range(count):
        pos = torch.rand(20 + number, 3, generator=draw) - 0.5
        part = (pos[:, 2] > 0).long()
        pos[:, 2] *= 0.1 if number % 2 else 1.0
        items.append(Data(pos=pos, seg=part, y=torch.tensor([number % 2])))
    return items


def loader(dataset: Any) -> Any:
    return DataLoader(dataset, batch_size=5)


@every_style
def test_evaluation_of_clouds_and_of_parts(style: type[Named]):
    found, expected = (evaluate(tuned(s, True), loader(clouds()), 2) for s in (style, Named))
    assert found.count == 12 and torch.equal(found.confusion, expected.confusion)
    parts = PartLabels(clouds())
    one, other = (evaluate_parts(tuned(s), loader(parts), parts.parts, 2) for s in (style, Named))
    assert torch.equal(one.confusion, other.confusion)
    assert torch.equal(one.shape_iou, other.shape_iou)
    assert 0 < int(one.confusion[:, 1].sum()) < one.count  # both parts are found


@every_style
def test_scenes(style: type[Named]):
    pos = torch.rand(300, 3, generator=torch.Generator().manual_seed(1)) * 4
    found, expected = (score_scene(tuned(s), pos, size=2.0, max_points=64) for s in (style, Named))
    assert torch.equal(found, expected)
    assert found.std() > 1e-3  # not a constant
    plain = score_scene(tuned(style).unload(), pos, size=2.0, max_points=64)
    assert not torch.allclose(plain, found)


@every_style
@pytest.mark.parametrize("pools", [True, False])
def test_fit(style: type[Named], pools: bool, tmp_path):
    pytest.importorskip("lightning", reason="lightning is not installed")
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    from pyg_peft.training import SegmentationDataModule, ShapeDataModule
    from pyg_peft.training.fitting.run import FitOptions, fit

    reports: list[Any] = []
    for kind in (style, Named):
        data: Any
        if pools:
            data = ShapeDataModule(clouds(), test=clouds(), class_names=["a", "b"], batch_size=5)
        else:
            data = SegmentationDataModule(clouds(), test=clouds(), batch_size=5)
        model = tuned(kind, pools)
        settings = {"max_epochs": 8, "enable_progress_bar": False, "enable_model_summary": False}
        options = FitOptions(lr=5e-2, logger="none")
        reports.append(
            fit(model, data, tmp_path / kind.__name__, options=options, trainer=settings)
        )
        again = data.task.evaluate(model, data.test_dataloader())
        assert torch.equal(again.confusion, reports[-1].test.confusion)
    assert reports[0].curves == reports[1].curves
    losses = reports[0].curves["train_loss"]
    assert losses[-1] < 0.95 * losses[0]


def test_our_backbones_are_told_how_many_clouds_there_are():
    torch.manual_seed(0)
    empty = Data(pos=torch.zeros(0, 3))
    batch: Any = Batch.from_data_list([Data(pos=torch.rand(9, 3)), empty])  # type: ignore[arg-type]
    model = get_peft_model(PointNet(4), LoRAConfig(rank=2)).eval()
    logits = forward_batch(model, batch, sample_id=torch.tensor([3, 4]))
    assert logits.shape == (2, 4)
    assert torch.equal(logits, model(None, batch.pos, batch.batch, 2))


@pytest.mark.parametrize("num_categories", [0, 2])
def test_a_category_is_told_to_who_knows_some(num_categories: int):
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"k": 4, "num_categories": num_categories}
    model = get_peft_model(DGCNNSegmentation(2, **sizes), LoRAConfig(rank=2)).eval()
    batch = next(iter(loader(PartLabels(clouds(3)))))
    told = {"category": batch.category} if num_categories else {}
    expected = model(pos=batch.pos, batch=batch.batch, **told)
    assert torch.equal(score_points(model, batch), expected)

    class Knowing(Named):
        def forward(self, pos: Tensor, category: Tensor) -> Tensor:
            return category

    assert score_points(Knowing(), batch) is batch.category


def test_whose_forward_tells_the_arguments():
    model = tuned(WithoutFeatures)
    assert base_of(model) is model.base
    assert base_of(model.base) is model.base
    assert base_of(torch.compile(model)) is model.base  # type: ignore[arg-type]

    class Owner(Named):
        """A model that has a child of the name ``base``, and a forward of its own."""

        def __init__(self) -> None:
            super().__init__()
            self.base = nn.Linear(3, 2)

        def forward(self, pos: Tensor) -> Tensor:
            return self.base(pos)

    batch = next(iter(loader(clouds(2))))
    assert forward_batch(Owner(), batch).shape == (41, 2)


def test_what_a_batch_lacks_is_named():
    class Wants(Named):
        def forward(self, pos: Tensor, edge_index: Tensor) -> Tensor:
            return pos

    model = get_peft_model(Wants(), LoRAConfig(rank=2))
    with pytest.raises(ValueError, match=r"edge_index, which Wants\.forward needs"):
        score_scene(model, torch.rand(9, 3), size=1.0)
