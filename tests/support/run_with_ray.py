"""Run a script on a Ray of its own: two CPUs, no dashboard, a short temporary folder.

python run_with_ray.py script.py arguments...
"""

# pyright: reportMissingImports=false

import os
import runpy
import shutil
import sys
import tempfile

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray

if __name__ == "__main__":
    # Sockets lie in this folder, and the length of their paths is limited.
    place = tempfile.mkdtemp(prefix="ray")
    ray.init(num_cpus=2, include_dashboard=False, _temp_dir=place)
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        ray.shutdown()
        shutil.rmtree(place, ignore_errors=True)
