"""Time what ``from pyg_peft import GeometryAwareAdapter`` costs beside ``import torch_geometric``.

Both run in fresh interpreters, in turn, so that a busy machine slows both; the fastest of each
counts. Exits with an error if the component takes 0.3 s longer.

    python benchmarks/import_time.py
"""

import subprocess
import sys
import time

REPEATS = 7
ALLOWED = 0.3
STATEMENTS = {
    "torch_geometric": "import torch_geometric",
    "pyg_peft": "import pyg_peft",
    "GeometryAwareAdapter": "from pyg_peft import GeometryAwareAdapter",
    "get_peft_model": "from pyg_peft import get_peft_model",
}


def seconds(statement: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-W", "ignore", "-c", statement], check=True)
    return time.perf_counter() - start


def main() -> None:
    fastest = dict.fromkeys(STATEMENTS, float("inf"))
    for _ in range(REPEATS):
        for name, statement in STATEMENTS.items():
            fastest[name] = min(fastest[name], seconds(statement))
    for name, best in fastest.items():
        print(f"{STATEMENTS[name]:45} {best:6.2f} s")
    excess = fastest["GeometryAwareAdapter"] - fastest["torch_geometric"]
    print(f"{'the component beside PyG':45} {excess:+6.2f} s (allowed: {ALLOWED} s)")
    if excess > ALLOWED:
        sys.exit(1)


if __name__ == "__main__":
    main()
