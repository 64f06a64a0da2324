"""Linear probe of a pre-trained Point-MAE on ModelNet10, everything chosen on a validation split.

    python benchmarks/accuracy/linear_probe.py --backbone runs/pretrain_trial/checkpoint.pth

Frozen features: the summary token, the maximum and the mean of the normalised patch tokens. A
linear layer with a penalty on its weights is fitted to them by L-BFGS; the penalty is the one that
is best on a validation split of the training set. The test split is looked at once, at the end.
"""

import argparse
import json
import time

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_peft.backbones import PointMAE
from pyg_peft.training.data import ShapeDataModule
from pyg_peft.training.preprocessing import Preprocessing

PENALTIES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)


@torch.no_grad()
def extract(model: PointMAE, loader) -> tuple[Tensor, Tensor]:
    model.eval()
    features, labels = [], []
    for data in loader:
        patches = model.make_patches(data.pos, data.batch, data.num_graphs)
        x = model.forward_features(patches)
        tokens = x[:, 1:]
        parts = [x[:, 0], tokens.amax(dim=1), tokens.mean(dim=1), model.forward_query(patches)]
        features.append(torch.cat(parts, dim=-1))
        labels.append(data.y)
    return torch.cat(features), torch.cat(labels)


def fit(x: Tensor, y: Tensor, num_classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    weight = torch.zeros(x.size(1), num_classes, requires_grad=True)
    bias = torch.zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight + bias, y) + penalty * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]
    return weight.detach(), bias.detach()


def accuracy(x: Tensor, y: Tensor, model: tuple[Tensor, Tensor]) -> float:
    return float(((x @ model[0] + model[1]).argmax(dim=1) == y).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default=None, help="checkpoint; leave out for random weights")
    parser.add_argument("--data", default="../shared/data/modelnet10/modelnet10.npz")
    parser.add_argument("--num_centers", type=int, default=32)
    parser.add_argument("--num_points", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=None, help="clouds per class, for a look")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    started = time.time()
    data = ShapeDataModule.from_source(
        args.data, data_args={}, preprocessing=Preprocessing(args.num_points), seed=args.seed
    )
    if args.backbone is None:
        model = PointMAE(data.num_classes, 192, 6, 6, args.num_centers, 32)
    else:
        model = PointMAE.from_checkpoint(
            args.backbone, data.num_classes, num_heads=6, num_centers=args.num_centers
        )
    loaders = {"val": data.val_dataloader(), "test": data.test_dataloader()}
    train = data.bank_dataloader()  # training samples without augmentation
    x, y = extract(model, train)
    mean, std = x.mean(dim=0), x.std(dim=0) + 1e-6
    x = (x - mean) / std
    held_out = {name: extract(model, loader) for name, loader in loaders.items()}
    held_out = {name: ((a - mean) / std, b) for name, (a, b) in held_out.items()}
    scores = {}
    for penalty in PENALTIES:
        scores[penalty] = accuracy(*held_out["val"], fit(x, y, data.num_classes, penalty))
    best = max(scores, key=lambda penalty: scores[penalty])
    probe = fit(x, y, data.num_classes, best)
    result = {
        "backbone": args.backbone,
        "val": scores,
        "penalty": best,
        "val_accuracy": scores[best],
        "test_accuracy": accuracy(*held_out["test"], probe),
        "test_clouds": len(held_out["test"][1]),
        "seconds": time.time() - started,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
