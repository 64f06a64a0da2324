"""Train PointNet++ on whole shapes of ModelNet10; tune it, frozen, to shapes seen from one side.

    python examples/modelnet_pointnet2.py --data data/ModelNet10 [--epochs 6]

The folder is PyG's; an .npz file will do too. Without either, shapes are made here.
"""

import argparse
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import RandomSampler
from torch_geometric.data import Data
from torch_geometric.datasets import ModelNet
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import Compose

from pyg_peft import LoRAConfig, PeftModel, PointPEFTConfig, get_peft_model
from pyg_peft.backbones import PointNetPlusPlus
from pyg_peft.datasets import NpzShapes, ProceduralShapes
from pyg_peft.trainable import trainable_parameters
from pyg_peft.training import EvenBatches, Preprocessing

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data")
parser.add_argument("--epochs", type=int, default=6)
parser.add_argument("--shapes", type=int, default=240)
args = parser.parse_args()


def one_side(data: Any) -> Data:
    """Keep what faces a scanner that stands in front."""
    return Data(pos=data.pos[data.pos[:, 1] < 0], y=data.y)


def load(split: str, *scanned: Any) -> Any:
    """A split of the data; 256 points of each shape, drawn from the faces of meshes."""
    seen = Compose([Preprocessing(num_points=256).evaluation(), *scanned])
    if args.data is None:
        return ProceduralShapes(split, args.shapes, transform=seen)
    if args.data.endswith(".npz"):
        return NpzShapes(args.data, split, transform=seen)
    return ModelNet(args.data, "10", train=split == "train", transform=seen)


def train(model: nn.Module, dataset: Any) -> None:
    """A plain loop over whatever is trainable: all of a backbone, or an adapter and its head."""
    optimizer = torch.optim.AdamW([p for _, p in trainable_parameters(model)], lr=2e-3)
    model.train()
    for _ in range(args.epochs):
        for data in DataLoader(dataset, batch_sampler=EvenBatches(RandomSampler(dataset), 16)):
            loss = cross_entropy(model(pos=data.pos, batch=data.batch), data.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, dataset: Any) -> str:
    """Share of a data set that is classified right."""
    model.eval()
    hits = [model(pos=d.pos, batch=d.batch).argmax(1) == d.y for d in DataLoader(dataset, 16)]
    return f"{100 * float(torch.cat(hits).float().mean()):.1f} %"


torch.manual_seed(0)
scans, test = load("train", one_side), load("test", one_side)
backbone = PointNetPlusPlus(scans.num_classes, num_centers=(64, 16), radii=(0.3, 0.6))
train(backbone, load("train"))
print(f"whole: {accuracy(backbone, load('test'))}, from one side: {accuracy(backbone, test)}")
levels = ("levels.0", "levels.1")  # the last one sees whole clouds, without neighborhoods
for config in (PointPEFTConfig(target_modules=levels, k=8), LoRAConfig(target_modules=levels)):
    model = get_peft_model(backbone, config)
    model.print_trainable_parameters()
    train(model, scans)
    model.save_pretrained(config.method)
    model = PeftModel.from_pretrained(model.unload(), config.method)
    print(f"from one side, {config.method}: {accuracy(model, test)}")
    backbone = model.unload()  # bit for bit
