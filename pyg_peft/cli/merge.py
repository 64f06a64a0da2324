"""Merge a saved adapter into its base, and write the whole model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyg_peft.cli.saved import open_adapter
from pyg_peft.cli.say import printable, say
from pyg_peft.deployment.merged import save_merged

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def add_arguments(parser: "ArgumentParser") -> None:
    """Add the options of :func:`run`, with the adapter as a positional argument."""
    parser.add_argument("adapter", help="folder that fit wrote")
    parser.add_function_arguments(run, skip={"adapter"})


def run(
    adapter: str,
    output: str,
    backbone: str | None = None,
    backbone_args: dict[str, Any] | None = None,
) -> None:
    """Merge an adapter.

    Args:
        adapter: Folder written by fit.
        output: Folder of the merged model; other commands take it as --backbone.
        backbone: Weights of the base; by default those recorded in the adapter.
        backbone_args: Constructor arguments that replace the recorded ones.
    """
    if Path(output).is_file():
        raise ValueError(f"Expected 'output' to be a folder (got the file '{output}')")
    saved = open_adapter(adapter, backbone, backbone_args or {})
    try:
        save_merged(
            saved.model,
            output,
            class_names=saved.class_names,
            preprocessing={**saved.preprocessing.to_dict(), "read_args": saved.read_args},
        )
    except NotImplementedError as error:
        raise ValueError(
            f"{error}; write the model together with its adapter by 'pyg-peft export'"
        ) from error
    say(printable(f"merged model in {output}"))
