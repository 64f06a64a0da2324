"""What ``pyg-peft fit`` does, as a plain loop: tune, choose an epoch by validation, save, load.

    python examples/train_loop.py [--epochs 6] [--data shapes.npz]

The weights and the labeled household shapes ship with the package.
"""

import argparse
import copy
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import RandomSampler
from torch_geometric.loader import DataLoader

from pyg_peft import MemoryBank, PeftModel, PointPEFTConfig, get_peft_model
from pyg_peft.backbones import PointMAE
from pyg_peft.datasets import Augmented, NpzShapes, ScaleTranslate, train_val_split
from pyg_peft.trainable import trainable_parameters
from pyg_peft.training import EvenBatches

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=6)
parser.add_argument("--points", type=int, default=512)
parser.add_argument("--data", default=None, help="a file with the splits train and test")
args = parser.parse_args()

torch.manual_seed(0)
shapes: Any
test: Any
if args.data is None:
    shapes, test = (NpzShapes.furniture(s, num_points=args.points) for s in ("train", "test"))
else:
    shapes, test = (NpzShapes(args.data, s, num_points=args.points) for s in ("train", "test"))
rows, held = train_val_split(shapes.labels, 0.2)
train, val = shapes[rows], shapes[held]
backbone = PointMAE.from_pretrained("point-mae-tiny", num_classes=shapes.num_classes)
fresh = copy.deepcopy(backbone)

bank = MemoryBank.from_loader(backbone, DataLoader(train, batch_size=32))
config = PointPEFTConfig(bottleneck_channels=16, num_prompts=10, k=4)
model = get_peft_model(backbone, config, memory_bank=bank)
model.print_trainable_parameters()

views = Augmented(train, ScaleTranslate())
loader = DataLoader(views, batch_sampler=EvenBatches(RandomSampler(views), 16))
optimizer = torch.optim.AdamW([p for _, p in trainable_parameters(model)], lr=2e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * len(loader))


@torch.no_grad()
def accuracy(model: PeftModel, dataset: Any) -> float:
    """Share of a data set that is classified right."""
    model.eval()
    batches = DataLoader(dataset, batch_size=16)
    right = [(model(pos=d.pos, batch=d.batch).argmax(1) == d.y).sum() for d in batches]
    return float(torch.stack(right).sum()) / len(dataset)


best, last = -1.0, 0.0
for epoch in range(args.epochs):
    views.set_epoch(epoch)
    model.train()
    for data in loader:
        logits = model(pos=data.pos, batch=data.batch, sample_id=data.sample_id)
        loss = cross_entropy(logits, data.y, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        last = loss.item()
    found = accuracy(model, val)
    print(f"epoch {epoch + 1:3d}   loss {last:.3f}   validation {100 * found:.1f} %")
    if found > best:
        best = found
        model.save_pretrained("adapter", class_names=shapes.class_names)

model = PeftModel.from_pretrained(fresh, "adapter")
print(f"validation {100 * accuracy(model, val):.1f} %   test {100 * accuracy(model, test):.1f} %")
