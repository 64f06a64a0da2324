"""Few-shot episodes on a frozen Point-MAE: mean and deviation over episodes of two methods.

    python examples/few_shot.py [--data FILE.npz] [--weights WEIGHTS] [--ways 5] [--shots 10]

``--weights`` names weights that ship with the package, or a file of the authors; "random" is an
untrained encoder. Without --data the shapes are made here.
"""

import argparse
import statistics
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from torch_geometric.loader import DataLoader

from pyg_peft import LinearProbeConfig, PeftModel, PointPEFTConfig, get_peft_model
from pyg_peft.backbones import PointMAE
from pyg_peft.datasets import FewShotSubset, NpzShapes, ProceduralShapes, few_shot_episode
from pyg_peft.trainable import trainable_parameters

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data")
parser.add_argument("--weights", default="point-mae-tiny")
parser.add_argument("--ways", type=int, default=5)
parser.add_argument("--shots", type=int, default=10)
parser.add_argument("--queries", type=int, default=20)
parser.add_argument("--episodes", type=int, default=3)
parser.add_argument("--epochs", type=int, default=6)
args = parser.parse_args()


def open_backbone(num_classes: int) -> PointMAE:
    """The encoder that stays frozen, with a head for ``num_classes``."""
    if args.weights == "random":
        sizes = {"embed_dim": 48, "depth": 2, "num_heads": 3, "num_centers": 16, "patch_size": 16}
        return PointMAE(num_classes, **sizes)
    if Path(args.weights).is_file():
        return PointMAE.from_checkpoint(args.weights, num_classes)
    return PointMAE.from_pretrained(args.weights, num_classes)


def train(model: PeftModel, support: FewShotSubset) -> None:
    """Train the adapter on the labeled shapes of an episode."""
    optimizer = torch.optim.AdamW([p for _, p in trainable_parameters(model)], lr=2e-3)
    model.train()
    for _ in range(args.epochs):
        for data in DataLoader(support, batch_size=16, shuffle=True):
            loss = cross_entropy(model(pos=data.pos, batch=data.batch), data.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@torch.no_grad()
def accuracy(model: PeftModel, query: FewShotSubset) -> float:
    """Percentage of the queries that is classified right."""
    model.eval()
    hits = [model(pos=d.pos, batch=d.batch).argmax(1) == d.y for d in DataLoader(query, 50)]
    return 100 * float(torch.cat(hits).float().mean())


torch.manual_seed(0)
shapes = NpzShapes(args.data, num_points=1024) if args.data else ProceduralShapes(num_shapes=600)
backbone = open_backbone(args.ways)
configs = [LinearProbeConfig(), PointPEFTConfig(bottleneck_channels=16, num_prompts=10, k=4)]
found: dict[str, list[float]] = {config.method: [] for config in configs}
sizes = {"num_ways": args.ways, "num_shots": args.shots, "num_queries": args.queries}
for number in range(args.episodes):
    episode = few_shot_episode(shapes.labels, **sizes, episode=number)
    support = FewShotSubset(shapes, episode.support, episode.classes)
    query = FewShotSubset(shapes, episode.query, episode.classes)
    for config in configs:
        backbone.reset_head(args.ways)
        model = get_peft_model(backbone, config)
        train(model, support)
        found[config.method].append(accuracy(model, query))
        model.unload()
for method, values in found.items():
    print(f"{method}: {statistics.mean(values):.1f} ± {statistics.stdev(values):.1f} %")
