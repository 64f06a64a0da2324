"""Run every example in a process and folder of its own; stop at the first that fails."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path


def run(script: Path) -> float:
    """Run one script and return the seconds it took."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, str(script)], check=True, cwd=folder)
    return time.perf_counter() - start


if __name__ == "__main__":
    scripts = sorted(Path(sys.argv[1]).resolve().glob("*.py"))
    if not scripts:
        sys.exit(f"No example in {sys.argv[1]}")
    for path in scripts:
        print(f"{path.name}: {run(path):.1f} s", flush=True)
