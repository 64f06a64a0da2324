"""Train a Point Transformer on half of ModelNet10's classes; tune it, frozen, to the other half.

    python examples/modelnet_point_transformer.py --data data/ModelNet10 [--epochs 6]

The folder is PyG's; an .npz file will do too. Without either, shapes are made here.
"""

import argparse

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import RandomSampler
from torch_geometric.datasets import ModelNet
from torch_geometric.loader import DataLoader

from pyg_peft import LoRAConfig, PeftModel, PointPEFTConfig, get_peft_model
from pyg_peft.backbones import PointTransformer
from pyg_peft.datasets import FewShotSubset, NpzShapes, ProceduralShapes, SampleIds, ScaleTranslate
from pyg_peft.trainable import trainable_parameters
from pyg_peft.training import EvenBatches, Preprocessing

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data")
parser.add_argument("--epochs", type=int, default=6)
parser.add_argument("--shapes", type=int, default=240)
args = parser.parse_args()
prepare = Preprocessing(num_points=256)  # drawn from the faces of meshes


def load(split: str, half: int) -> FewShotSubset:
    """The shapes of one half of the classes, which are numbered from 0."""
    is_train = split == "train"
    seen = prepare.training(ScaleTranslate()) if is_train else prepare.evaluation()
    if args.data is None:
        shapes = ProceduralShapes(split, args.shapes, transform=seen)
    elif args.data.endswith(".npz"):
        shapes = NpzShapes(args.data, split, transform=seen)
    else:
        shapes = SampleIds(ModelNet(args.data, "10", train=is_train, transform=seen))
    classes = torch.arange(shapes.num_classes).chunk(2)[half]
    rows = torch.isin(shapes.labels, classes).nonzero().flatten()
    return FewShotSubset(shapes, rows, classes.tolist())


def train(model: nn.Module, dataset: FewShotSubset) -> None:
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
def accuracy(model: nn.Module, dataset: FewShotSubset) -> str:
    """Share of a data set that is classified right."""
    model.eval()
    hits = [model(pos=d.pos, batch=d.batch).argmax(1) == d.y for d in DataLoader(dataset, 16)]
    return f"{100 * float(torch.cat(hits).float().mean()):.1f} %"


torch.manual_seed(0)
others, task, test = load("train", 0), load("train", 1), load("test", 1)
backbone = PointTransformer(others.num_classes, channels=(32, 64, 128), depths=(1,) * 3, k=(8,) * 3)
train(backbone, others)
print("first half of the classes:", accuracy(backbone, load("test", 0)))

levels, classes = ("levels.*",), task.num_classes
point_peft = PointPEFTConfig(target_modules=levels, num_classes=classes, k=8)
for config in (point_peft, LoRAConfig(target_modules=levels, num_classes=classes)):
    model = get_peft_model(backbone, config)
    model.print_trainable_parameters()
    train(model, task)
    model.save_pretrained(config.method, class_names=task.class_names)
    model = PeftModel.from_pretrained(model.unload(), config.method)
    print(f"second half, {config.method}: {accuracy(model, test)}")
    backbone = model.unload()  # as it was, bit for bit
