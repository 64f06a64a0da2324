"""Published recipes as configuration files for ``pyg-peft fit --preset NAME``."""

from pathlib import Path

_FOLDER = Path(__file__).resolve().parent


def list_presets() -> list[str]:
    """Return the names of the presets."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def find_preset(name: str) -> Path:
    """Return the file of a preset.

    Raises:
        ValueError: If there is no preset of this name.
    """
    if name not in list_presets():
        raise ValueError(
            f"Expected 'preset' to be one of {', '.join(list_presets())} (got {name!r})"
        )
    return _FOLDER / f"{name}.yaml"


def expand_preset(arguments: list[str]) -> list[str]:
    """Replace ``--preset NAME`` by its file, before all other options, so that these win.

    Raises:
        ValueError: If there is no such preset, or several are given.

    Example:
        >>> found = expand_preset(["--lr", "0.001", "--preset", "point_mae_scanobjectnn"])
        >>> found[0], found[1].endswith("point_mae_scanobjectnn.yaml"), found[2:]
        ('--config', True, ['--lr', '0.001'])
    """
    names: list[str] = []
    others: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        option, equals, value = argument.partition("=")
        if option == "--preset":
            names.append(value if equals else next(rest, ""))
        else:
            others.append(argument)
    if len(names) > 1:
        raise ValueError(f"Expected 'preset' to be given once (got {', '.join(names)})")
    return ["--config", str(find_preset(names[0])), *others] if names else others


__all__ = ["expand_preset", "find_preset", "list_presets"]
