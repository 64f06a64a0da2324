"""A mistake in a setting or a call names it, says what was expected and what came."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tuned import SIZES, Way, logits, portrait, tiny_base

from pyg_peft import (
    AdapterConfig,
    BitFitConfig,
    LinearProbeConfig,
    LoRAConfig,
    PeftModel,
    PointPEFTConfig,
    VPTConfig,
    get_peft_model,
)
from pyg_peft.errors import PlacementError
from pyg_peft.tuners import METHODS, MethodConfig

REGEX = r"to hold a regular expression after 're:' \(got 're:\(': missing \)"
KINDS = r"to hold paths, globs, 're:' expressions or classes \(got 1\)"


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (LoRAConfig, {"rank": 2.5}, r"'rank' to be int \(got 2.5\)"),
        (LoRAConfig, {"rank": True}, r"'rank' to be int \(got True\)"),
        (LoRAConfig, {"rank": None}, r"'rank' to be int \(got None\)"),
        (LoRAConfig, {"alpha": "x"}, r"'alpha' to be float or None \(got 'x'\)"),
        (LoRAConfig, {"dropout": False}, r"'dropout' to be float \(got False\)"),
        (PointPEFTConfig, {"k": "a"}, r"'k' to be int \(got 'a'\)"),
        (PointPEFTConfig, {"pos_from": 3}, r"'pos_from' to be str or None \(got 3\)"),
        (VPTConfig, {"deep": "no"}, r"'deep' to be bool \(got 'no'\)"),
        (VPTConfig, {"deep": 1}, r"'deep' to be bool \(got 1\)"),
        (LinearProbeConfig, {"head": 1}, r"'head' to be str \(got 1\)"),
        (BitFitConfig, {"num_classes": "4"}, r"'num_classes' to be int or None \(got '4'\)"),
        (LoRAConfig, {"target_modules": [1]}, f"'target_modules' {KINDS}"),
        (AdapterConfig, {"modules_to_save": [1]}, f"'modules_to_save' {KINDS}"),
        (AdapterConfig, {"modules_to_save": None}, r"'modules_to_save' .* \(got None\)"),
        (BitFitConfig, {"exclude_modules": 3}, r"'exclude_modules' to be a tuple of .* \(got 3\)"),
    ],
)
def test_types_of_settings(kind: type[MethodConfig], settings: dict[str, Any], message: str):
    with pytest.raises(TypeError, match=f"Expected {message}"):
        kind(**settings)
    if None not in settings.values():
        with pytest.raises(TypeError, match=f"Expected {message}"):
            kind.from_dict(settings)


def test_types_that_are_right():
    assert LoRAConfig(alpha=2).alpha == 2
    assert LoRAConfig(alpha=None, dropout=0).dropout == 0
    assert PointPEFTConfig(scale=1, num_interp=None, channels={"a": 3}).scale == 1
    for method, kind in METHODS.items():
        assert kind.from_dict(kind().to_dict()) == kind(), method


def test_types_of_a_method_of_ones_own():
    @dataclass(frozen=True, kw_only=True)
    class Mine(MethodConfig):
        method: ClassVar[str] = "mine"
        width: "int" = 3  # text is not looked at
        names: tuple[str] = ("a",)
        share: float = 0.5

    assert Mine(width="wide", names=("b",), share=1).names == ("b",)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"'share' to be float \(got '1'\)"):
        Mine(share="1")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["target_modules", "modules_to_save", "exclude_modules"])
def test_a_regular_expression_that_is_none(name: str):
    with pytest.raises(ValueError, match=f"Expected '{name}' {REGEX}"):
        LoRAConfig.from_dict({name: ["re:("]})


def test_a_probe_of_several_modules():
    base = tiny_base()
    before = portrait(base)
    message = r"'head' to match one module \(got 'blocks.\*', which matches blocks.0, blocks.1\)"
    with pytest.raises(PlacementError, match=message):
        get_peft_model(base, LinearProbeConfig(head="blocks.*"))
    assert portrait(base) == before


def test_a_structure_that_is_none():
    model = Way("point_peft").awake()
    with pytest.raises(TypeError, match=r"'structure' to be TokenStructures.*\(got int\)"):
        logits(model, structure=3)
    assert logits(model).shape == (len(SIZES), 4)


@pytest.mark.parametrize("shape", [(5, 9, 24), (5, 7, 24), (4, 8, 24), (5, 8, 12)])
def test_tokens_that_belong_to_other_patches(shape: tuple[int, ...]):
    base = tiny_base()
    expected = r"'tokens' to be of shape \[5, 8, 24\], one for each patch \(got \[" + str(shape[0])
    for model in (base, Way("lora").attach(tiny_base())):
        with pytest.raises(ValueError, match=expected):
            logits(model, tokens=torch.zeros(shape))
    patches = base.make_patches(torch.randn(40, 3))
    with pytest.raises(ValueError, match="'tokens' to be of shape"):
        base.forward_query(patches, tokens=torch.zeros(2, 8, 24))


def test_a_name_is_no_configuration():
    base = tiny_base()
    before = portrait(base)
    with pytest.raises(TypeError, match=r"Expected 'config' to be the .* \(got 'lora'\)"):
        get_peft_model(base, "lora")  # pyright: ignore[reportArgumentType]
    assert portrait(base) == before


# ---- the borders ---------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [None, 3, torch.nn.Linear, {}])
def test_a_base_that_is_no_module(base: Any):
    for attach in (lambda: get_peft_model(base, LoRAConfig()), lambda: PeftModel(base)):
        with pytest.raises(TypeError, match=r"Expected 'base' to be a torch.nn.Module"):
            attach()


@pytest.mark.parametrize("name", [3, None, ["a"], b"a", True])
def test_a_name_that_is_no_text(name: Any, tmp_path: Path):
    model = Way("lora").attach(tiny_base())
    model.save_pretrained(tmp_path)
    message = r"Expected 'adapter_name' to be text \(got "
    calls = [
        lambda: get_peft_model(tiny_base(), LoRAConfig(), name),
        lambda: model.set_adapter(name),
        lambda: model.delete_adapter(name),
        lambda: model.add_adapter(name, LoRAConfig()),
        lambda: model.load_adapter(tmp_path, name),
    ]
    if name is not None:
        calls.append(lambda: model.save_pretrained(tmp_path, adapter_name=name))
    for call in calls:
        with pytest.raises(TypeError, match=message):
            call()
    assert list(model.peft_config) == ["default"]


@pytest.mark.parametrize("bank", [3, "bank", torch.eye(24), torch.nn.Linear(2, 2)])
@pytest.mark.parametrize("method", ["lora", "point_peft"])
def test_a_bank_that_is_none(method: str, bank: Any):
    base = tiny_base()
    before = portrait(base)
    with pytest.raises(TypeError, match=r"Expected 'memory_bank' to be a MemoryBank \(got "):
        get_peft_model(base, Way(method).config(), memory_bank=bank)
    assert portrait(base) == before


def test_arguments_of_other_types(tmp_path: Path):
    model: Any = Way("lora").attach(tiny_base())
    model.save_pretrained(tmp_path / "right")
    for call, message in (
        (lambda: model.train("yes"), "'mode' to be bool"),
        (lambda: model.save_pretrained(3), "'folder' to be a path"),
        (
            lambda: model.save_pretrained(tmp_path / "a", class_names="abcd"),
            "'class_names' to be a",
        ),
        (lambda: model.save_pretrained(tmp_path / "a", class_names=[1, 2, 3, 4]), "'class_names'"),
        (lambda: model.save_pretrained(tmp_path / "a", preprocessing=3), "'preprocessing' to be a"),
        (lambda: PeftModel.from_pretrained(tiny_base(), 3), "'folder' to be a path"),  # type: ignore[arg-type]
        (
            lambda: PeftModel.from_pretrained(tiny_base(), tmp_path / "right", configs=[3]),  # type: ignore[list-item]
            "'configs' to hold subclasses of MethodConfig",
        ),
        (lambda: model.load_tensors(3), "'tensors' to map keys to tensors"),
    ):
        with pytest.raises(TypeError, match=f"Expected {message}"):
            call()
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.to("meta"),
        lambda t: t.long(),
        lambda t: t.to(torch.complex64),
        lambda t: t.to_sparse(),
        lambda t: t.tolist(),
    ],
)
def test_tensors_of_other_kinds_are_not_loaded(change: Any):
    model = Way("lora").awake()
    tensors = {key: t.detach().clone() for key, t in model._adapters.tensors("default").items()}
    expected, key = logits(model), list(tensors)[-1]
    with pytest.raises(TypeError, match=f"Expected '{key}' to be (a|of a)"):
        model.load_tensors({**{k: t * 2 for k, t in tensors.items()}, key: change(tensors[key])})
    assert torch.equal(logits(model), expected)


@pytest.mark.parametrize(
    "query", [3, "q", torch.zeros(5, 24).long(), torch.zeros(5, 24).double()], ids=repr
)
def test_a_query_of_another_type(query: Any):
    with pytest.raises(TypeError, match=r"Expected 'query' to be "):
        logits(Way("point_peft", True).awake(), query=query)
    with pytest.raises(ValueError, match=r"Expected 'query' to be on cpu.*\(got meta\)"):
        logits(Way("point_peft", True).awake(), query=torch.zeros(5, 24, device="meta"))


@pytest.mark.parametrize(
    "ids", [3, [0, 1, 2, 3, 4], torch.zeros(5), torch.zeros(5).bool()], ids=repr
)
def test_sample_ids_of_another_type(ids: Any):
    with pytest.raises(TypeError, match=r"Expected 'sample_id' to be an integer tensor"):
        logits(Way("point_peft", True).awake().train(), sample_id=ids)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (LoRAConfig, {"alpha": math.nan}, "'alpha' to be finite"),
        (LoRAConfig, {"alpha": 0.0}, "'alpha' to be positive"),
        (LoRAConfig, {"dropout": -0.1}, r"'dropout' to lie in \[0, 1\)"),
        (AdapterConfig, {"dropout": 1.0}, r"'dropout' to lie in \[0, 1\)"),
        (AdapterConfig, {"scale": math.inf}, "'scale' to be finite"),
        (AdapterConfig, {"target_modules": ()}, "'target_modules' to hold at least one"),
        (PointPEFTConfig, {"target_modules": []}, "'target_modules' to hold at least one"),
        (PointPEFTConfig, {"k": 0}, "'k' to be positive"),
        (PointPEFTConfig, {"num_interp": 0}, "'num_interp' to be positive"),
        (PointPEFTConfig, {"bottleneck_channels": -1}, "'bottleneck_channels' to be positive"),
        (PointPEFTConfig, {"prompt_bottleneck_channels": 0}, "'prompt_bottleneck_channels' to be"),
        (PointPEFTConfig, {"attention_heads": 0}, "'attention_heads' to be positive"),
        (PointPEFTConfig, {"attention_channels": 7}, "'attention_heads' to divide"),
        (PointPEFTConfig, {"bank_channels": 0}, "'bank_channels' to be positive"),
        (PointPEFTConfig, {"propagation_scale": math.nan}, "'propagation_scale' to be finite"),
        (PointPEFTConfig, {"pos_name": ""}, "'pos_name' to be the name of a parameter"),
        (PointPEFTConfig, {"pos_name": ".pos"}, "'pos_name' to be the name of a parameter"),
        (PointPEFTConfig, {"batch_name": "a.b"}, "'batch_name' to be the name of a parameter"),
        (PointPEFTConfig, {"edge_index_name": ""}, "'edge_index_name' to be the name of"),
    ],
)
def test_values_of_settings(kind: type[MethodConfig], settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=f"Expected {message}"):
        kind(**settings)


@pytest.mark.parametrize("widths", [3, [1], {"a": "b"}, {1: 2}, {"a": True}, {"a": -1}])
@pytest.mark.parametrize("name", ["channels", "in_channels"])
def test_widths_that_are_none(name: str, widths: Any):
    with pytest.raises(TypeError, match=f"Expected '{name}' to map paths to widths"):
        PointPEFTConfig(**{name: widths})


def test_targets_that_may_not_be_none():
    for kind, name in ((AdapterConfig, "target_modules"), (LoRAConfig, "exclude_modules")):
        with pytest.raises(TypeError, match=f"Expected '{name}' to be a tuple of targets"):
            kind(**{name: None})  # type: ignore[arg-type]
    assert LoRAConfig(target_modules=None).target_modules is None


def test_a_number_of_classes_needs_a_head_of_the_adapter_s_own():
    config = METHODS["bitfit"](num_classes=3, modules_to_save=())
    with pytest.raises(PlacementError, match="'modules_to_save' to hold 'head'"):
        get_peft_model(tiny_base(), config)


def test_an_integer_beyond_any_size_is_refused():
    with pytest.raises(ValueError, match=r"'num_classes' to lie in .* \(got 1000"):
        METHODS["lora"](num_classes=10**30)
