"""Build a backbone from the name of its weights, and a saved adapter with its backbone."""

from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyg_peft.backbones.registry import BACKBONES, HEADS, list_backbones
from pyg_peft.backbones.weights import read_state_dict
from pyg_peft.backbones.weights.merged_files import is_merged, read_merged
from pyg_peft.backbones.weights.recorded_sizes import MOST, bounded_sizes, read_sizes
from pyg_peft.backbones.weights.shipped import SHIPPED, find_pretrained, shipped_for
from pyg_peft.errors import CheckpointError, MissingHeadError
from pyg_peft.model import PeftModel
from pyg_peft.tensor_file import short
from pyg_peft.tuners import MethodConfig
from pyg_peft.tuners.engine.hub import find_adapter
from pyg_peft.tuners.engine.loading import read_whole

# The default backbone of each kind of head.
DEFAULTS = {"classification": "PointMAE", "segmentation": "PointMAESegmentation"}

# Sizes that cannot be read off the weights.
_UNREADABLE = ("num_heads", "num_centers", "patch_size")


def backbone_class(name: str | None, task: str | None = None) -> type[Any]:
    """Return the class of a backbone for a task.

    Args:
        name: A key of ``BACKBONES``; ``None`` for the task's default.
        task: A key of ``DEFAULTS``; ``None`` for any, whose default is that of classification.

    Raises:
        ValueError: If there is no such task or name, or the backbone is for another task.
    """
    if task is not None and task not in HEADS:
        raise ValueError(f"Expected 'task' to be one of {', '.join(HEADS)} (got {task!r})")
    fitting = list_backbones(task)
    name = DEFAULTS[task or "classification"] if name is None else name
    if name not in fitting:
        what = "" if task is None else f" for {task}"
        raise ValueError(
            f"Expected 'backbone_class' to be one of {', '.join(fitting)}{what} (got {name!r})"
        )
    return BACKBONES[name]


def default_weights(kind: type[Any]) -> str:
    """Return the name of the shipped weights for a backbone.

    Raises:
        ValueError: If none ship for it. Random weights are never a default.
    """
    name = shipped_for(kind.__name__)
    if name is None:
        raise ValueError(
            f"Expected 'backbone' to name a file of weights, since none ship for {kind.__name__} "
            "(got None); 'random' trains on a frozen backbone that was never trained"
        )
    return name


def open_backbone(
    weights: str,
    num_classes: int,
    settings: Mapping[str, Any],
    seed: int,
    kind: type[Any] | None = None,
) -> Any:
    """Build a backbone with a head for ``num_classes``.

    Args:
        weights: ``"random"``, the name of weights that ship with the package, or a file of this
            library or of the authors.
        num_classes: Number of classes of the head. A file's head is replaced if it has another
            number.
        settings: Constructor arguments; sizes that can be inferred from the file are optional.
        seed: Random seed of weights that are not in the file (in pre-training files the summary
            token), so that the same call gives the same bits.
        kind: Class of the backbone; Point-MAE for classification by default.

    Raises:
        ValueError: If ``weights`` is none of these, or the settings do not fit.
        CheckpointError: If the file is damaged or of another model.
    """
    kind = BACKBONES["PointMAE"] if kind is None else kind
    known = [argument for argument in signature(kind).parameters if argument != "num_classes"]
    unknown = [argument for argument in settings if argument not in known]
    if unknown:
        raise ValueError(
            f"Expected 'backbone_args' to be among {', '.join(known)} (got {', '.join(unknown)})"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return _build(kind, weights, num_classes, dict(settings))
        except TypeError as error:
            raise ValueError(
                f"Expected 'backbone_args' to be of the types of {kind.__name__}'s arguments "
                f"(got {dict(settings)}: {error})"
            ) from error


def _build(kind: type[Any], weights: str, num_classes: int, settings: dict[str, Any]) -> Any:
    if weights == "random":
        return kind(num_classes, **settings)
    stored, state = _find(weights)
    sizes = {k: v for k, v in stored.items() if k in signature(kind).parameters} | settings
    try:
        model = kind.from_checkpoint(state, None, **sizes)
    except MissingHeadError:
        model = kind.from_checkpoint(state, num_classes, **sizes)
    if model.num_classes != num_classes:
        model.reset_head(num_classes)
    return model


def open_recorded(
    config: Mapping[str, Any], weights: str | None, settings: Mapping[str, Any]
) -> nn.Module:
    """Build the base that an adapter's configuration describes, with its weights.

    Args:
        config: Configuration in an adapter's folder.
        weights: Weights as in :func:`open_backbone`; ``None`` for those recorded in the adapter.
            If it records none, the shipped weights for its backbone are taken. The fingerprint
            detects different ones when the adapter is loaded.
        settings: Constructor arguments that replace the recorded ones.

    Raises:
        CheckpointError: If the adapter was made for an unknown class.
        ValueError: If no weights are given and the recorded file does not exist, or if neither is
            known.
    """
    backbone = config["backbone"]
    if backbone["class"] not in BACKBONES:
        raise CheckpointError(
            f"Expected 'backbone.class' of the adapter to be one of {', '.join(BACKBONES)} "
            f"(got {short(backbone['class'])}): an adapter of another model is loaded by "
            "PeftModel.from_pretrained onto a base that you build"
        )
    recorded = (config.get("preprocessing") or {}).get("weights") or {}
    if not isinstance(recorded, dict):
        raise CheckpointError(
            f"Expected 'preprocessing.weights' to be an object (got {short(recorded)})"
        )
    told, seed = recorded.get("source"), recorded.get("seed", 0)
    if not (told is None or isinstance(told, str)) or type(seed) is not int or seed >> 63:
        raise CheckpointError(
            "Expected 'preprocessing.weights' to hold a text 'source' and an integer 'seed' "
            f"(got {short(recorded)})"
        )
    kind = BACKBONES[backbone["class"]]
    weights = weights or told or default_weights(kind)
    if weights is told and (weights.startswith(("//", "\\\\")) or "://" in weights):
        raise ValueError(
            "Expected an adapter to record weights on this machine "
            f"(got {weights!r}): name them by 'backbone'"
        )
    sizes = bounded_sizes(backbone.get("config"), kind)
    num_classes = sizes.pop("num_classes")
    if weights != "random":
        # Inferred from the weights themselves; the fingerprint detects different weights.
        sizes = {k: v for k, v in sizes.items() if k not in ("embed_dim", "depth")}
    # Weights that are drawn depend on the head's size, so the first head is drawn again too.
    drawn = recorded.get("num_classes", num_classes)
    if type(drawn) is not int or not 0 < drawn <= MOST["num_classes"]:
        raise CheckpointError(
            f"Expected 'preprocessing.weights.num_classes' to be a number (got {short(drawn)})"
        )
    base = open_backbone(weights, drawn, {**sizes, **settings}, seed, kind)
    if drawn != num_classes:
        renew_head(base, num_classes, seed)
    return base


def renew_head(base: Any, num_classes: int, seed: int) -> None:
    """Give a backbone a new head for ``num_classes``, drawn from ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        base.reset_head(num_classes)


def load(
    folder: str | Path,
    *,
    backbone: str | None = None,
    backbone_args: Mapping[str, Any] | None = None,
    configs: Sequence[type[MethodConfig]] = (),
    revision: str | None = None,
) -> PeftModel:
    """Load a saved adapter together with its base.

    For a base that is not a backbone of this library, or that you have already, use
    :meth:`~pyg_peft.model.PeftModel.from_pretrained`.

    Args:
        folder: The folder that ``save_pretrained`` or ``pyg-peft fit`` wrote, or the name of an
            adapter on the Hugging Face Hub, such as ``"org/name"`` (extra ``hub``).
        backbone: Weights of the base: the name of shipped weights, a file, or ``"random"``. By
            default those recorded by ``pyg-peft fit``; otherwise shipped weights.
        backbone_args: Constructor arguments of the base that replace the recorded ones.
        configs: Third-party methods that the file may hold.
        revision: Branch, tag or commit on the Hub.

    Returns:
        The model in eval mode, on the CPU.

    Raises:
        CheckpointError: If a file is damaged, or the weights are not those that the adapter was
            trained on.
        ValueError: If the weights are unknown or missing.

    Example:
        >>> import tempfile, torch, pyg_peft
        >>> from pyg_peft.backbones import PointMAE
        >>> base = PointMAE.from_pretrained("point-mae-tiny", num_classes=3)
        >>> model = pyg_peft.get_peft_model(base, pyg_peft.LoRAConfig(rank=2)).eval()
        >>> folder = tempfile.mkdtemp()
        >>> model.save_pretrained(folder)
        >>> pos, batch = torch.randn(64, 3), torch.zeros(64, dtype=torch.long)
        >>> torch.equal(pyg_peft.load(folder)(pos=pos, batch=batch), model(pos=pos, batch=batch))
        True
    """
    folder = find_adapter(folder, revision)
    config = read_whole(folder).config
    base = open_recorded(config, backbone, backbone_args or {})
    try:
        return PeftModel.from_pretrained(base, folder, configs=configs)
    except CheckpointError as error:
        recorded = (config.get("preprocessing") or {}).get("weights")
        if backbone is None and not recorded:
            raise CheckpointError(
                f"{error}; '{folder}' does not record the weights of its base: name them by "
                "'backbone'"
            ) from error
        raise


def _find(weights: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the sizes stored with the weights that ``weights`` names, and their tensors."""
    if weights in SHIPPED:
        path, sizes = find_pretrained(weights)
        return sizes, read_state_dict(path)
    if is_merged(weights):
        merged, state = read_merged(weights)
        sizes = bounded_sizes(merged["config"], BACKBONES.get(merged["class"], nn.Module))
        return {k: v for k, v in sizes.items() if k != "num_classes"}, state
    if not Path(weights).is_file():
        names = ", ".join(["random", *SHIPPED])
        raise ValueError(
            f"Expected 'backbone' to be one of {names} or a file that exists (got {weights!r})"
        )
    state = read_state_dict(weights)  # first, for a clear error if the file is damaged
    sizes = read_sizes(weights)
    return {k: sizes[k] for k in _UNREADABLE if k in sizes}, state


__all__ = [
    "DEFAULTS",
    "backbone_class",
    "default_weights",
    "load",
    "open_backbone",
    "open_recorded",
    "renew_head",
]
