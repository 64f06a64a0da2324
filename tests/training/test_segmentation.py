import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.datasets import ShapeNet
from torch_geometric.loader import DataLoader

from pyg_peft import LoRAConfig, MemoryBank, PeftModel, PointPEFTConfig, get_peft_model
from pyg_peft.backbones import PointMAESegmentation
from pyg_peft.datasets import NpzShapes, PartLabels, Resample
from pyg_peft.training.tasks.segmentation import evaluate_parts

SIZES: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 3}
HEAD: dict[str, Any] = {
    "num_centers": 8,
    "patch_size": 8,
    "num_levels": 2,
    "head_channels": 64,
    "head_dropout": 0.0,
}


def halves(num_points: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A ragged cloud whose upper half is another part than its lower one."""
    points = np.random.default_rng(seed).uniform(-1, 1, (num_points, 3))
    return points, (points[:, 2] > 0).astype(np.int64)


def write_npz(path: Path) -> Path:
    clouds, labels = zip(*(halves(40 + 3 * n, n) for n in range(16)), strict=True)
    offsets = np.cumsum([0, *(len(cloud) for cloud in clouds)])
    np.savez(
        path,
        xyz=np.concatenate(clouds).astype(np.float32),
        offsets=offsets,
        seg=np.concatenate(labels),
        label=np.arange(16) % 2,
        class_names=np.array(["lamp", "mug"]),
        part_names=np.array(["bottom", "top"]),
        split=np.array([0] * 12 + [1] * 4),
    )
    return path


def write_shapenet(root: Path) -> Path:
    """The raw tree that PyG's ``ShapeNet`` reads: two categories, three numbers of parts."""
    raw = root / "raw"
    for synset in ShapeNet.category_ids.values():
        (raw / synset).mkdir(parents=True)
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for category, first, count in (("Cap", 6, 6), ("Knife", 22, 6)):
        synset = ShapeNet.category_ids[category]
        for number in range(count):
            points, part = halves(30 + number, number)
            rows = np.concatenate([points, np.zeros((len(points), 3)), first + part[:, None]], 1)
            np.savetxt(raw / synset / f"{number}.txt", rows, fmt="%.6f")
            split = "train" if number < 4 else ("val" if number == 4 else "test")
            lists[split].append(f"shape_data/{synset}/{number}")
    (raw / "train_test_split").mkdir()
    for split, names in lists.items():
        path = raw / "train_test_split" / f"shuffled_{split}_file_list.json"
        path.write_text(json.dumps(names))
    return root


def new_model(num_classes: int, num_categories: int, bank: MemoryBank | None = None) -> PeftModel:
    torch.manual_seed(0)
    base = PointMAESegmentation(num_classes, **SIZES, **HEAD, num_categories=num_categories)
    if bank is None:
        return get_peft_model(base, LoRAConfig(rank=2))
    config = PointPEFTConfig(
        bottleneck_channels=4, num_prompts=4, attention_channels=6, attention_heads=3, k=4
    )
    return get_peft_model(base, config, memory_bank=bank)


def test_npz_shapes_as_parts(tmp_path):
    dataset = PartLabels(NpzShapes(write_npz(tmp_path / "set.npz"), "train"))
    assert dataset.part_names == dataset.class_names == ("bottom", "top")
    assert dataset.category_names == ("lamp", "mug")
    assert dataset.parts == ((0, 1), (0, 1))
    assert dataset.labels.tolist() == [0, 1] * 6
    part: Any = dataset[3:]
    item: Any = part[0]
    assert item.y.shape == (49,)
    assert (item.category.tolist(), item.sample_id.tolist()) == ([1], [3])
    assert "seg" not in item
    few: Any = Resample(7)(item)
    assert (few.y == (few.pos[:, 2] > item.pos[item.y == 0][:, 2].max()).long()).all()


def test_shapenet_as_parts(tmp_path):
    raw = ShapeNet(str(write_shapenet(tmp_path)), split="train", include_normals=False)
    dataset = PartLabels(raw)
    assert dataset.num_classes == 50
    assert dataset.part_names[6:8] == ("Cap 0", "Cap 1")
    assert dataset.parts[raw.categories.index("Knife")] == (22, 23)
    assert sorted(set(dataset.labels.tolist())) == [2, 7]
    item: Any = dataset[0]
    assert item.y.shape == (item.num_nodes,)
    assert item.sample_id.tolist() == [0]


def test_lists_and_errors():
    items = [Data(pos=torch.rand(4, 3), seg=torch.tensor([0, 1, 1, 0]))]
    dataset = PartLabels(items, parts=[[0, 1]])
    assert (dataset.part_names, dataset.category_names) == (("0", "1"), ("all",))
    with pytest.raises(ValueError, match="a label per point in 'seg' or 'y'"):
        PartLabels([Data(pos=torch.rand(4, 3), y=torch.tensor([1]))])
    with pytest.raises(ValueError, match=r"row for each of 1 categories \(got 2\)"):
        PartLabels(items, parts=[[0], [1]])
    with pytest.raises(ValueError, match="labels below 2 for every category"):
        PartLabels(items, parts=[[2]])
    with pytest.raises(ValueError, match="'dataset' to have items"):
        PartLabels([])


def test_batch_size_does_not_matter(tmp_path):
    dataset = PartLabels(NpzShapes(write_npz(tmp_path / "set.npz")))
    model = new_model(2, num_categories=2)
    results = [
        evaluate_parts(model, DataLoader(dataset, batch_size=size), dataset.parts, 2)  # pyright: ignore[reportArgumentType]
        for size in (1, 5, 16)
    ]
    for other in results[1:]:
        assert torch.equal(results[0].confusion, other.confusion)
        assert torch.equal(results[0].shape_iou, other.shape_iou)
    result = results[0]
    assert result.count == sum(40 + 3 * n for n in range(16))
    assert result.class_iou == pytest.approx(result.instance_iou)
    assert result.mean_iou == pytest.approx(float(result.part_iou.mean()))
    assert "16 clouds" in str(result)


@pytest.mark.parametrize("kind", ["npz", "shapenet"])
def test_fit_learns_and_evaluates(kind: str, tmp_path):
    pytest.importorskip("lightning", reason="lightning is not installed")
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    from pyg_peft.training import SegmentationDataModule
    from pyg_peft.training.fitting.run import FitOptions, fit

    if kind == "npz":
        spec, data_args = str(write_npz(tmp_path / "set.npz")), {}
    else:
        spec = f"shapenet:{write_shapenet(tmp_path / 'set')}"
        data_args = {"categories": ["Cap", "Knife"]}
    data = SegmentationDataModule.from_source(spec, data_args=data_args, batch_size=4)
    told = data.num_categories if kind == "shapenet" else 0
    bank = None
    if kind == "npz":
        torch.manual_seed(0)
        plain = PointMAESegmentation(2, **SIZES, **HEAD)
        bank = MemoryBank.from_loader(plain, data.bank_dataloader())
    model = new_model(data.num_classes, told, bank)
    settings = {"max_epochs": 16, "enable_progress_bar": False, "enable_model_summary": False}
    options = FitOptions(lr=2e-2, logger="none", label_smoothing=0.0)
    report = fit(model, data, tmp_path / "run", options=options, trainer=settings)
    assert report.test is not None
    losses, shares = report.curves["train_loss"], report.curves["train_accuracy"]
    assert losses[-1] < 0.75 * losses[0]
    assert shares[-1] > 0.7
    again = data.task.evaluate(model, data.test_dataloader())
    assert torch.equal(again.confusion, report.test.confusion)
    assert max(report.curves["val_instance_iou"]) == pytest.approx(
        report.val.instance_iou  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
    )
    saved = json.loads((tmp_path / "run" / "adapter_config.json").read_text())
    assert saved["class_names"] == list(data.class_names)


def test_a_cache_changes_nothing(tmp_path):
    pytest.importorskip("lightning", reason="lightning is not installed")
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    from pyg_peft.training import FeatureCache, SegmentationDataModule, SegmentationModule

    data = SegmentationDataModule(NpzShapes(write_npz(tmp_path / "set.npz")), batch_size=4)
    model = new_model(2, num_categories=2)
    batch = next(iter(data.val_dataloader()))
    plain = SegmentationModule(model, data.parts, 2)
    cached = SegmentationModule(model, data.parts, 2, caches={"val": FeatureCache(model)})
    model.eval()
    with torch.no_grad():
        assert torch.equal(cached(batch, "val"), plain(batch, "val"))
