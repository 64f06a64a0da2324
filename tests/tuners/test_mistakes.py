"""A mistake in a setting or a call names it, says what was expected and what came."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from tuned import SIZES, Way, logits, portrait, tiny_base

from pyg_peft import (
    AdapterConfig,
    BitFitConfig,
    LinearProbeConfig,
    LoRAConfig,
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
