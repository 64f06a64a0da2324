"""Your own Lightning trainer in the workers of Ray Train, with Ray's checkpoints.

    python examples/distributed/ray_lightning.py [--workers 2] [--epochs 4] [--output adapter]

Needs Ray (extra ``scale``). ``ray_fit.py`` is shorter; use this one if Ray is to keep checkpoints
and restart workers, or if you need callbacks of your own.
"""

# The packages of the extra `scale` may be missing where types are checked.
# pyright: reportMissingImports=false

import argparse
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from lightning import Trainer
from ray.train.lightning import (
    RayDDPStrategy,
    RayLightningEnvironment,
    RayTrainReportCallback,
    prepare_trainer,
)
from ray.train.torch import TorchTrainer

from pyg_peft import LoRAConfig, get_peft_model
from pyg_peft.backbones import PointMAE
from pyg_peft.datasets import ProceduralShapes, ScaleTranslate
from pyg_peft.training import PeftModule, Preprocessing, ShapeDataModule


def train(config: dict[str, Any]) -> None:
    """Run in each worker."""
    data = ShapeDataModule(
        ProceduralShapes("train", num_shapes=config["shapes"]),
        ProceduralShapes("val", num_shapes=config["shapes"] // 2),
        preprocessing=Preprocessing(num_points=512),
        augmentation=ScaleTranslate(),
        batch_size=config["batch_size"],
    )
    torch.manual_seed(0)  # the same adapter in each worker
    model = get_peft_model(
        PointMAE.from_pretrained("point-mae-tiny", data.num_classes), LoRAConfig(rank=4)
    )
    trainer = Trainer(
        max_epochs=config["epochs"],
        strategy=RayDDPStrategy(),
        plugins=[RayLightningEnvironment()],
        callbacks=[RayTrainReportCallback()],
        use_distributed_sampler=False,  # the data module divides the epoch
        enable_checkpointing=False,
        enable_progress_bar=False,
        logger=False,
    )
    prepare_trainer(trainer).fit(PeftModule(model, data.task, lr=2e-3), datamodule=data)
    if trainer.is_global_zero:  # the last epoch; Ray has a checkpoint of each
        model.save_pretrained(config["output"], class_names=data.class_names)


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
    result = TorchTrainer(
        train,
        train_loop_config=vars(args),
        scaling_config=ray.train.ScalingConfig(
            num_workers=args.workers, use_gpu=torch.cuda.is_available()
        ),
        run_config=ray.train.RunConfig(
            storage_path=str(Path(args.output).parent / "ray"),
            failure_config=ray.train.FailureConfig(max_failures=1),
        ),
    ).fit()
    assert result.metrics is not None and result.checkpoint is not None
    print(
        f"{args.workers} workers   validation {100 * result.metrics['val_accuracy']:.1f} %   "
        f"adapter: {args.output}"
    )
    ray.shutdown()
