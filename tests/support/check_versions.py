"""Exit with an error unless exactly the named packages are what this environment has.

``name==version`` asks for that release (a local suffix such as ``+cpu`` does not count), ``name``
for any release, ``!name`` for its absence.
"""

import importlib.util
import sys
from importlib import metadata


def complaint(requirement: str) -> str | None:
    """Say what is wrong with one requirement, or return ``None``."""
    if requirement.startswith("!"):
        name = requirement[1:]
        return f"{name} is installed" if importlib.util.find_spec(name) else None
    name, _, wanted = requirement.partition("==")
    if importlib.util.find_spec(name) is None:
        return f"{name} is missing"
    found = metadata.version(name).partition("+")[0]
    return f"{name} is {found}, not {wanted}" if wanted and found != wanted else None


if __name__ == "__main__":
    complaints = [text for text in map(complaint, sys.argv[1:]) if text]
    if complaints:
        sys.exit("This environment is not the one that was to be tested: " + "; ".join(complaints))
