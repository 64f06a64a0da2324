"""Linear probes of frozen Point-MAE features on ModelNet10, everything chosen on validation.

    python benchmarks/accuracy/linear_probe.py --backbone random --seed 0
    python benchmarks/accuracy/linear_probe.py --backbone point-mae-tiny

Two kinds of features: ``head``, what the model's own head is given (the summary token beside the
maximum of the normalized patch tokens), and ``all``, with their mean and the bank's query besides.
A linear layer with a penalty on its weights is fitted by L-BFGS to a few training shapes a class,
to more, and to all of them. The penalty is the one that is best on a validation split of the
training set, the same for all of these. The test split is looked at once, with that penalty.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from cases import first_of_each
from finished import write_record
from plan import sizes_of, weights_hash
from plan_file import load_plan
from provenance import origin, sha256
from torch import Tensor

from pyg_peft.backbones import PointMAE
from pyg_peft.backbones.layers.patch_propagation import mean_valid
from pyg_peft.backbones.layers.tokens import max_valid
from pyg_peft.datasets.preprocessing import Preprocessing
from pyg_peft.loading import open_backbone
from pyg_peft.training.evaluation.probe import fit_probe
from pyg_peft.training.fitting.data_module import ShapeDataModule

HERE = Path(__file__).resolve().parent
PENALTIES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
PER_CLASS = (5, 10, 20, 50, None)


@torch.no_grad()
def extract(model: PointMAE, loader) -> tuple[dict[str, Tensor], Tensor]:
    """Features of each kind ``[N, C]`` and labels ``[N]``."""
    model.eval()
    features, labels = [], []
    for data in loader:
        patches = model.make_patches(data.pos, data.batch, data.num_graphs)
        embedded = model.embed(patches)
        x = model.forward_features(patches, tokens=embedded)
        summary, tokens, query = x[:, 0], x[:, 1:], model.forward_query(patches, tokens=embedded)
        pooled = [pool(tokens, patches.mask) for pool in (max_valid, mean_valid)]
        features.append(torch.cat([summary, *pooled, query], dim=-1))
        labels.append(data.y)
    everything = torch.cat(features)
    return {"head": everything[:, : 2 * model.embed_dim], "all": everything}, torch.cat(labels)


def probe(sets: dict[str, tuple[Tensor, Tensor]], num_classes: int) -> dict[str, Any]:
    """Fit on ``train``, choose the penalty on ``val``, look at ``test`` once."""
    best = fit_probe(sets["train"], sets["val"], num_classes, PENALTIES)
    return {
        "train_clouds": len(sets["train"][1]),
        "penalty": best.penalty,
        "val": round(best.val_accuracy, 4),
        "test": round(best.accuracy(*sets["test"]), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="random", help="random, a shipped name, or a file")
    parser.add_argument("--plan", type=Path, default=HERE / "plan.yaml", help="sizes, data, points")
    parser.add_argument("--file", default="modelnet10/modelnet10.npz")
    parser.add_argument("--seed", type=int, default=0, help="of random weights and of the split")
    parser.add_argument("--output", type=Path, default=None, help="by default below results/")
    args = parser.parse_args()
    torch.set_num_threads(1)
    started, plan = time.monotonic(), load_plan(args.plan)
    data = ShapeDataModule.from_source(
        str(plan.data / args.file),
        data_args={},
        preprocessing=Preprocessing(plan.training["num_points"]),
        val_fraction=plan.training["val_fraction"],
        seed=args.seed,
    )
    sizes = sizes_of(args.backbone, plan.sizes)
    model = open_backbone(args.backbone, data.num_classes, sizes, args.seed)
    loaders = {  # training clouds without augmentation
        "train": data.bank_dataloader(),
        "val": data.val_dataloader(),
        "test": data.test_dataloader(),
    }
    found = {name: extract(model, loader) for name, loader in loaders.items()}
    labels = {name: y for name, (_, y) in found.items()}
    probes: dict[str, dict[str, Any]] = {"head": {}, "all": {}}
    for kind, results in probes.items():
        for number in PER_CLASS:
            rows = slice(None) if number is None else first_of_each(labels["train"], number)
            sets = {name: (x[kind], y) for name, (x, y) in found.items()}
            sets["train"] = (sets["train"][0][rows], labels["train"][rows])
            results["all" if number is None else str(number)] = probe(sets, data.num_classes)
    record = {
        "backbone": args.backbone,
        "weights_hash": weights_hash(args.backbone, plan.sizes),
        "file": args.file,
        "num_points": plan.training["num_points"],
        "val_fraction": plan.training["val_fraction"],
        "data_sha256": sha256(plan.data / args.file),
        "seed": args.seed,
        "clouds": {name: len(y) for name, y in labels.items()},
        "probes": probes,
        "penalties": list(PENALTIES),
        **origin(),
        "seconds": round(time.monotonic() - started, 1),
    }
    name = f"{Path(args.backbone).stem}_{Path(args.file).stem}_seed{args.seed}.json"
    output = args.output or HERE / "results" / "linear_probe" / name
    write_record(output, record)
    print(json.dumps(probes, indent=1))


if __name__ == "__main__":
    main()
