"""Run ``pyg-peft`` as ``python -m pyg_peft.cli``, as distributed runs start their processes."""

import sys

from pyg_peft.cli import main

if __name__ == "__main__":
    sys.exit(main())
