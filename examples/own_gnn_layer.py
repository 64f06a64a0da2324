"""GeometryAwareAdapter in a GNN of one's own: train the GNN, freeze it, adapt it to new classes.

    python examples/own_gnn_layer.py [--data FILE.npz] [--epochs 6]

Without a file, which has the splits "train" and "test", the shapes are made here.
"""

import argparse

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import RandomSampler
from torch_geometric.loader import DataLoader
from torch_geometric.nn import MLP, EdgeConv, PointNetConv, global_max_pool

from pyg_peft import GeometryAwareAdapter
from pyg_peft.datasets import FewShotSubset, NpzShapes, ProceduralShapes
from pyg_peft.geometry import build_structure, knn_graph
from pyg_peft.trainable import count_parameters, freeze, trainable_parameters
from pyg_peft.training import EvenBatches

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data")
parser.add_argument("--epochs", type=int, default=6)
parser.add_argument("--shapes", type=int, default=240)
args = parser.parse_args()


class OwnGNN(nn.Module):
    """Three message-passing layers; the adapter behind each changes nothing until it is trained."""

    def __init__(self, num_classes: int, channels: int = 64) -> None:
        super().__init__()
        edges = [EdgeConv(MLP([2 * channels, channels, channels])) for _ in range(2)]
        self.convs = nn.ModuleList([PointNetConv(MLP([3, channels, channels])), *edges])
        self.adapters = nn.ModuleList(GeometryAwareAdapter(channels) for _ in self.convs)
        self.head = MLP([channels, 64, num_classes], norm=None)

    def forward(self, pos: Tensor, batch: Tensor) -> Tensor:
        edge_index = knn_graph(pos, 8, batch)
        structure = build_structure(pos, batch, k=16)  # once, for all adapters
        x = self.adapters[0](self.convs[0](None, pos, edge_index), structure=structure)
        for conv, adapter in zip(self.convs[1:], self.adapters[1:], strict=True):
            x = adapter(conv(x, edge_index), structure=structure)
        return self.head(global_max_pool(x, batch))


def load(split: str, half: int) -> FewShotSubset:
    """The shapes of one half of the classes, which are numbered from 0."""
    data = args.data
    shapes = NpzShapes(data, split) if data else ProceduralShapes(split, args.shapes, 256)
    classes = torch.arange(len(shapes.class_names)).chunk(2)[half]
    rows = torch.isin(shapes.labels, classes).nonzero().flatten()
    return FewShotSubset(shapes, rows, classes.tolist())


def train_and_test(model: OwnGNN, trained: list[nn.Module], half: int) -> str:
    """Train some parts; the others stay in eval mode, so that their batch norms rest too."""
    freeze(model)
    for part in trained:
        part.requires_grad_(True).train()
    optimizer = torch.optim.AdamW([p for _, p in trainable_parameters(model)], lr=2e-3)
    shapes = load("train", half)
    for _ in range(args.epochs):
        for data in DataLoader(shapes, batch_sampler=EvenBatches(RandomSampler(shapes), 16)):
            loss = cross_entropy(model(data.pos, data.batch), data.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        hits = [model(d.pos, d.batch).argmax(1) == d.y for d in DataLoader(load("test", half), 16)]
    return f"{100 * float(torch.cat(hits).float().mean()):.1f} % of the test set"


torch.manual_seed(0)
model = OwnGNN(load("train", 0).num_classes)
print("first half of the classes:", train_and_test(model, [model.convs, model.head], half=0))
for name, parts in (("head alone", []), ("adapters and head", [model.adapters])):
    model.head = MLP([64, 64, load("train", 1).num_classes], norm=None)
    print(f"second half, {name}:", train_and_test(model, [*parts, model.head], half=1))
print(count_parameters(model))
