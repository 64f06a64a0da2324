"""Build source-only extensions of torch once, keep the wheels, and install them from there.

The build needs torch beforehand and takes 10 to 20 minutes of one core, so the wheels stay in a
folder outside of tox: ``$PYG_PEFT_WHEELS``, or ``pyg_peft/wheels`` in the user's cache. A folder
for each Python, torch and platform keeps builds apart that do not fit each other.
"""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path


def wheel_folder() -> Path:
    """Return the folder for wheels that fit this interpreter, torch and machine."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pyg_peft" / "wheels"
    root = Path(os.environ.get("PYG_PEFT_WHEELS", cache))
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    torch = f"torch{metadata.version('torch')}"
    return root / "-".join([python, torch, sys.platform, platform.machine()])


def install(requirement: str, folder: Path) -> None:
    """Install ``name==version`` from ``folder``, after a build if its wheel is not there."""
    name, _, version = requirement.partition("==")
    pip = [sys.executable, "-m", "pip"]
    if not list(folder.glob(f"{name}-{version}-*.whl")):
        folder.mkdir(parents=True, exist_ok=True)
        build = ["wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", str(folder)]
        subprocess.run([*pip, *build, requirement], check=True)
    fetch = ["install", "--no-deps", "--no-index", "--find-links", str(folder)]
    subprocess.run([*pip, *fetch, requirement], check=True)


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        install(wanted, wheel_folder())
