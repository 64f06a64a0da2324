"""Upload a saved adapter to the Hugging Face Hub, from where others load it by its name.

Only the files of the adapter are uploaded: no checkpoints, logs or results. The token is that of
your login with huggingface_hub, or of the environment variable HF_TOKEN.
"""

from typing import TYPE_CHECKING

from pyg_peft.cli.say import printable, say
from pyg_peft.tuners.engine.hub import check_repo, upload
from pyg_peft.tuners.engine.loading import find_bank, read_whole

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def add_arguments(parser: "ArgumentParser") -> None:
    """Add the options of :func:`run`, with the adapter as a positional argument."""
    parser.add_argument("adapter", help="folder of a saved adapter")
    parser.add_function_arguments(run, skip={"adapter"})


def run(
    adapter: str, repo: str, private: bool | None = None, message: str = "Upload adapter"
) -> str:
    """Check an adapter and upload it.

    Args:
        adapter: Folder of a saved adapter.
        repo: Name of the repository, such as org/name, created if needed.
        private: Whether a new repository is private; by default as in huggingface_hub.
        message: Message of the commit.
    """
    check_repo(repo, "repo")
    config = read_whole(adapter).config
    find_bank(config["memory_bank"], None, adapter)
    address = upload(adapter, repo, private=private, message=message, token=None)
    say(f"uploaded: {printable(address)}")
    return address
