"""What ``pyg-peft fit`` does, in the workers of Ray Train, on one node or more.

    python examples/distributed/ray_fit.py [--workers 2] [--epochs 4] [--output adapter]

Needs Ray (extra ``scale``). On several nodes, ``--output`` must be a folder that all of them see.
"""

# The packages of the extra `scale` may be missing where types are checked.
# pyright: reportMissingImports=false

import argparse
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment
from ray.train.torch import TorchTrainer

from pyg_peft import PointPEFTConfig, get_peft_model
from pyg_peft.backbones import PointMAE
from pyg_peft.datasets import ProceduralShapes, ScaleTranslate
from pyg_peft.training import FitOptions, Preprocessing, ShapeDataModule, fit


def train(config: dict[str, Any]) -> None:
    """Run in each worker: train on a share of every epoch; the first worker saves."""
    data = ShapeDataModule(
        ProceduralShapes("train", num_shapes=config["shapes"]),
        ProceduralShapes("val", num_shapes=config["shapes"] // 2),
        preprocessing=Preprocessing(num_points=512),
        augmentation=ScaleTranslate(),
        batch_size=config["batch_size"],
    )
    torch.manual_seed(0)  # the same adapter in each worker
    model = get_peft_model(
        PointMAE.from_pretrained("point-mae-tiny", data.num_classes), PointPEFTConfig(k=4)
    )
    report = fit(
        model,
        data,
        config["output"],
        options=FitOptions(lr=2e-3, logger="none"),
        trainer={
            "max_epochs": config["epochs"],
            "strategy": RayDDPStrategy(),
            "plugins": [RayLightningEnvironment()],
            "enable_progress_bar": False,
        },
    )
    kept = ray.train.Checkpoint.from_directory(config["output"]) if report.is_main else None
    ray.train.report({"val_accuracy": report.val.accuracy, "epoch": report.epoch}, checkpoint=kept)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--shapes", type=int, default=96)
    parser.add_argument("--batch_size", type=int, default=8, help="clouds per step and worker")
    parser.add_argument("--output", default="adapter")
    args = parser.parse_args()
    args.output = str(Path(args.output).resolve())  # workers run in another folder

    ray.init(ignore_reinit_error=True)  # the cluster of RAY_ADDRESS, or this machine
    trainer = TorchTrainer(
        train,
        train_loop_config=vars(args),
        scaling_config=ray.train.ScalingConfig(
            num_workers=args.workers, use_gpu=torch.cuda.is_available()
        ),
        run_config=ray.train.RunConfig(storage_path=str(Path(args.output).parent / "ray")),
    )
    found = trainer.fit().metrics
    assert found is not None
    print(
        f"{args.workers} workers   validation {100 * found['val_accuracy']:.1f} % "
        f"in epoch {found['epoch']}   adapter: {args.output}"
    )
    ray.shutdown()
