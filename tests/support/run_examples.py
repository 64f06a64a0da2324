"""Run every example in a process and folder of its own, some at a time; fail if one does."""

import argparse
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def run(script: Path) -> bool:
    """Run one script and print its output and the seconds it took.

    It succeeds if it exits with 0 and prints a result in per cent.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(script)]
        done = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    seconds = time.perf_counter() - start
    print(f"== {script.name}: {seconds:.1f} s, exit {done.returncode}\n{done.stdout}", flush=True)
    return done.returncode == 0 and "%" in done.stdout


def main() -> int:
    """Run the scripts of a folder; return 1 if there is none or one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=2, help="scripts at a time")
    given = parser.parse_args()
    scripts = sorted(given.folder.resolve().glob("*.py"))
    with ThreadPoolExecutor(given.jobs) as pool:
        succeeded = list(pool.map(run, scripts))
    failed = [script.name for script, well in zip(scripts, succeeded, strict=True) if not well]
    print(f"{len(scripts) - len(failed)} of {len(scripts)} examples ran to their end", *failed)
    return int(bool(failed) or not scripts)


if __name__ == "__main__":
    sys.exit(main())
