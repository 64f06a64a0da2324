"""Where the labeled shapes are that ship with the package."""

from pathlib import Path

#: Household shapes under CC0 and CC BY; the credits are in ``LICENSES.md`` beside the file.
FILE = Path(__file__).parent.parent / "shipped" / "furniture.npz"

__all__ = ["FILE"]
