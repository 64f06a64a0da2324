"""``python -m pyg_peft.cli`` is ``pyg-peft``; distributed runs start their processes this way."""

import sys

from pyg_peft.cli import main

if __name__ == "__main__":
    sys.exit(main())
