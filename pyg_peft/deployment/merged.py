"""Merged models: a folder with the whole model, for users who need no adapter any more."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from pyg_peft.backbones.registry import BACKBONES
from pyg_peft.backbones.weights.merged_files import CONFIG, WEIGHTS, read_merged
from pyg_peft.backbones.weights.recorded_sizes import bounded_sizes
from pyg_peft.checkpoint import to_json
from pyg_peft.errors import CheckpointError
from pyg_peft.model import PeftModel
from pyg_peft.storage import write_atomic
from pyg_peft.tensor_file import check_values, fingerprint, short


def save_merged(
    model: PeftModel,
    folder: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Fold the active adapter into its base, and write the whole model to a folder.

    The folder holds ``model.safetensors`` and ``model_config.json``: the class of the backbone and
    its arguments, names and preprocessing. :func:`load_merged` reads it, and so does every command
    with ``--backbone folder``.

    Args:
        model: Model with an active adapter. It ends up without adapters, merged.
        folder: Folder to write to, created if needed.
        class_names: Names of the classes, in the order of the logits.
        preprocessing: JSON values, as in ``PeftModel.save_pretrained``.

    Returns:
        The merged backbone.

    Raises:
        ValueError: If the base is not a registered backbone of this library.
        TypeError: If a value is no JSON value.
        NotImplementedError: If the method cannot be merged. Nothing is changed or written then.

    Example:
        >>> import tempfile, torch
        >>> from pyg_peft import LoRAConfig, get_peft_model
        >>> from pyg_peft.backbones import PointNet
        >>> model = get_peft_model(PointNet(4), LoRAConfig(target_modules=["levels.**.lins.*"]))
        >>> folder = tempfile.mkdtemp()
        >>> merged = save_merged(model.eval(), folder)
        >>> type(load_merged(folder)).__name__
        'PointNet'
    """
    name = type(model.base).__name__
    if BACKBONES.get(name) is not type(model.base):
        raise ValueError(
            f"Expected the base to be one of {', '.join(BACKBONES)} (got {name!r}): register it by "
            "register_backbone, so that the merged model can be loaded"
        )
    config: dict[str, Any] = {
        "format": 1,
        "backbone": {"class": name, "config": model.base.config},
        "class_names": None if class_names is None else list(class_names),
        "preprocessing": None if preprocessing is None else dict(preprocessing),
    }
    to_json(config)  # raises for other values, before anything is merged
    base: Any = model.merge_and_unload()
    state = {key: tensor.detach().clone() for key, tensor in base.state_dict().items()}
    for key, tensor in state.items():
        check_values(key, tensor)
    config["backbone"]["config"] = base.config  # with the number of classes of the merged head
    config["fingerprint"] = fingerprint(state)
    text, folder = to_json(config) + "\n", Path(folder)
    whole = save({key: tensor.contiguous() for key, tensor in state.items()})
    write_atomic(folder / WEIGHTS, lambda path: path.write_bytes(whole))
    write_atomic(folder / CONFIG, lambda path: path.write_bytes(text.encode()))
    return base


def load_merged(folder: str | Path) -> nn.Module:
    """Build the model of a folder that :func:`save_merged` wrote, in eval mode on the CPU.

    Raises:
        FileNotFoundError: If the folder holds no merged model.
        CheckpointError: If a file is damaged, or names an unknown backbone.
    """
    config, state = read_merged(folder)
    kind = BACKBONES.get(config["class"])
    if kind is None:
        raise CheckpointError(
            f"Expected '{folder}' to hold one of {', '.join(BACKBONES)} "
            f"(got {short(config['class'])})"
        )
    sizes = bounded_sizes(config["config"], kind)
    del sizes["num_classes"]  # the tensors of the head have it
    try:
        return kind.from_checkpoint(state, None, **sizes).eval()
    except TypeError as error:
        raise CheckpointError(f"Expected '{folder}' to fit {kind.__name__} ({error})") from error


__all__ = ["load_merged", "save_merged"]
