"""From a folder of shape files to a saved adapter, and from that to a prediction for one file.

    python examples/own_folder.py --root shapes/ --file shapes/bolt/7.stl [--weights WEIGHTS]

``--root`` holds a folder per class, and ``--weights`` names weights that ship with the package, or
a file of the authors; "random" is an untrained encoder. Without a folder one is made here.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import RandomSampler
from torch_geometric.loader import DataLoader

from pyg_peft import PeftModel, PointPEFTConfig, get_peft_model
from pyg_peft.backbones import PointMAE
from pyg_peft.checkpoint import read_adapter
from pyg_peft.datasets import ProceduralShapes, ShapeFolder, read_points, train_val_split
from pyg_peft.trainable import trainable_parameters
from pyg_peft.training import EvenBatches, Preprocessing

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--root")
parser.add_argument("--file")
parser.add_argument("--weights", default="point-mae-tiny")
parser.add_argument("--epochs", type=int, default=6)
parser.add_argument("--shapes", type=int, default=240)
args = parser.parse_args()
if args.root is None:
    args.root = "shapes"
    for number, data in enumerate(made := ProceduralShapes(num_shapes=args.shapes)):
        folder = Path(args.root, made.class_names[int(data.y)])
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{number}.npy", data.pos.numpy())


def open_backbone(num_classes: int) -> PointMAE:
    """The encoder that stays frozen, the same each time but for its head."""
    if args.weights == "random":
        torch.manual_seed(0)
        sizes = {"embed_dim": 48, "depth": 2, "num_heads": 3, "num_centers": 16, "patch_size": 16}
        return PointMAE(num_classes, **sizes)
    if Path(args.weights).is_file():
        return PointMAE.from_checkpoint(args.weights, num_classes)
    return PointMAE.from_pretrained(args.weights, num_classes)


# Train: parsed once and kept beside the files; each cloud is then prepared as this says.
prepare = Preprocessing(num_points=1024)
shapes: Any = ShapeFolder(args.root, num_points=None, transform=prepare.evaluation())
train_rows, val_rows = train_val_split(shapes.labels, fraction=0.2)
train, val = shapes[train_rows], shapes[val_rows]
model = get_peft_model(open_backbone(shapes.num_classes), PointPEFTConfig(k=4)).train()
optimizer = torch.optim.AdamW([p for _, p in trainable_parameters(model)], lr=2e-3)
for _ in range(args.epochs):
    for data in DataLoader(train, batch_sampler=EvenBatches(RandomSampler(train), 16)):
        loss = cross_entropy(model(pos=data.pos, batch=data.batch), data.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
model.eval()
with torch.no_grad():
    hits = [model(pos=d.pos, batch=d.batch).argmax(1) == d.y for d in DataLoader(val, 50)]
print(f"{100 * float(torch.cat(hits).float().mean()):.1f} % of {len(val)} shapes kept back")
model.save_pretrained("adapter", class_names=shapes.class_names, preprocessing=prepare.to_dict())

# Predict: the folder of the adapter knows the classes and how clouds were prepared.
config = read_adapter("adapter").config
names, prepare = config["class_names"], Preprocessing.from_dict(config["preprocessing"])
model = PeftModel.from_pretrained(open_backbone(len(names)), "adapter")
file = args.file or Path(args.root, shapes.files[int(val_rows[0])])
with torch.no_grad():
    probability, best = model(pos=prepare.evaluation()(read_points(file)).pos).softmax(1).max(1)
print(f"{file}: {names[int(best)]}, {100 * float(probability):.1f} %")
