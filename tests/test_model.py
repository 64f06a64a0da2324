"""A base with adapters: switch, disable, count, own classes, and errors that leave nothing."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from tuned import CHANNELS, SIZES, WAYS, Way, logits, points, portrait, tiny_base, train

from pyg_peft.errors import PlacementError
from pyg_peft.model import PeftModel, get_peft_model
from pyg_peft.tuners import (
    BitFitConfig,
    FullFineTuningConfig,
    LinearProbeConfig,
    LoRAConfig,
    PointPEFTConfig,
    VPTConfig,
)

every_way = pytest.mark.parametrize("way", WAYS, ids=str)
LORA = Way("lora")


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


# ---- on and off ----------------------------------------------------------------------------------


@every_way
def test_disabled_while_training_nothing_of_the_base_moves(way: Way):
    expected = logits(tiny_base())
    model = way.attach(tiny_base()).train()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    with model.disable_adapter():
        assert equal(logits(model), expected)
    assert all(equal(v, state[k]) for k, v in model.state_dict().items())
    assert any(m.training for m in model.base.modules())
    with model.disable_adapter():
        model.eval()
    assert not any(m.training for m in model.modules())
    with model.disable_adapter():
        model.train()
        assert equal(logits(model), expected)
    modes = {path: m.training for path, m in model.named_modules()}
    assert modes == {path: m.training for path, m in model.train().named_modules()}


def test_adapters_do_not_change_while_one_rests():
    model = LORA.attach(tiny_base(), "a")
    model.add_adapter("b", LORA.config())
    with model.disable_adapter():
        for change in (
            lambda: model.set_adapter("a"),
            lambda: model.delete_adapter("a"),
            lambda: model.add_adapter("c", LORA.config()),
            model.unload,
            model.merge_and_unload,
        ):
            with pytest.raises(ValueError, match=r"disable_adapter|active adapter"):
                change()
    assert model.active_adapter == "b" and list(model.peft_config) == ["a", "b"]
    with pytest.raises(KeyError), model.disable_adapter():
        raise KeyError
    assert model.active_adapter == "b"


@every_way
def test_the_base_is_whole_after_an_error_in_the_middle(way: Way, monkeypatch: pytest.MonkeyPatch):
    model = way.attach(tiny_base())
    train(model)
    expected, before = logits(model), portrait(model)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("in the middle")

    for path in ("blocks.1.mlp.fc2", "norm", "head.layers.4", "blocks.0"):
        with monkeypatch.context() as patch:
            patch.setattr(model.base.get_submodule(path), "forward", fail)
            with pytest.raises(RuntimeError, match="in the middle"):
                logits(model)
        assert portrait(model) == before
    assert equal(logits(model), expected)


@every_way
def test_an_interrupt_in_the_middle_does_no_lasting_harm(way: Way, monkeypatch: pytest.MonkeyPatch):
    model = way.attach(tiny_base())
    train(model)
    expected, reference = logits(model), logits(tiny_base())

    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    for path in ("blocks.1.mlp.fc2", "norm", "head.layers.4"):
        with monkeypatch.context() as patch:
            patch.setattr(model.base.get_submodule(path), "forward", interrupt)
            with pytest.raises(KeyboardInterrupt):
                logits(model)
        with model.disable_adapter():
            assert equal(logits(model), reference), path
        assert equal(logits(model), expected), path
    assert equal(logits(model.unload()), reference)


# ---- several adapters ----------------------------------------------------------------------------


def test_only_the_active_adapter_trains():
    model = LORA.attach(tiny_base(), "a")
    model.add_adapter("b", BitFitConfig())
    for name in ("a", "b", "a"):
        model.set_adapter(name)
        trained = [path for path, p in model.named_parameters() if p.requires_grad]
        assert trained and all(f".peft.adapters.{name}." in path for path in trained)


def test_the_active_adapter_is_not_deleted():
    model = LORA.attach(tiny_base(), "a")
    with pytest.raises(ValueError, match=r"inactive adapter .got the active 'a'.*set_adapter"):
        model.delete_adapter("a")
    with pytest.raises(ValueError, match=r"one of a .got 'b'."):
        model.delete_adapter("b")
    with pytest.raises(ValueError, match=r"one of a .got 'b'."):
        model.set_adapter("b")


@pytest.mark.parametrize("name", ["a.b", "keys", "training", "forward", "", " ", "a/b", "ä"])
def test_names_that_no_module_can_have(name: str):
    base = tiny_base()
    before = portrait(base)
    with pytest.raises(ValueError, match="Expected 'adapter_name'"):
        LORA.attach(base, name)
    assert portrait(base) == before
    model = LORA.attach(base)
    with pytest.raises(ValueError, match=r"'adapter_name' to be new .got 'default'"):
        model.add_adapter("default", LORA.config())


# ---- in and out ----------------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [None, 7])
@pytest.mark.parametrize("config", [LoRAConfig(rank=2), BitFitConfig(), FullFineTuningConfig()])
def test_merging(config: LoRAConfig, num_classes: int | None):
    way, base = Way(config.method), tiny_base().double()
    model = way.attach(base, num_classes=num_classes)
    call = {"pos": points()["pos"].double()}
    for _ in range(2):
        logits(model.train(), **call).square().mean().backward()
        torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1).step()
    tuned, keys = logits(model.eval(), **call), list(tiny_base().state_dict())
    merged = model.merge_and_unload()
    assert merged is base and list(merged.state_dict()) == keys
    assert base.num_classes == (num_classes or 4)
    assert not any(m.training for m in merged.modules())
    torch.testing.assert_close(logits(merged, **call), tuned, rtol=0, atol=1e-12)


def test_what_cannot_be_merged_is_refused_and_kept():
    for way in WAYS:
        if way.method in ("lora", "bitfit", "full_fine_tuning"):
            continue
        model = way.awake()
        expected, before = logits(model), portrait(model)
        with pytest.raises(NotImplementedError, match=f"{way.method} cannot be merged: a "):
            model.merge_and_unload()
        assert portrait(model) == before and equal(logits(model), expected)
    with pytest.raises(ValueError, match="active adapter to merge"):
        PeftModel(tiny_base()).merge_and_unload()


class Broken(LoRAConfig):
    """Its components stand at a place that does not exist, or under names that no module has."""

    def sites(self, base: nn.Module, *, has_bank: bool = False) -> list[Any]:
        sites = super().sites(base)
        return [*sites, type(sites[0])("norm", "keys", sites[0].component)]


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (LoRAConfig(target_modules=("blocks.0.attm",)), PlacementError, r"blocks\.0\.attn"),
        (LoRAConfig(target_modules=("norm",)), PlacementError, "linear layer .got LayerNorm"),
        (LoRAConfig(modules_to_save=("haed",)), PlacementError, "nearest paths: head"),
        (LoRAConfig(target_modules=("head.**",)), PlacementError, "linear layer"),
        (PointPEFTConfig(bottleneck_channels=25), ValueError, "bottleneck_channels"),
        (PointPEFTConfig(modules_to_save=("cls_head",)), PlacementError, "cls_head"),
        (LinearProbeConfig(head="norm"), PlacementError, "hold a linear layer"),
        (LinearProbeConfig(head="pos_embed"), PlacementError, "container PositionEmbedding"),
        (Broken(), KeyError, "keys"),
    ],
)
def test_an_error_leaves_nothing_behind(config: Any, error: type[Exception], message: str):
    base = tiny_base().train()
    before = portrait(base)
    with pytest.raises(error, match=message):
        get_peft_model(base, config)
    assert portrait(base) == before
    model = Way("vpt").attach(base, "a").eval()
    before, expected = portrait(model), logits(model)
    with pytest.raises(error, match=message):
        model.add_adapter("b", config)
    assert portrait(model) == before and model.active_adapter == "a"
    assert equal(logits(model), expected)


def test_a_model_that_carries_adapters_is_refused():
    model = LORA.attach(tiny_base())
    before = portrait(model)
    for carrier in (model, model.base):
        with pytest.raises(PlacementError, match="without adapters"):
            LORA.attach(carrier)
    assert portrait(model) == before


def test_a_model_that_is_no_token_backbone_is_refused():
    net = nn.ModuleDict({"encoder": nn.Linear(3, 8), "head": nn.Linear(8, 2)})
    for config in (PointPEFTConfig(), VPTConfig()):
        with pytest.raises(PlacementError, match=r"'blocks'.*ModuleDict with the children encoder"):
            get_peft_model(net, config)


# ---- classes, counts, calls ----------------------------------------------------------------------


@every_way
def test_an_adapter_with_classes_of_its_own(way: Way):
    base = tiny_base()
    reference = logits(base)
    model = way.attach(base, num_classes=7)
    assert base.num_classes == 4
    train(model)
    assert logits(model).shape == (len(SIZES), 7)
    with model.disable_adapter():
        assert equal(logits(model), reference)
    model.add_adapter("b", LORA.config())
    assert logits(model).shape == (len(SIZES), 4)
    assert equal(logits(model.unload()), reference)


def test_own_classes_need_a_base_that_can_make_a_head():
    net = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2))
    with pytest.raises(PlacementError, match="'reset_head' to give an adapter 5 classes"):
        get_peft_model(net, LoRAConfig(modules_to_save=("1",), num_classes=5))


@every_way
def test_counts(way: Way, capsys: pytest.CaptureFixture[str]):
    base = tiny_base()
    size = sum(p.numel() for p in base.parameters())
    model = way.attach(base)
    count = model.count_parameters()
    assert count.frozen == size
    assert count.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    head = sum(p.numel() for p in tiny_base().head.parameters())
    assert count.head == (4 * (2 * CHANNELS + 1) if way.method == "linear_probe" else head)
    model.print_trainable_parameters()
    assert capsys.readouterr().out.strip() == str(count)


def test_positional_arguments_are_the_bases():
    model, call = Way("point_peft", True).awake(), points()
    expected = logits(model)
    assert equal(model(None, call["pos"], call["batch"], call["batch_size"]), expected)
    with pytest.raises(TypeError, match="at most 4 positional"):
        model(None, call["pos"], call["batch"], 5, 6)


def test_tokens_are_refused_where_the_adapter_changes_the_embedding():
    frozen = LORA.awake().precompute(**points())
    model = Way("full_fine_tuning").awake()
    with pytest.raises(ValueError, match="'tokens' to be None"):
        model(**frozen)
    assert set(model.precompute(**points())) == {"patches"}
    with model.disable_adapter():
        assert equal(model(**frozen), logits(tiny_base()))


@every_way
def test_what_is_precomputed_changes_nothing(way: Way):
    model = way.awake()
    frozen = model.precompute(**points())
    assert ("query" in frozen) == way.has_bank
    assert not any(t.requires_grad for t in frozen.values() if isinstance(t, torch.Tensor))
    assert equal(model(**frozen), logits(model))


@every_way
def test_a_query_of_lower_precision(way: Way):
    model = way.awake()
    frozen = model.precompute(**points())
    if way.has_bank:
        frozen["query"] = frozen["query"].bfloat16()
    torch.testing.assert_close(model(**frozen), logits(model), atol=0.05, rtol=0.05)


@every_way
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_an_adapter_follows_the_precision_of_its_base(way: Way, dtype: torch.dtype):
    base = tiny_base().to(dtype)
    model = way.attach(base)
    floats = [t for t in model.base.state_dict().values() if t.is_floating_point()]
    assert {t.dtype for t in floats} == {dtype}
    out = logits(model) if dtype is torch.bfloat16 else logits(model, pos=points()["pos"].double())
    assert out.dtype == dtype and out.isfinite().all()


def test_print_shows_the_slots():
    text = repr(LORA.attach(tiny_base()))
    assert "(peft): Slot(" in text and "active='default'" in text and "LowRankLinear(" in text


@every_way
def test_gradients_can_be_turned_off_around_everything(way: Way):
    model = way.awake()
    with torch.no_grad(), nullcontext():
        quiet = logits(model)
    with torch.inference_mode():
        inference = logits(model)
    assert not quiet.requires_grad and equal(quiet, logits(model)) and equal(inference, quiet)
