"""Merged in place for inference, and taken out again bit for bit."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from tuned import WAYS, Way, logits, points, portrait, tiny_base, train

from pyg_peft import LoRAConfig, PeftModel, get_peft_model
from pyg_peft.testing import randomize_

MERGEABLE = [
    Way("lora"),
    Way("lora", more={"num_classes": 7}),
    Way("lora", more={"target_modules": ("blocks.*.mlp",), "alpha": 5.0}),
    Way("bitfit"),
    Way("full_fine_tuning"),
    Way("full_fine_tuning", more={"num_classes": 7}),
]
mergeable = pytest.mark.parametrize("way", MERGEABLE, ids=str)


@mergeable
def test_merged_gives_the_same_and_unmerged_the_same_bits(way: Way):
    model = way.awake()
    model.train().eval()
    expected, before = logits(model), portrait(model)
    with model.disable_adapter():
        base = logits(model)
    model.merge_adapter()
    assert model.merged_adapter == model.active_adapter == "default"
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)
    assert not torch.equal(model.base(**points())[:, :4], base[:, :4]), "the base itself is tuned"
    assert not any(p.requires_grad for n, p in model.base.named_parameters() if "peft" not in n)
    model.unmerge_adapter()
    assert model.merged_adapter is None
    assert portrait(model) == before
    assert torch.equal(logits(model), expected)
    with model.disable_adapter():
        assert torch.equal(logits(model), base)
    train(model)
    assert not torch.equal(logits(model), expected), "it can go on training"


@mergeable
def test_one_in_double_precision_merges_to_rounding(way: Way):
    model = way.awake().double()
    call = {"pos": points()["pos"].double()}
    expected = logits(model, **call)
    model.merge_adapter()
    torch.testing.assert_close(logits(model, **call), expected, rtol=0, atol=1e-11)


def test_what_a_merged_model_refuses(tmp_path):
    model = Way("lora").awake()
    model.add_adapter("other", LoRAConfig(rank=2))
    model.set_adapter("default")
    model.eval().save_pretrained(tmp_path / "saved")
    model.merge_adapter()
    before, tensors = portrait(model), {"head.0.weight": torch.ones(1)}
    refused: list[Any] = [
        model.train,
        model.merge_adapter,
        lambda: model.set_adapter("other"),
        lambda: model.delete_adapter("other"),
        lambda: model.add_adapter("third", LoRAConfig(rank=2)),
        lambda: model.load_adapter(tmp_path / "saved", "third"),
        lambda: model.load_tensors(tensors),
        lambda: model.save_pretrained(tmp_path / "new"),
        lambda: model.disable_adapter().__enter__(),
    ]
    for change in refused:
        with pytest.raises(ValueError, match=r"Expected no merged adapter to .*unmerge_adapter"):
            change()
    assert portrait(model) == before and not (tmp_path / "new").exists()
    assert model.eval().merged_adapter == "default"


def test_merging_ends_the_training_mode_and_what_it_needs_is_checked():
    model = Way("lora").awake()
    model.train().merge_adapter()
    assert not model.training and not any(m.training for m in model.modules())
    model.unmerge_adapter()
    assert not model.training
    with pytest.raises(ValueError, match="Expected a merged adapter to unmerge"):
        model.unmerge_adapter()
    with pytest.raises(ValueError, match="active adapter to merge"):
        PeftModel(tiny_base()).merge_adapter()
    with pytest.raises(TypeError, match="'adapter_names' to be a list"):
        model.merge_adapter("default")
    with pytest.raises(ValueError, match="'adapter_name' to be one of default"):
        model.merge_adapter(["nobody"])
    with pytest.raises(ValueError, match="add_weighted_adapter"):
        model.merge_adapter(["default", "default"])


def test_an_adapter_by_name_becomes_the_active_one():
    model = Way("lora").awake()
    first = logits(model)
    model.add_adapter("second", LoRAConfig(rank=2))
    model.eval().merge_adapter(["default"])
    assert model.active_adapter == "default"
    torch.testing.assert_close(logits(model), first, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("way", [w for w in WAYS if w.method in ("vpt", "point_peft", "adapter")])
def test_what_cannot_be_merged_names_what_to_use(way: Way):
    model = way.awake()
    model.add_adapter("active", LoRAConfig(rank=2))
    model.train()
    before = portrait(model)
    with pytest.raises(NotImplementedError, match="call the PeftModel itself, in eval mode"):
        model.merge_adapter(["default"])
    assert model.active_adapter == "active" and portrait(model) == before


def test_weights_that_would_not_be_finite_are_not_merged():
    model = Way("full_fine_tuning", more={"num_classes": 7}).awake()
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad).fill_(float("nan"))
    before = str(portrait(model))  # NaN is unequal to itself
    with pytest.raises(ValueError, match="merged weights to be finite"):
        model.merge_adapter()
    assert str(portrait(model)) == before and model.base.num_classes == 4


@pytest.mark.parametrize("way", [MERGEABLE[1], MERGEABLE[5]], ids=str)
def test_unloading_a_merged_model(way: Way):
    base = tiny_base()
    before, expected = portrait(base), logits(base)
    model = way.attach(base)
    model.eval().merge_adapter()
    assert model.unload() is base and portrait(base) == before
    assert torch.equal(logits(base), expected)
    model = way.attach(base)
    randomize_(model, torch.Generator().manual_seed(1))
    tuned = logits(model.eval())
    model.merge_adapter()
    merged = model.merge_and_unload()
    assert merged is base and base.num_classes == 7
    assert not [key for key in merged.state_dict() if "peft" in key]
    torch.testing.assert_close(logits(merged), tuned, rtol=1e-4, atol=1e-4)


@mergeable
def test_a_copy_of_a_merged_model_is_unmerged_alone(way: Way):
    model = way.awake()
    expected = logits(model)
    model.merge_adapter()
    merged = logits(model)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(logits(copied), merged)
        copied.unmerge_adapter()
        assert torch.equal(logits(copied), expected)
    assert torch.equal(logits(model), merged)


def test_conversion_while_merged_applies_to_the_tensors_kept_apart():
    model = Way("full_fine_tuning", more={"num_classes": 7}).awake()
    double = copy.deepcopy(model).double()
    call = {"pos": points()["pos"].double()}
    model.merge_adapter()
    model.double().unmerge_adapter()
    assert {t.dtype for t in model.state_dict().values() if t.is_floating_point()} == {
        torch.float64
    }
    assert torch.equal(logits(model, **call), logits(double, **call))


def test_frozen_inputs_may_be_computed_before():
    model = Way("lora").awake()
    model.merge_adapter()
    frozen = model.precompute(**points())
    torch.testing.assert_close(logits(model, **frozen), logits(model))


def test_batch_statistics_come_back():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.head = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.a(x)))

    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    model = get_peft_model(Net(), LoRAConfig(rank=2, modules_to_save=("head", "norm")), example=x)
    for _ in range(3):
        model.train()(x)
    expected, before = model.eval()(x), portrait(model)
    model.merge_adapter()
    torch.testing.assert_close(model(x), expected)
    model.unmerge_adapter()
    assert portrait(model) == before and torch.equal(model(x), expected)


@torch.no_grad()
def test_threads_call_while_one_merges_and_unmerges():
    model = Way("bitfit").awake()
    tuned = logits(model)

    def call(_: int) -> Tensor:
        with torch.no_grad():
            return logits(model)

    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(call, range(24))
        for _ in range(6):
            model.merge_adapter()
            model.unmerge_adapter()
        for answer in answers:
            torch.testing.assert_close(answer, tuned, rtol=1e-4, atol=1e-4)


def test_compiled():
    model = Way("lora").awake()
    call: dict[str, Any] = points((8, 8))
    expected = model(**call)
    model.merge_adapter()
    compiled: Any = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(**call), model(**call))
    model.unmerge_adapter()
    torch.testing.assert_close(compiled(**call), expected)
