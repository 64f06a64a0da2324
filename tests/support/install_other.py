"""Put another release in the place of a pinned package; everything else stays as constrained."""

import os
import subprocess
import sys

if __name__ == "__main__":
    environment = {key: value for key, value in os.environ.items() if key != "PIP_CONSTRAINT"}
    command = [sys.executable, "-m", "pip", "install", "--no-deps", *sys.argv[1:]]
    subprocess.run(command, check=True, env=environment)
