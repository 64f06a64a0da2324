"""The weights in the package: whole, small, described, and worth more than random ones."""

import hashlib

import pytest
import torch
from torch import Tensor

from pyg_peft.backbones import PointMAE
from pyg_peft.backbones.layers.tokens import max_valid
from pyg_peft.backbones.weights import shipped
from pyg_peft.backbones.weights.shipped import SHIPPED
from pyg_peft.datasets import Normalize, NpzShapes

NAMES = sorted(SHIPPED)
MAX_MEGABYTES = 8.0


@pytest.mark.parametrize("name", NAMES)
def test_file_and_card(name):
    entry = SHIPPED[name]
    path = shipped._FOLDER / entry.file
    data = path.read_bytes()
    assert len(data) < MAX_MEGABYTES * 1e6
    assert hashlib.sha256(data).hexdigest() == entry.sha256
    card = path.with_suffix(".md").read_text()
    assert card.startswith(f"# {name}\n") and entry.sha256 in card
    for word in ("LDraw.org Parts Library", "Quaternius", "CC0", "steps", "seed"):
        assert word in card, word


def test_nothing_else_lies_in_the_folder():
    files = {entry.file for entry in SHIPPED.values()}
    cards = {file.replace(".safetensors", ".md") for file in files}
    assert {path.name for path in shipped._FOLDER.iterdir()} == files | cards


@pytest.mark.parametrize("name", NAMES)
def test_loads_the_same_each_time(name):
    first, second = (PointMAE.from_pretrained(name, num_classes=10) for _ in range(2))
    for key, value in first.state_dict().items():
        if not key.startswith("head."):
            assert torch.equal(value, second.state_dict()[key]), key
            assert value.dtype in (torch.float32, torch.int64)
    assert first.cls_token.any()


def nearest_mean_accuracy(model: PointMAE, dataset: NpzShapes) -> float:
    """Each cloud goes to the class whose other clouds have the nearest mean feature."""
    model.eval()
    clouds = [Normalize()(dataset[row]) for row in range(len(dataset))]
    pos = torch.cat([cloud.pos for cloud in clouds])
    sizes = torch.tensor([cloud.pos.size(0) for cloud in clouds])
    y = torch.tensor([int(cloud.y) for cloud in clouds])
    batch = torch.arange(len(clouds)).repeat_interleave(sizes)
    with torch.no_grad():
        patches = model.make_patches(pos, batch)
        x: Tensor = model.forward_features(patches)
        x = torch.cat([x[:, 0], max_valid(x[:, 1:], patches.mask)], dim=-1)
    x = (x - x.mean(0)) / (x.std(0) + 1e-6)
    one_hot = torch.nn.functional.one_hot(y).to(x)
    # leave the cloud itself out of the mean of its own class
    total, count = one_hot.T @ x, one_hot.sum(0)
    means = (total - one_hot.unsqueeze(2) * x.unsqueeze(1)) / (count - one_hot).unsqueeze(2)
    return float(((means - x.unsqueeze(1)).norm(dim=2).argmin(1) == y).double().mean())


@pytest.mark.parametrize("name", NAMES)
def test_features_tell_more_than_random_ones(name, shared_dir):
    dataset = NpzShapes(shared_dir / "data" / "tiny" / "tiny_modelnet10.npz", split="test")
    trained = PointMAE.from_pretrained(name, num_classes=10)
    torch.manual_seed(0)
    random = PointMAE(**trained.config)
    gain = nearest_mean_accuracy(trained, dataset) - nearest_mean_accuracy(random, dataset)
    assert gain > 0.05, f"{100 * gain:.1f} points"
