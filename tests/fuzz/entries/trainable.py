"""Strategies for ``pyg_peft.trainable``, ``pyg_peft.errors`` and ``pyg_peft.checkpoint``."""

import fnmatch
import json
from typing import Any

import torch
from fuzz import dice as st
from fuzz.dice import Draw
from fuzz.sandbox import EITHER
from fuzz.strategies import (
    Args,
    Const,
    Floats,
    Made,
    Perhaps,
    Spec,
    Whole,
    Words,
    clouds,
    entry,
    floats,
)
from torch import nn

from pyg_peft import checkpoint, errors, trainable


def network(seed: int) -> nn.Module:
    """A small tree of modules with shared, frozen and repeated parts."""
    shared = nn.Linear(2, 2)
    shared.requires_grad_(bool(seed % 2))
    blocks = [nn.Sequential(nn.Linear(2, 2), nn.ReLU(), shared) for _ in range(1 + seed % 3)]
    return nn.ModuleDict(
        {"blocks": nn.ModuleList(blocks), "norm": nn.BatchNorm1d(2), "head": nn.Linear(2, 1)}
    )


def some_network(draw: Draw) -> Made:
    return Made(network, (draw(st.integers(0, 5)),))


def check_freeze(args: Args, result: Any) -> str | None:
    if result is not args["module"] or result.training:
        return "another module, or one in training mode"
    return "a parameter is trained" if any(p.requires_grad for p in result.parameters()) else None


@entry("trainable.freeze", call=trainable.freeze, check=check_freeze)
def freeze(draw: Draw) -> dict[str, Spec]:
    return {"module": some_network(draw)}


def check_listed(args: Args, result: Any) -> str | None:
    expected = [id(p) for p in args["module"].parameters() if p.requires_grad]
    return None if [id(p) for _, p in result] == expected else "other parameters"


@entry("trainable.trainable_parameters", call=trainable.trainable_parameters, check=check_listed)
def trainable_parameters(draw: Draw) -> dict[str, Spec]:
    return {"module": some_network(draw)}


def check_shared(args: Args, result: Any) -> str | None:
    named = [id(p) for _, p in args["module"].named_parameters(remove_duplicate=False)]
    expected = [i for i in dict.fromkeys(named) if named.count(i) > 1]
    return None if [id(p) for p in result] == expected else "other parameters"


@entry("trainable.shared_parameters", call=trainable.shared_parameters, check=check_shared)
def shared_parameters(draw: Draw) -> dict[str, Spec]:
    return {"module": some_network(draw)}


def check_count(args: Args, result: Any) -> str | None:
    trained = sum(p.numel() for p in args["module"].parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in args["module"].parameters() if not p.requires_grad)
    if (result.trainable, result.frozen) != (trained, frozen) or not str(result):
        return f"{result} instead of {trained} and {frozen}"
    return None


@entry("trainable.count_parameters", call=trainable.count_parameters, check=check_count)
def count_parameters(draw: Draw) -> dict[str, Spec]:
    heads = draw(st.sampled_from((("head",), (), ("blocks.0", "norm"))))
    return {"module": some_network(draw), "head": Const(heads)}


@entry("trainable.ParameterCount", call=lambda **args: str(trainable.ParameterCount(**args)))
def parameter_count(draw: Draw) -> dict[str, Spec]:
    return {name: Const(draw(st.integers(0, 99))) for name in ("trainable", "head", "frozen")}


TARGETS = ("**", "*", "blocks.*", "blocks.0.2", "blocks.**", "norm", "re:.*0", "head", "?orm")


def check_matched(args: Args, result: Any) -> str | None:
    modules = dict(args["root"].named_modules())
    if any(modules[path] is not module for path, module in result.items()):
        return f"paths {list(result)} of other modules"
    if args["targets"] == ("blocks.*",):
        expected = [path for path in modules if fnmatch.fnmatchcase(path, "blocks.?")]
        return None if list(result) == expected else f"{list(result)} instead of {expected}"
    return None if result or not args["targets"] else "nothing, and no error"


@entry(
    "trainable.match_modules",
    call=trainable.match_modules,
    check=check_matched,
    also=("target_modules",),
)
def match_modules(draw: Draw) -> dict[str, Spec]:
    return {
        "root": some_network(draw),
        "targets": Words((draw(st.sampled_from(TARGETS)),)),
    }


def check_targets_alone(targets: Any) -> None:
    trainable.check_targets(targets)


@entry(
    "trainable.check_targets",
    call=check_targets_alone,
    also=("target_modules",),
    fixed=("targets",),
)
def check_targets(draw: Draw) -> dict[str, Spec]:
    junk = ("re:(", "re:*", "", 3, None, b"x", ["x"])
    some = draw(st.lists(st.sampled_from((*TARGETS, *junk)), max_size=3))
    return {"targets": Perhaps(tuple(some))}


# ---- checks --------------------------------------------------------------------------------------


@entry("errors.check_pos", call=errors.check_pos)
def check_pos(draw: Draw) -> dict[str, Spec]:
    return {"pos": clouds(draw).pos(draw)}


@entry("errors.check_batch", call=errors.check_batch, fixed=("batch_size",))
def check_batch(draw: Draw) -> dict[str, Spec]:
    cloud = clouds(draw)
    return {
        "batch": cloud.batch(),
        "num_nodes": Const(cloud.num_points),
        "batch_size": cloud.batch_size(),
    }


@entry("errors.check_channels", call=errors.check_channels)
def check_channels(draw: Draw) -> dict[str, Spec]:
    channels = draw(st.integers(0, 4))
    return {"x": floats(draw, (draw(st.integers(0, 3)), channels)), "channels": Const(channels)}


# ---- the adapter's folder ------------------------------------------------------------------------


def check_digest(args: Args, result: Any) -> str | None:
    again = checkpoint.fingerprint(dict(reversed(args["tensors"].items())), args["text"])
    return None if again == result and len(result) == 64 else "another order, another hash"


@entry("checkpoint.fingerprint", call=checkpoint.fingerprint, check=check_digest)
def fingerprint(draw: Draw) -> dict[str, Spec]:
    return {"tensors": Tensors(draw), "text": Const(draw(st.sampled_from(("", "a\0ü"))))}


class Tensors(Spec):
    """Named tensors of any type and layout."""

    base = EITHER

    def __init__(self, draw: Draw) -> None:
        self.specs: dict[str, Spec] = {}
        for place in range(draw(st.integers(0, 3))):
            spec: Spec = draw(
                st.sampled_from((Floats((2, 3)), Whole((1, 2)), Floats(()), Floats((0, 2))))
            )
            options = [s for s, _ in spec.odd() if isinstance(s, Floats | Whole)]
            self.specs[f"t{place}"] = draw(st.sampled_from([spec, *options]))

    def make(self) -> dict[str, torch.Tensor]:
        made = {name: spec.make() for name, spec in self.specs.items()}
        return {name: t for name, t in made.items() if t.device.type != "meta"}


@entry("checkpoint.bank_name", call=checkpoint.bank_name)
def bank_name(draw: Draw) -> dict[str, Spec]:
    return {"digest": Const("0123456789abcdef" * 4)}


def check_fit(args: Args, result: Any) -> str | None:
    found = {name: t.shape for name, t in args["found"].items()}
    expected = {name: t.shape for name, t in args["expected"].items()}
    return None if found == expected else f"{found} was taken for {expected}"


def check_tensors_alone(found: Any, expected: Any, source: str) -> None:
    checkpoint.check_tensors(found, expected, source)


@entry("checkpoint.check_tensors", call=check_tensors_alone, check=check_fit)
def check_tensors(draw: Draw) -> dict[str, Spec]:
    return {"found": Tensors(draw), "expected": Tensors(draw), "source": Const("source")}


VALUES = (
    None,
    1,
    2.5,
    "a",
    True,
    [1, [2]],
    {"b": {}},
    float("nan"),
    1j,
    {3: 4},
    {"x": {1, 2}},
    b"",
)


def check_json(args: Args, result: Any) -> str | None:
    return None if json.loads(result) == args["config"] else f"{result} of {args['config']}"


@entry(
    "checkpoint.to_json",
    call=checkpoint.to_json,
    check=check_json,
    also=(*"abc", "finite", "JSON"),
)
def to_json(draw: Draw) -> dict[str, Spec]:
    return {"config": Perhaps({name: draw(st.sampled_from(VALUES)) for name in "abc"})}


def write(folder: str, tensors: Any, config: Any) -> Any:
    import tempfile

    with tempfile.TemporaryDirectory() as root:
        checkpoint.write_adapter(f"{root}/{folder}", tensors, config, "card")
        return checkpoint.read_adapter(f"{root}/{folder}").tensors


def check_written(args: Args, result: Any) -> str | None:
    for name, tensor in args["tensors"].items():
        same = torch.equal(
            result[name].reshape(-1).view(torch.uint8),
            tensor.contiguous().reshape(-1).view(torch.uint8),
        )
        if result[name].dtype != tensor.dtype or result[name].shape != tensor.shape or not same:
            return f"'{name}' came back as {result[name]}"
    return None


@entry("checkpoint.write_adapter", call=write, check=check_written, also=(*"abc", "t0", "t1", "t2"))
def write_adapter(draw: Draw) -> dict[str, Spec]:
    return {
        "folder": Const(draw(st.sampled_from(("a", "a/b", "ü")))),
        "tensors": Tensors(draw),
        "config": Perhaps({name: draw(st.sampled_from(VALUES)) for name in "abc"}),
    }


__all__ = ["network"]
