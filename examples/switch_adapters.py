"""Two tasks, two adapters on one frozen base: add, switch, disable, save, delete, load.

    python examples/switch_adapters.py [--data FILE.npz] [--weights WEIGHTS]

``--weights`` names weights that ship with the package, or a file of the authors; "random" is an
untrained encoder. The tasks are the two halves of the classes; without a file, of shapes made here.
"""

import argparse
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import RandomSampler
from torch_geometric.loader import DataLoader

from pyg_peft import LoRAConfig, PeftModel, PointPEFTConfig, get_peft_model
from pyg_peft.backbones import PointMAE
from pyg_peft.datasets import FewShotSubset, NpzShapes, ProceduralShapes
from pyg_peft.trainable import trainable_parameters
from pyg_peft.training import EvenBatches

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data")
parser.add_argument("--weights", default="point-mae-tiny")
parser.add_argument("--epochs", type=int, default=6)
parser.add_argument("--shapes", type=int, default=240)
args = parser.parse_args()


def load(split: str, half: int) -> FewShotSubset:
    """The shapes of one half of the classes, which are numbered from 0."""
    data = args.data
    shapes = NpzShapes(data, split) if data else ProceduralShapes(split, args.shapes)
    classes = torch.arange(shapes.num_classes).chunk(2)[half]
    rows = torch.isin(shapes.labels, classes).nonzero().flatten()
    return FewShotSubset(shapes, rows, classes.tolist())


def train(model: PeftModel, dataset: FewShotSubset) -> None:
    """Train the active adapter; all others rest."""
    optimizer = torch.optim.AdamW([p for _, p in trainable_parameters(model)], lr=2e-3)
    model.train()
    for _ in range(args.epochs):
        for data in DataLoader(dataset, batch_sampler=EvenBatches(RandomSampler(dataset), 16)):
            loss = cross_entropy(model(pos=data.pos, batch=data.batch), data.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@torch.no_grad()
def accuracy(model: PeftModel, dataset: FewShotSubset) -> str:
    """Share of a data set that the active adapter classifies right."""
    model.eval()
    hits = [model(pos=d.pos, batch=d.batch).argmax(1) == d.y for d in DataLoader(dataset, 50)]
    return f"{100 * float(torch.cat(hits).float().mean()):.1f} %"


torch.manual_seed(0)
first, second = load("train", 0), load("train", 1)
if args.weights == "random":
    base = PointMAE(2, embed_dim=48, depth=2, num_heads=3, num_centers=16, patch_size=16)
elif Path(args.weights).is_file():
    base = PointMAE.from_checkpoint(args.weights, num_classes=2)
else:
    base = PointMAE.from_pretrained(args.weights, num_classes=2)
model = get_peft_model(base, PointPEFTConfig(num_classes=first.num_classes, k=4), "first")
train(model, first)
model.add_adapter("second", LoRAConfig(num_classes=second.num_classes))
train(model, second)  # "first" rests

for half, name in enumerate(("first", "second")):
    model.set_adapter(name)
    print(f"{name}: {accuracy(model, load('test', half))}")
    model.save_pretrained(f"adapters/{name}")
with model.disable_adapter():
    print("base alone:", tuple(model(pos=first.get(0).pos).shape))  # its own two scores
model.delete_adapter("first")
model.load_adapter("adapters/first", "again")
print(f"first, loaded: {accuracy(model, load('test', 0))} (adapters: {[*model.peft_config]})")
