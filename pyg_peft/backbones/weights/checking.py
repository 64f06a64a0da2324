"""Checks of backbone weights: infer sizes, check every shape, and load all or nothing."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pyg_peft.backbones.weights.reading import join_names
from pyg_peft.errors import CheckpointError, MissingHeadError

Model = TypeVar("Model", bound=nn.Module)


def load_checked(
    module: nn.Module, state: Mapping[str, Tensor], *, fresh: Iterable[str] = ()
) -> None:
    """Load ``state`` into ``module``, or raise without changing it.

    Args:
        module: Module to fill; it keeps its dtypes and devices.
        state: Tensor for every key of ``module.state_dict()``.
        fresh: Prefixes of keys that may be missing in ``state``; they keep their initial values.

    Raises:
        CheckpointError: If a key is left over or missing, or a shape is wrong; the message names
            them.
    """
    expected = module.state_dict()
    _check_fit(type(module).__name__, expected, state, fresh)
    module.load_state_dict({**expected, **state})


def build_checked(
    make: Callable[[], Model], state: Mapping[str, Tensor], *, fresh: Iterable[str] = ()
) -> Model:
    """Build the module that fits ``state``, and load ``state`` into it.

    The module is first built on the meta device. Claimed sizes that the tensors do not have are
    therefore rejected before memory is allocated for them.

    Args:
        make: Function that calls the constructor with the sizes inferred from ``state``.
        state: As in :func:`load_checked`.
        fresh: As in :func:`load_checked`.

    Raises:
        CheckpointError: As in :func:`load_checked`, or if a size is too large for any memory.
    """
    fresh = tuple(fresh)
    try:
        with torch.device("meta"):
            shapes = make()
    except (OverflowError, RuntimeError) as error:
        raise CheckpointError(
            f"Expected the sizes inferred from 'source' to be those of a model (got: {error})"
        ) from error
    _check_fit(type(shapes).__name__, shapes.state_dict(), state, fresh)
    model = make()
    load_checked(model, state, fresh=fresh)
    return model


def _check_fit(
    name: str, expected: Mapping[str, Tensor], state: Mapping[str, Tensor], fresh: Iterable[str]
) -> None:
    leftovers = [key for key in state if key not in expected]
    excused = tuple(fresh)
    missing = sorted(key for key in expected if key not in state and not key.startswith(excused))
    wrong = [
        f"{key} {list(state[key].shape)} instead of {list(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    problems = [
        f"{kind}: {join_names(keys)}"
        for kind, keys in (("leftover", leftovers), ("missing", missing), ("wrong shape", wrong))
        if keys
    ]
    if problems:
        raise CheckpointError(f"Expected 'source' to fit {name} (got {'; '.join(problems)})")
    for key, value in state.items():
        if key.endswith("running_var") and bool((value.double() < 0).any()):
            raise CheckpointError(
                f"Expected '{key}' of 'source' to hold variances, 0 or above (got {value.min():g})"
            )


def infer_depth(state: Mapping[str, Tensor], name: str = "blocks") -> int:
    """Return the number of blocks: one more than the largest ``N`` in ``blocks.N.…``.

    Raises:
        CheckpointError: If this is more than the number of keys, so that a number in a name cannot
            cause that many blocks to be built.
    """
    pattern = re.compile(rf"{re.escape(name)}\.(\d+)\.")
    found = {match[1] for key in state if (match := pattern.match(key))}
    far = [digits for digits in found if len(digits) > 9 or int(digits) >= len(state)]
    if far:
        raise CheckpointError(
            f"Expected 'source' to number the blocks of '{name}' from 0 on, below its {len(state)} "
            f"keys (got {join_names(f'{name}.{digits[:20]}' for digits in sorted(far))})"
        )
    return max((int(digits) for digits in found), default=-1) + 1


def infer_width(state: Mapping[str, Tensor], key: str, leftovers: Mapping[str, Tensor]) -> int:
    """Return the length of the vector ``key``, which every file of this family has.

    Raises:
        CheckpointError: If the vector is missing; the message lists the keys of the file.
    """
    if key not in state or state[key].dim() != 1:
        held = [*state, *leftovers]
        raise CheckpointError(
            f"Expected 'source' to be a checkpoint of the Point-MAE family, with a vector '{key}' "
            f"after renaming (got {join_names(held)})"
        )
    return state[key].numel()


def count_classes(num_classes: int | None, stored: int | None) -> int:
    """Return the number of classes of a file's head, or ``num_classes`` without a head.

    Raises:
        ValueError: If both are missing, or they differ.
    """
    if stored is None:
        if num_classes is None:
            raise MissingHeadError(
                "Expected 'num_classes' to be given for weights without a head (got None)"
            )
        return num_classes
    if num_classes not in (None, stored):
        raise ValueError(
            f"Expected 'num_classes' to be {stored}, the size of the checkpoint's head "
            f"(got {num_classes}): leave it out, then call reset_head({num_classes}) for a "
            "fresh head"
        )
    return stored


def agreed_sizes(read: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Merge sizes inferred from weights with further constructor arguments of the caller.

    Args:
        read: Sizes inferred from the weights.
        given: Arguments of the caller.

    Raises:
        ValueError: If a size is in both and differs.
    """
    for name in read:
        if name in given and read[name] != given[name]:
            raise ValueError(
                f"Expected '{name}' to be left out or {read[name]}, as in the weights "
                f"(got {given[name]!r})"
            )
    return {**given, **read}


def refuse_leftovers(leftovers: Mapping[str, Tensor], name: str) -> None:
    """Raise :class:`CheckpointError` with the keys that match nothing in ``name``, if any."""
    if leftovers:
        raise CheckpointError(
            f"Expected every key of 'source' to belong to {name} (got leftover: "
            f"{join_names(list(leftovers))})"
        )


__all__ = [
    "agreed_sizes",
    "build_checked",
    "count_classes",
    "infer_depth",
    "infer_width",
    "load_checked",
    "refuse_leftovers",
]
