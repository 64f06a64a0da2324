"""Point features: every method owns the layer by which they enter, which starts at zero."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from tuned import SIZES, WAYS, Way, logits, points, portrait, tiny_base

from pyg_peft import LoRAConfig, PeftModel, get_peft_model
from pyg_peft.backbones import PointMAE, PointMAESegmentation
from pyg_peft.checkpoint import read_adapter, write_adapter
from pyg_peft.errors import CheckpointError

every_way = pytest.mark.parametrize("way", WAYS, ids=str)
STEM = "patch_embed.feature_stem"
KEY = f"{STEM}.weight"


def features(seed: int = 2, channels: int = 2) -> Tensor:
    return torch.randn(sum(SIZES), channels, generator=torch.Generator().manual_seed(seed))


def with_features(*, untrained: bool = True, seed: int = 0) -> PointMAE:
    base = tiny_base(seed, in_channels=2)
    if untrained:
        nn.init.zeros_(base.get_submodule(STEM).get_parameter("weight"))
    return base


def train(model: PeftModel, steps: int = 3) -> None:
    """Towards scores that only ``x`` tells."""
    x, wanted = features(), torch.tensor([0, 1, 2, 1, 0])
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits(model, x=x), wanted).backward()
        optimizer.step()
    model.eval()


def test_without_the_layer_the_base_is_blind():
    base = with_features()
    assert torch.equal(logits(base, x=features()), logits(base, x=features(7)))


@every_way
def test_after_training_features_matter(way: Way):
    base = with_features()
    before, expected = portrait(base), logits(base, x=features())
    model = way.attach(base)
    train(model)
    assert not torch.equal(logits(model, x=features()), logits(model, x=features(7)))
    with model.disable_adapter():
        assert torch.equal(logits(model, x=features()), expected)
    assert portrait(model.unload()) == before


@every_way
def test_it_counts_as_trained_and_not_as_head(way: Way):
    plain, own = (way.attach(tiny_base(**sizes)) for sizes in ({}, {"in_channels": 2}))
    if way.method != "full_fine_tuning":
        assert own.count_parameters().frozen == plain.count_parameters().frozen + 2 * 128
    found, others = own.count_parameters(), plain.count_parameters()
    assert found.without_head == others.without_head + 2 * 128 and found.head == others.head
    trainable = sum(p.numel() for p in own.parameters() if p.requires_grad)
    assert found.trainable == trainable


@every_way
@pytest.mark.parametrize("untrained", [True, False], ids=["zero", "trained before"])
def test_there_and_back(way: Way, untrained: bool, tmp_path: Path):
    model = way.attach(with_features(untrained=untrained))
    if way.method not in ("linear_probe", "vpt", "point_peft"):  # no identity at init
        before = logits(with_features(untrained=untrained), x=features())
        assert torch.equal(logits(model, x=features()), before)
    train(model)
    model.save_pretrained(tmp_path)
    torch.manual_seed(99)
    loaded = PeftModel.from_pretrained(with_features(untrained=untrained), tmp_path)
    assert torch.equal(logits(loaded, x=features()), logits(model, x=features()))
    # What a bank is asked with goes through the base's own layer, which must be the same.
    if way.method != "full_fine_tuning":
        with pytest.raises(CheckpointError, match="its frozen weights differ"):
            PeftModel.from_pretrained(with_features(untrained=not untrained), tmp_path)


def test_a_file_from_before_is_refused_by_name(tmp_path: Path):
    Way("lora").attach(with_features()).save_pretrained(tmp_path)
    file = read_adapter(tmp_path)
    del file.tensors[KEY]
    write_adapter(tmp_path, file.tensors, file.config, "")
    with pytest.raises(CheckpointError, match=KEY):
        PeftModel.from_pretrained(with_features(), tmp_path)


def test_named_by_the_user_too_it_is_there_once():
    model = Way("lora").attach(with_features(), modules_to_save=("head", STEM))
    names = [n for n, p in model.named_parameters() if p.requires_grad and STEM in n]
    assert names == [f"base.{STEM}.peft.adapters.default.trained.weight"]
    lora = get_peft_model(with_features(), LoRAConfig(target_modules=("patch_embed",)))
    assert [n for n, _ in lora.named_parameters() if STEM in n and ".peft." in n] == names


def test_adapters_switch_and_lora_merges():
    model = Way("lora").attach(with_features(), "a")
    train(model)
    first = logits(model, x=features())
    model.add_adapter("b", Way("bitfit").config())
    train(model)
    assert not torch.equal(logits(model, x=features()), first)
    model.set_adapter("a")
    assert torch.equal(logits(model, x=features()), first)
    merged: Any = model.merge_and_unload()
    torch.testing.assert_close(logits(merged, x=features()), first)
    assert bool(merged.patch_embed.feature_stem.weight.any())


def test_a_probe_keeps_its_number_of_classes():
    model = Way("linear_probe").attach(with_features(), num_classes=7)
    assert logits(model, x=features()).shape == (len(SIZES), 7)


def test_tokens_are_not_kept():
    model = Way("lora").attach(with_features())
    assert set(model.precompute(**points(), x=features())) == {"patches"}
    tokens = torch.zeros(len(SIZES), 8, 24)
    with pytest.raises(ValueError, match=r"'tokens' to be None, since the adapter changes"):
        logits(model, x=features(), tokens=tokens)
    assert "tokens" in Way("lora").attach(tiny_base()).precompute(**points())


class Wrapped(nn.Module):
    """A model of a user's own around a backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = with_features()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor, pos: Tensor, batch: Tensor, batch_size: int) -> Tensor:
        return self.head(self.encoder(x, pos, batch, batch_size))


def test_in_a_model_of_a_users_own_and_for_scores_of_points():
    model = get_peft_model(Wrapped(), LoRAConfig())
    model.load_tensors(
        {k: torch.randn_like(t) for k, t in model._adapters.tensors("default").items()}
    )
    scores = [model(**points(), x=features(seed)) for seed in (2, 7)]
    assert not torch.equal(*scores)
    torch.manual_seed(0)
    base = PointMAESegmentation(
        4, embed_dim=24, depth=4, num_heads=3, num_centers=8, patch_size=4, in_channels=2
    )
    keys = get_peft_model(base.eval(), LoRAConfig())._adapters.tensors("default")
    assert KEY in keys
