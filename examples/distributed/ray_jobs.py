"""Many adapters at once over one cache of frozen features, as jobs of Ray.

    python examples/distributed/ray_jobs.py [--epochs 8] [--shapes 96] [--output jobs]

The frozen encoder embeds each view of each cloud once. Each job then trains one method with one
learning rate on the cached features. Needs Ray (extra ``scale``). On several nodes, ``--output``
must be a folder that all of them see.
"""

# The packages of the extra `scale` may be missing where types are checked.
# pyright: reportMissingImports=false, reportFunctionMemberAccess=false

import argparse
from pathlib import Path
from typing import Any

import ray
import torch

from pyg_peft import LinearProbeConfig, LoRAConfig, PeftModel, PointPEFTConfig, get_peft_model
from pyg_peft.backbones import PointMAE
from pyg_peft.datasets import ProceduralShapes, ScaleTranslate
from pyg_peft.training import FeatureCache, FitOptions, Preprocessing, ShapeDataModule, fit
from pyg_peft.tuners import MethodConfig

NUM_VIEWS = 2
METHODS: dict[str, MethodConfig] = {
    "linear_probe": LinearProbeConfig(),
    "lora": LoRAConfig(rank=4),
    "point_peft": PointPEFTConfig(k=4),
}


def open_data(shapes: int) -> ShapeDataModule:
    """Return the same data in each job."""
    return ShapeDataModule(
        ProceduralShapes("train", num_shapes=shapes),
        ProceduralShapes("val", num_shapes=shapes // 2),
        preprocessing=Preprocessing(num_points=512),
        augmentation=ScaleTranslate(),
        num_views=NUM_VIEWS,
    )


def open_model(data: ShapeDataModule, config: MethodConfig) -> PeftModel:
    """Return the same base in each job, and a new adapter."""
    torch.manual_seed(0)
    return get_peft_model(PointMAE.from_pretrained("point-mae-tiny", data.num_classes), config)


def open_caches(model: PeftModel) -> dict[str, FeatureCache]:
    """Return an empty cache for each stage."""
    return {stage: FeatureCache(model, f"{stage}: {NUM_VIEWS} views") for stage in ("train", "val")}


def fill(folder: Path, shapes: int) -> None:
    """Embed each view of each cloud once, and write the features to files."""
    data = open_data(shapes)
    caches = open_caches(open_model(data, LinearProbeConfig()))
    for view in range(NUM_VIEWS):
        data.train_set.set_epoch(view)
        for batch in data.train_dataloader():
            caches["train"](batch)
    for batch in data.val_dataloader():
        caches["val"](batch)
    for stage, cache in caches.items():
        cache.save(folder / f"{stage}.cache")


@ray.remote(num_cpus=1)  # on the CPU: the features are there, and only small parts are trained
def job(folder: Path, shapes: int, epochs: int, method: str, lr: float) -> dict[str, Any]:
    """Train one adapter on the cached features."""
    torch.set_num_threads(1)
    data = open_data(shapes)
    model = open_model(data, METHODS[method])
    caches = open_caches(model)
    for stage, cache in caches.items():
        cache.load(folder / f"{stage}.cache")
    sizes = {stage: len(cache) for stage, cache in caches.items()}
    report = fit(
        model,
        data,
        folder / f"{method}_{lr:g}",
        options=FitOptions(lr=lr, logger="none"),
        caches=caches,
        trainer={"max_epochs": epochs, "enable_progress_bar": False, "accelerator": "cpu"},
    )
    return {
        "method": method,
        "lr": lr,
        "val": report.val.accuracy,
        "embedded": sum(len(cache) - sizes[stage] for stage, cache in caches.items()),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--shapes", type=int, default=96)
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-4, 2e-3])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--output", default="jobs")
    args = parser.parse_args()
    folder = Path(args.output).resolve()  # jobs run in another folder
    folder.mkdir(parents=True, exist_ok=True)
    fill(folder, args.shapes)

    ray.init(ignore_reinit_error=True)  # the cluster of RAY_ADDRESS, or this machine
    jobs = [
        job.remote(folder, args.shapes, args.epochs, method, lr)
        for method in args.methods
        for lr in args.rates
    ]
    for found in sorted(ray.get(jobs), key=lambda job: -job["val"]):
        print(
            f"{found['method']:12s} lr {found['lr']:<8g} validation {100 * found['val']:5.1f} %   "
            f"clouds embedded again: {found['embedded']}"
        )
    ray.shutdown()
