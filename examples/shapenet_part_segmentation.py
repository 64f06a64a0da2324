"""Tune Point-MAE to parts with Point-PEFT, choose an epoch by instance mIoU, save and load.

    python examples/shapenet_part_segmentation.py --root data/ShapeNet --weights pretrain.pth

Without --root the shapes are lamps made here; without --weights the frozen encoder is random.
"""

import argparse
import copy

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import RandomSampler
from torch_geometric.data import Data
from torch_geometric.datasets import ShapeNet
from torch_geometric.loader import DataLoader

from pyg_peft import PeftModel, PointPEFTConfig, get_peft_model
from pyg_peft.backbones import PointMAESegmentation
from pyg_peft.datasets import Augmented, PartLabels, ScaleTranslate
from pyg_peft.trainable import trainable_parameters
from pyg_peft.training import EvenBatches
from pyg_peft.training.tasks.segmentation import evaluate_parts, score_points

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--root")
parser.add_argument("--weights")
parser.add_argument("--epochs", type=int, default=6)
parser.add_argument("--shapes", type=int, default=64)
args = parser.parse_args()


def lamp(number: int, num_points: int = 256) -> Data:
    """A foot, a pole and a shade, of random widths."""
    draw = torch.Generator().manual_seed(number)
    part = torch.randint(3, (num_points,), generator=draw)
    low, high = torch.tensor([-1.0, -0.9, 0.3])[part], torch.tensor([-0.9, 0.3, 1.0])[part]
    width = torch.tensor([0.4, 0.05, 0.4])[part] * (1 + torch.rand(3, generator=draw)[part])
    turn, height = torch.rand(2, num_points, generator=draw)
    x, y = width * (6.2832 * turn).cos(), width * (6.2832 * turn).sin()
    return Data(pos=torch.stack([x, y, low + (high - low) * height], dim=1), seg=part)


torch.manual_seed(0)
if args.root is None:
    ranges = range(32, 32 + args.shapes), range(16), range(16, 32)
    sets = ([lamp(number) for number in numbers] for numbers in ranges)
    train, val, test = (PartLabels(items, ["foot", "pole", "shade"]) for items in sets)
else:
    splits = (ShapeNet(args.root, split=s, include_normals=False) for s in ("train", "val", "test"))
    train, val, test = map(PartLabels, splits)
told = {"num_categories": len(train.parts) if args.root else 0}
if args.weights is None:
    sizes = {"embed_dim": 48, "depth": 3, "num_heads": 3, "num_centers": 16, "patch_size": 16}
    backbone = PointMAESegmentation(train.num_classes, **sizes, **told, head_channels=64)
else:
    backbone = PointMAESegmentation.from_checkpoint(args.weights, train.num_classes, **told)
fresh = copy.deepcopy(backbone)
model = get_peft_model(backbone, PointPEFTConfig(bottleneck_channels=16, num_prompts=10, k=4))
model.print_trainable_parameters()

views = Augmented(train, ScaleTranslate())
loader = DataLoader(views, batch_sampler=EvenBatches(RandomSampler(views), 16))
optimizer = torch.optim.AdamW([p for _, p in trainable_parameters(model)], lr=2e-3)
best = -1.0
for epoch in range(args.epochs):
    views.set_epoch(epoch)
    model.train()
    for data in loader:
        scores = score_points(model, data)
        optimizer.zero_grad()
        cross_entropy(scores, data.y).backward()
        optimizer.step()
    found = evaluate_parts(model, DataLoader(val, batch_size=16), train.parts, train.num_classes)
    print(f"epoch {epoch + 1:3d}   validation {found}")
    if found.instance_iou > best:
        best = found.instance_iou
        model.save_pretrained("adapter", class_names=train.part_names)

model = PeftModel.from_pretrained(fresh, "adapter")
print("test", evaluate_parts(model, DataLoader(test), train.parts, train.num_classes))
