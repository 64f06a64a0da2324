"""Strategies for the methods' configurations, and for attaching them: ``get_peft_model``."""

import dataclasses
import functools
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from fuzz import dice as st
from fuzz.dice import Draw
from fuzz.strategies import (
    Args,
    Const,
    Count,
    Flag,
    Made,
    Maybe,
    Name,
    Real,
    Spec,
    Whole,
    Words,
    entry,
    floats,
)
from torch import Tensor
from tuned import CHANNELS, CLASSES, SIZES, WAYS, logits, points, tiny_bank, tiny_base

from pyg_peft import PeftModel, get_peft_model
from pyg_peft.testing import randomize_
from pyg_peft.tuners import METHODS

# Settings of each method that are sizes, with the largest that fits the tiny backbone.
COUNTS: dict[str, dict[str, int | None]] = {
    "adapter": {"bottleneck_channels": CHANNELS},
    "bitfit": {},
    "full_fine_tuning": {},
    "linear_probe": {},
    "lora": {"rank": None},
    "point_peft": {
        "bottleneck_channels": CHANNELS,
        "prompt_depth": None,
        "prompt_bottleneck_channels": None,
        "k": None,
    },
    "vpt": {"num_prompts": None},
}
REALS: dict[str, dict[str, tuple[float, float, float]]] = {
    "adapter": {"scale": (0.7, -torch.inf, torch.inf), "dropout": (0.0, 0.0, 1.0 - 1e-9)},
    "lora": {"dropout": (0.0, 0.0, 1.0 - 1e-9)},
    "point_peft": {"ratio": (0.5, 0.0, 1.0), "scale": (1.0, -torch.inf, torch.inf)},
}
FLAGS = {"vpt": ("deep",), "point_peft": ("train_biases",)}
TARGETS: dict[str, tuple[str, ...]] = {"adapter": ("blocks.*.attn",), "lora": ("blocks.*.attn.*",)}


@functools.cache
def the_base() -> Any:
    return tiny_base()


@functools.cache
def alone() -> Tensor:
    return logits(the_base())


@contextmanager
def lent_base() -> Generator[Any]:
    """The same base for every case, to be given back as it was; a new one if it was not."""
    base = the_base()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    try:
        yield base
    finally:
        after = base.state_dict()
        same = list(before) == list(after)
        if not same or not all(map(torch.equal, before.values(), after.values())):
            the_base.cache_clear()
            raise SystemError("the base is not as it was")


def run_method(**settings: Any) -> Tensor:
    """Attach a method with these settings to the tiny backbone, wake it, run it, and round-trip."""
    method = settings.pop("method")
    config = METHODS[method](**settings)
    assert type(config).from_dict(config.to_dict()) == config, "another configuration came back"
    with lent_base() as base:
        model = get_peft_model(base, config)
        try:
            randomize_(model, torch.Generator().manual_seed(0))
            return logits(model.eval()).detach()
        finally:
            model.unload()


def check_method(args: Args, result: Any) -> str | None:
    classes = CLASSES if args["num_classes"] is None else int(args["num_classes"])
    wanted = (len(SIZES), classes)
    return None if tuple(result.shape) == wanted else f"{list(result.shape)} for {wanted}"


def settings_of(method: str) -> Any:
    def draw_settings(draw: Draw) -> dict[str, Spec]:
        args: dict[str, Spec] = {"method": Const(method)}
        args["num_classes"] = Count(draw(st.sampled_from((None, 3))), optional=True)
        if method == "linear_probe":
            args["head"] = Name("head")
        elif method != "full_fine_tuning":
            args["modules_to_save"] = Words(("head",))
        for name, high in COUNTS[method].items():
            capped = name in ("rank", "prompt_depth", "k")
            low = 0 if name == "prompt_depth" else 1
            value = draw(st.integers(low, min(high or 6, 6)))
            args[name] = Count(value, low=low, high=high, capped=capped)
        for name, (value, low, high) in REALS.get(method, {}).items():
            args[name] = Real(value, low, high, open=name == "ratio")
        for name in FLAGS.get(method, ()):
            args[name] = Flag(draw(st.booleans()))
        if method in TARGETS:
            args["target_modules"] = Words(TARGETS[method], optional=method == "lora")
        if method == "point_peft":
            args["attention_channels"], args["attention_heads"] = Const(6), Const(3)
            args["num_prompts"] = Count(draw(st.sampled_from((None, 0, 3))), low=0, optional=True)
            args["num_interp"] = Count(draw(st.sampled_from((None, 2))), optional=True)
        return args

    return draw_settings


for _method, _config in METHODS.items():
    entry(
        f"tuners.{_config.__name__}",
        call=run_method,
        check=check_method,
        also=tuple(field.name for field in dataclasses.fields(_config)),
    )(settings_of(_method))


# ---- get_peft_model ------------------------------------------------------------------------------


def some_config(place: int) -> Any:
    return WAYS[place].config()


def attach(base: Any, **args: Any) -> Any:
    """Attach, run, take off: whatever happens, the base is as it was."""
    with lent_base():
        model = get_peft_model(base, **args)
        try:
            return logits(model.eval()).detach()
        finally:
            model.unload()


@entry("model.get_peft_model", call=attach, fixed=("memory_bank",))
def get_model(draw: Draw) -> dict[str, Spec]:
    place = draw(st.integers(0, len(WAYS) - 1))
    return {
        "base": Made(the_base),
        "config": Made(some_config, (place,)),
        "adapter_name": Name(draw(st.sampled_from(("default", "a-b_3"))), free=True),
        "memory_bank": Made(tiny_bank) if WAYS[place].has_bank else Const(None),
        "example": Const(None),
    }


# ---- PeftModel: any order of switches ------------------------------------------------------------

STEPS = ("add", "set", "disable", "delete", "train", "save", "forward", "merge", "unload", "load")


def walk(way: int, steps: tuple[tuple[str, str], ...]) -> Any:
    """Any order of switches leaves the base's weights alone, and its answer when all is off."""
    with lent_base() as base, tempfile.TemporaryDirectory() as folder:
        expected = alone()
        model = WAYS[way].attach(base)
        try:
            saved = False
            for step, name in steps:
                try:
                    saved = take(model, step, name, way, folder, saved)
                except (ValueError, NotImplementedError) as error:
                    if "Expected" not in str(error):
                        return f"{step} {name}: {error}"
            if not torch.equal(logits_of_base(model), expected):
                return "with adapters disabled another answer than the base alone"
        finally:
            model.unload()
    return None


def logits_of_base(model: PeftModel) -> Tensor:
    model.eval()
    with model.disable_adapter():
        return logits(model)


def take(model: PeftModel, step: str, name: str, way: int, folder: str, saved: bool) -> bool:
    match step:
        case "add":
            bank = tiny_bank() if WAYS[way].has_bank else None
            model.add_adapter(name, WAYS[way].config(), memory_bank=bank)
        case "set":
            model.set_adapter(name)
        case "disable":
            with model.disable_adapter(), model.disable_adapter():
                logits(model)
        case "delete":
            model.delete_adapter(name)
        case "train":
            model.train(name == "a")
        case "save":
            model.save_pretrained(folder)
            saved = True
        case "load" if saved:
            model.load_adapter(folder, name)
        case "forward":
            out = logits(model.eval())
            assert bool(torch.isfinite(out).all()), "logits that are not finite"
        case _:
            model.count_parameters()
    return saved


@entry("model.PeftModel", call=walk, check=lambda args, result: result)
def peft_model(draw: Draw) -> dict[str, Spec]:
    step = st.tuples(st.sampled_from(STEPS), st.sampled_from(("a", "b", "default")))
    return {
        "way": Const(draw(st.integers(0, len(WAYS) - 1))),
        "steps": Const(tuple(draw(st.lists(step, max_size=5)))),
    }


@functools.cache
def awake(way: int) -> PeftModel:
    return WAYS[way].awake()


def forward(way: int, **call: Any) -> Any:
    return awake(way)(**call)


@entry("model.PeftModel forward", call=forward, also=("top_k",))
def peft_forward(draw: Draw) -> dict[str, Spec]:
    way = draw(st.integers(0, len(WAYS) - 1))
    has_bank = WAYS[way].has_bank
    batch = tuple(points()["batch"].tolist())
    number, size = len(batch), len(SIZES)
    args: dict[str, Spec] = {
        "way": Const(way),
        "pos": floats(draw, (number, 3), finite=True, coordinates=True),
        "batch": Whole(batch, sorted=True),
        "batch_size": Count(size, low=size, optional=True),
        "query": Maybe(floats(draw, (size, CHANNELS)), has_bank and draw(st.booleans())),
    }
    if has_bank:
        args["sample_id"] = Maybe(Whole(tuple(range(size))), draw(st.booleans()))
    return args
