"""Export a saved adapter with its base to a file that runs without this package."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pyg_peft.cli.saved import open_adapter
from pyg_peft.cli.say import printable, say
from pyg_peft.deployment.export import export_model

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

_UP_AXES = ("x", "y", "z")


def add_arguments(parser: "ArgumentParser") -> None:
    """Add the options of :func:`run`, with the adapter as a positional argument."""
    parser.add_argument("adapter", help="folder that fit wrote")
    parser.add_function_arguments(run, skip={"adapter"})


def run(
    adapter: str,
    output: str,
    format: str = "onnx",
    preprocessing: bool = False,
    backbone: str | None = None,
    backbone_args: dict[str, Any] | None = None,
) -> None:
    """Export an adapter with its base.

    Args:
        adapter: Folder written by fit.
        output: File to write, such as model.onnx or model.pt2.
        format: "onnx" or "torch_export".
        preprocessing: Whether the graph also turns, centers and scales clouds as in training.
            Points are never drawn in the graph.
        backbone: Weights of the base; by default those recorded in the adapter.
        backbone_args: Constructor arguments that replace the recorded ones.
    """
    saved = open_adapter(adapter, backbone, backbone_args or {})
    model: Any = saved.model
    with suppress(NotImplementedError):  # prompts and adapters stay in the graph
        model = saved.model.merge_and_unload()  # a smaller graph with the same values
    settings = saved.preprocessing
    export_model(
        model,
        output,
        format=format,
        normalize=preprocessing and settings.normalize,
        roll=2 - _UP_AXES.index(settings.up_axis) if preprocessing else 0,
        details={
            "class_names": list(saved.class_names),
            "preprocessing": settings.to_dict(),
            "preprocessing_in_graph": preprocessing,
        },
    )
    say(printable(f"{format} model in {output}"))
