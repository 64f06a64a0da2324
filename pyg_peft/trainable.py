"""Functions that select parameters and modules: freeze, match, list and count.

Modules are matched by their whole path, segment by segment, never by a substring of a name, and
parameters by ``requires_grad``. The rest of the library uses these functions to select parameters.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import nn

from pyg_peft.errors import PlacementError, check_module, nearest_paths
from pyg_peft.nn.module_paths import matches_glob

#: A path in which ``*`` matches one segment and ``**`` many; ``re:`` and a regular expression; or a
#: class, which matches its instances.
Target: TypeAlias = str | type[nn.Module]


def freeze(module: nn.Module) -> nn.Module:
    """Disable the gradients of ``module`` and put it in eval mode, which also fixes its buffers.

    Args:
        module: Module to freeze, changed in place.

    Returns:
        The same module.

    Example:
        >>> from torch import nn
        >>> layer = freeze(nn.BatchNorm1d(4))
        >>> any(p.requires_grad for p in layer.parameters()), layer.training
        (False, False)
    """
    check_module(module)
    module.requires_grad_(False)
    return module.eval()


def trainable_parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """List the trainable parameters for an optimizer: each one once, with its first name.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(freeze(nn.Linear(2, 2)), nn.Linear(2, 1))
        >>> [name for name, _ in trainable_parameters(net)]
        ['1.weight', '1.bias']
    """
    check_module(module)
    return [(name, p) for name, p in module.named_parameters() if p.requires_grad]


def shared_parameters(module: nn.Module) -> list[nn.Parameter]:
    """List the parameters that several modules share, each one once.

    They are required to shard a model part by part. A parameter can belong to one part only, so
    shared parameters are left to the root module.

    Example:
        >>> from torch import nn
        >>> layer = nn.Linear(2, 2)
        >>> net = nn.ModuleDict({"a": nn.Sequential(layer, nn.Linear(2, 1)), "b": layer})
        >>> [tuple(p.shape) for p in shared_parameters(net)]
        [(2, 2), (2,)]
    """
    check_module(module)
    count: dict[int, int] = {}
    for _, parameter in module.named_parameters(remove_duplicate=False):
        count[id(parameter)] = count.get(id(parameter), 0) + 1
    return [parameter for parameter in module.parameters() if count[id(parameter)] > 1]


@dataclass(frozen=True)
class ParameterCount:
    """Number of parameters of a model, each counted once.

    Attributes:
        trainable: Parameters that require a gradient, including those of the head.
        head: Trainable parameters that belong to a head.
        frozen: All other parameters.
    """

    trainable: int
    head: int
    frozen: int

    @property
    def without_head(self) -> int:
        """Trainable parameters that do not belong to the head."""
        return self.trainable - self.head

    def __str__(self) -> str:
        share = 100.0 * self.without_head / max(self.frozen, 1)
        return (
            f"trainable: {self.trainable:,} (head {self.head:,}, "
            f"without head {self.without_head:,})"
            f" | frozen: {self.frozen:,} | without head: {share:.2f} % of the frozen parameters"
        )


def count_parameters(module: nn.Module, head: Sequence[str] = ("head",)) -> ParameterCount:
    """Count trainable, head and frozen parameters.

    Args:
        module: The model. A parameter that appears under two names counts once.
        head: Paths of the modules that count as head. A parameter belongs to the head if its path
            contains one of them as whole, consecutive segments.

    Example:
        >>> from torch import nn
        >>> net = nn.ModuleDict({"body": freeze(nn.Linear(2, 2)), "head": nn.Linear(2, 1)})
        >>> count_parameters(net)
        ParameterCount(trainable=3, head=3, frozen=6)
    """
    check_module(module)
    if isinstance(head, str):
        raise TypeError(f"Expected 'head' to be a sequence of paths (got {head!r})")
    trainable = of_head = frozen = 0
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            frozen += parameter.numel()
            continue
        trainable += parameter.numel()
        if any(f".{path}." in f".{name}" for path in head):
            of_head += parameter.numel()
    return ParameterCount(trainable, of_head, frozen)


def check_targets(targets: Iterable[Target], *, argument: str = "target_modules") -> None:
    """Raise unless every target is a path, glob, regular expression or class.

    Args:
        targets: As in :func:`match_modules`.
        argument: Name of the user's argument that holds ``targets``, for the message.

    Raises:
        TypeError: If a target is something else.
        ValueError: If a target starts with ``re:`` but is not a regular expression.
    """
    for target in targets:
        if not isinstance(target, (str, type)):
            raise TypeError(
                f"Expected '{argument}' to hold paths, globs, 're:' expressions or classes "
                f"(got {target!r})"
            )
        if isinstance(target, str) and target.startswith("re:"):
            try:
                re.compile(target[3:])
            except re.error as error:
                raise ValueError(
                    f"Expected '{argument}' to hold a regular expression after 're:' "
                    f"(got {target!r}: {error})"
                ) from error


def match_modules(
    root: nn.Module,
    targets: Iterable[Target],
    *,
    ignore: str = "peft",
    argument: str = "target_modules",
) -> dict[str, nn.Module]:
    r"""Find modules by path, glob, regular expression or class.

    Args:
        root: The model; its own path is ``""``.
        targets: Paths, regular expressions or classes. In a path, ``*`` matches one segment (or a
            part of one) and ``**`` any number of segments. A regular expression follows ``re:`` and
            must match the whole path.
        ignore: Subtrees under a child with this name are not searched.
        argument: Name of the user's argument that holds ``targets``, for the message.

    Returns:
        A dictionary from paths to modules, in the model's own order. A module with several paths
        appears under the first.

    Raises:
        PlacementError: If a target matches nothing. The message lists the nearest paths.
        TypeError: If a target is none of these.
        ValueError: If a regular expression is invalid.

    Example:
        >>> from torch import nn
        >>> net = nn.ModuleDict({"down": nn.Linear(2, 2), "up": nn.Linear(2, 2)})
        >>> list(match_modules(net, ["d*"])), list(match_modules(net, [nn.Linear]))
        (['down'], ['down', 'up'])
    """
    check_module(root, "root")
    if not isinstance(targets, Iterable):
        raise TypeError(f"Expected '{argument}' to be a sequence of targets (got {targets!r})")
    targets = tuple(targets)
    check_targets(targets, argument=argument)
    # A module shared by two parents has a path from each.
    modules = {
        path: module
        for path, module in root.named_modules(remove_duplicate=False)
        if ignore not in path.split(".")
    }
    found: set[int] = set()
    for target in targets:
        hits = {id(module) for path, module in modules.items() if _matches(path, module, target)}
        if not hits:
            raise PlacementError(_nothing_matched(argument, target, modules))
        found |= hits
    return {
        path: module
        for path, module in root.named_modules()
        if id(module) in found and ignore not in path.split(".")
    }


def _matches(path: str, module: nn.Module, target: Target) -> bool:
    if isinstance(target, type):
        return isinstance(module, target)
    if target.startswith("re:"):
        return re.fullmatch(target[3:], path) is not None
    return matches_glob(path, target)


def _nothing_matched(argument: str, target: Target, modules: dict[str, nn.Module]) -> str:
    if isinstance(target, type):
        classes = sorted({type(m).__name__ for m in modules.values()})
        got = f"got {target.__name__}; the model holds {', '.join(classes)}"
    else:
        paths = [path for path in modules if path]
        got = f"got {target!r}; nearest paths: {nearest_paths(target, paths)}"
        suffix = f"**.{target}"
        if any(matches_glob(path, suffix) for path in paths):
            got += f"; {suffix!r} matches at any depth"
    return f"Expected '{argument}' to match at least one module each ({got})"


__all__ = [
    "ParameterCount",
    "Target",
    "check_targets",
    "count_parameters",
    "freeze",
    "match_modules",
    "shared_parameters",
    "trainable_parameters",
]
