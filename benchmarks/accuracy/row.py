"""One row: a training run from the plan's weights to the numbers that the table needs."""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from backbones import RANDOM
from cases import open_case
from plan import Plan, Row, sizes_of
from provenance import describe, fit_options
from torch import nn
from torch_geometric.data import Batch

from pyg_peft.checkpoint import fingerprint
from pyg_peft.cli.method import make_model
from pyg_peft.loading import open_backbone
from pyg_peft.model import PeftModel
from pyg_peft.nn import MemoryBank
from pyg_peft.trainable import trainable_parameters
from pyg_peft.training.comparing.features import SharedFeatures, can_cache
from pyg_peft.training.fitting.data_module import ShapeDataModule
from pyg_peft.training.fitting.run import fit
from pyg_peft.training.tasks.classification import Evaluation
from pyg_peft.training.tasks.segmentation import PartEvaluation

# All else in a configuration decides which clouds and views there are.
OF_A_METHOD = {"method", "settings", "bank", "epochs", "lr"}
TRAINER = {
    "enable_model_summary": False,
    "enable_progress_bar": False,
    "accelerator": "cpu",
    "barebones": False,
}


def run_row(plan: Plan, row: Row, folder: Path) -> dict[str, Any]:
    """Train, choose the epoch on validation, and test it.

    Args:
        plan: that the row is part of.
        row: to run.
        folder: keeps frozen features for other rows on the same clouds.
    """
    torch.set_num_threads(1)
    started, begun, config = time.monotonic(), time.process_time(), plan.config(row)
    data = open_clouds(plan, row)
    model = open_model(plan, row, data)
    origin = describe(plan, row)  # of the code that trains, whatever is committed meanwhile
    clouds = {key: value for key, value in config.items() if key not in OF_A_METHOD}
    shared = SharedFeatures(model, clouds, folder) if can_cache(model, data) else None
    body = {k: t for k, t in model.base.state_dict().items() if _is_body(k)}
    with tempfile.TemporaryDirectory() as scratch:
        report = fit(
            model,
            data,
            scratch,
            options=fit_options(row),
            caches=None if shared is None else shared.caches,
            trainer={**TRAINER, "max_epochs": config["epochs"]},
        )
        files = {path.name: path.stat().st_size for path in Path(scratch).glob("*.safetensors")}
    if report.test is None or data.test_set is None:
        raise ValueError("Expected the case to have a test split (got none)")
    if report.val is None:
        raise ValueError("Expected the case to have clouds to validate on (got none)")
    if shared is not None:
        shared.save()
    counts = model.count_parameters()
    curve = report.curves[f"val_{data.task.monitor}"]
    return {
        "config": config,
        "clouds": {
            "train": len(data.train_set),
            "val": len(data.val_set),
            "test": len(data.test_set),
        },
        "classes": list(data.class_names),
        "kept_epoch": report.epoch,  # from 1; "epoch" of earlier rows counts from 0
        "val": {**_numbers(report.val), "loss": report.curves["val_loss"][report.epoch - 1]},
        "test": _numbers(report.test),
        "val_curve": [round(value, 4) for value in curve],
        "batch_of_one": compare_batch_of_one(model, data),
        "parameters": {
            "trainable": counts.trainable,
            "without_head": counts.without_head,
            "frozen": counts.frozen,
            "decoder": count_trained(model, "decoder"),
            "head": count_trained(model, "head"),
        },
        "adapter_bytes": files.pop("adapter_model.safetensors"),
        "bank_bytes": sum(files.values()),
        "features_found": {} if shared is None else shared.found,
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time() - begun, 1),
        "base_fingerprint": fingerprint(body),
        **origin,
    }


def open_clouds(plan: Plan, row: Row) -> ShapeDataModule:
    """The row's splits, turned as its backbone was trained."""
    backbone, task = plan.backbone(row.slot.task), plan.tasks[row.slot.task]
    axes = (0, 1, 2) if backbone is None else backbone.axes
    return open_case(plan.data, task, row.slot, plan.config(row)["training"], axes)


def open_model(plan: Plan, row: Row, data: ShapeDataModule) -> PeftModel:
    """The row's model before its training, with a bank of ``data`` if it takes one."""
    config = plan.config(row)
    base = open_base(plan, row, config["weights"], data.num_classes)
    bank = MemoryBank.from_loader(base, data.bank_dataloader()) if config["bank"] else None
    return make_model(base, config["method"], config["settings"], bank, row.slot.seed)


def open_base(plan: Plan, row: Row, weights: str, num_classes: int) -> nn.Module:
    """The row's frozen backbone, with a fresh head."""
    backbone, seed = plan.backbone(row.slot.task), row.slot.seed
    if backbone is not None:
        return backbone.open(num_classes, seed, scratch=weights == RANDOM)
    return open_backbone(weights, num_classes, sizes_of(weights, plan.sizes), seed)


def count_trained(model: PeftModel, part: str) -> int:
    """Trained parameters in a child of the base; the library's count without the head is without
    all that ``modules_to_save`` names.
    """
    trained = trainable_parameters(model.base)
    return sum(p.numel() for name, p in trained if name.split(".")[0] == part)


def compare_batch_of_one(
    model: PeftModel, data: ShapeDataModule, count: int = 64
) -> dict[str, Any]:
    """Probabilities of test clouds, evenly spread over the set, in one batch and one by one."""
    test: Any = data.test_set
    rows = torch.linspace(0, len(test) - 1, min(count, len(test))).long().tolist()
    clouds = [test[number] for number in rows]
    alone = [_batch_of([cloud]) for cloud in clouds]
    batched, single = (
        torch.cat([found for _, found in data.task.predict(model, batches)])
        for batches in ([_batch_of(clouds)], alone)
    )
    return {
        "clouds": len(clouds),
        "other_classes": int((single.argmax(dim=1) != batched.argmax(dim=1)).sum()),
        "largest_difference": float((single - batched).abs().max()),
    }


def _batch_of(clouds: list[Any]) -> Any:
    return Batch.from_data_list(clouds)


def _numbers(found: Evaluation) -> dict[str, Any]:
    ious = found.ious() if isinstance(found, PartEvaluation) else {}
    return {
        **{name: round(value, 6) for name, value in ious.items()},
        "accuracy": round(found.accuracy, 6),
        "macro_accuracy": round(found.macro_accuracy, 6),
        "confusion": found.confusion.tolist(),
    }


def _is_body(key: str) -> bool:
    parts = key.split(".")
    return "peft" not in parts and parts[0] not in ("head", "decoder")
