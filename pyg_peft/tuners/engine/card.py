"""Write the README.md of an adapter folder, with the header that the Hugging Face Hub reads."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from pyg_peft.backbones.registry import BACKBONES
from pyg_peft.backbones.weights.shipped import SHIPPED, terms_of
from pyg_peft.datasets.preprocessing import Preprocessing

UNKNOWN = "unknown"
# Licenses that the Hub knows by these names; it refuses a card with any other name.
_ON_HUB = {
    *("apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "gpl", "gpl-2.0", "gpl-3.0"),
    *("agpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "mpl-2.0", "isc", "unlicense", "openrail"),
    *("cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-3.0"),
    *("cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "cc-by-nd-4.0", "odbl", "odc-by"),
}
# Facts in rows of their own, which are not added as they are.
_SHOWN = {
    *("license", "data", "data_license", "clouds", "val", "test"),
    *("learning_rate", "epochs", "kept_epoch"),
}
_FOLDER = '"adapter"'


def check_card(card: object) -> None:
    """Raise unless these are facts for a card: values by name, those of the license as text.

    Raises:
        TypeError: If they are not. Whether values are JSON-able is checked when they are saved.
    """
    if card is None:
        return
    if not isinstance(card, Mapping) or not all(isinstance(name, str) for name in card):
        raise TypeError(f"Expected 'card' to be a mapping of facts by name (got {card!r})")
    for name in ("license", "data", "data_license"):
        if not isinstance(card.get(name, ""), str):
            raise TypeError(f"Expected 'card.{name}' to be text (got {card[name]!r})")


def model_card(config: Mapping[str, Any]) -> str:
    """Return the text of an adapter's README.md, from its configuration."""
    facts, kind = config.get("card") or {}, config["backbone"]["class"]
    lines = [
        "---",
        *_header(facts.get("license")),
        "---",
        "",
        f"# {_text(config['method'])} adapter for {_text(kind)}",
        "",
        "Made by `pyg_peft`. It holds every weight that was trained, the head among them; "
        "the frozen base is not in it.",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {_text(name)} | {_text(value)} |" for name, value in _rows(config, facts)),
        "",
        *_base(config),
        "",
        "```python",
        *(_loading(config) if kind in BACKBONES else _loading_onto_own_base()),
        "```",
        "",
        "Method:",
        "",
        "```json",
        json.dumps(config["settings"], indent=2, sort_keys=True),
        "```",
        "",
    ]
    return "\n".join(lines)


def with_repo(card: str, repo_id: str) -> str:
    """Return a card whose example loads the adapter from a repository instead of a folder."""
    pattern = rf"(?m)^(model = [\w.]+\((?:base, )?){re.escape(_FOLDER)}\)"
    return re.sub(pattern, lambda found: f"{found[1]}{json.dumps(repo_id)})", card)


def _header(license: str | None) -> list[str]:
    """Return the lines of the header, whose values are JSON and therefore YAML."""
    name = (license or UNKNOWN).strip()
    known = name.lower() in {*_ON_HUB, UNKNOWN}
    return [
        "library_name: pyg_peft",
        *([f"license: {name.lower()}"] if known else ["license: other"]),
        *([] if known else [f"license_name: {json.dumps(name)}"]),
        "tags: [point-cloud, peft, pytorch-geometric]",
    ]


def _rows(config: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the rows of the table, as names and values that are not escaped yet."""
    counts, clouds = config.get("parameters") or {}, facts.get("clouds")
    yield "license of the adapter", facts.get("license") or UNKNOWN
    yield "data", facts.get("data") or UNKNOWN
    yield "license of the data", facts.get("data_license") or UNKNOWN
    if clouds:
        yield "clouds", _value(clouds)
    yield "classes", ", ".join(config["class_names"] or ["not named"])
    for split, name in (("val", "validation"), ("test", "test")):
        if facts.get(split):
            yield name, _value(facts[split])
    if "learning_rate" in facts:
        yield "learning rate", _value(facts["learning_rate"])
    if "epochs" in facts:
        kept = f", of which epoch {facts['kept_epoch']} is kept" if "kept_epoch" in facts else ""
        yield "epochs", f"{facts['epochs']}{kept}"
    for name, value in facts.items():
        if name not in _SHOWN:
            yield name, _value(value)
    yield "trainable parameters", f"{counts.get('trainable', 0):,}"
    yield "of them in the head", f"{counts.get('head', 0):,}"
    yield "frozen parameters", f"{counts.get('frozen', 0):,}"
    yield "base fingerprint", config["base_fingerprint"][:16]
    yield "memory bank", (config["memory_bank"] or "none")[:16]
    recorded = config.get("preprocessing")
    if isinstance(recorded, Mapping):
        recorded = {name: value for name, value in recorded.items() if name != "weights"}
    yield "preprocessing", json.dumps(recorded)


def _base(config: Mapping[str, Any]) -> list[str]:
    """Return a paragraph on the weights of the base and their license."""
    source = _source(config)
    if source is None:
        return [f"Weights of the base: not recorded. License of the base: {UNKNOWN}."]
    if source == "random":
        return ["Weights of the base: random, drawn from a recorded seed."]
    if source in SHIPPED:
        return [
            f"Weights of the base: {source}, which ships with `pyg_peft`. Its card says:",
            "",
            terms_of(source),
        ]
    name = PurePath(source.replace("\\", "/")).name
    return [
        f"Weights of the base: the file {_text(name)}, which the argument `backbone` of `load` "
        f"names. License of the base: {UNKNOWN}."
    ]


def _source(config: Mapping[str, Any]) -> str | None:
    """Return the recorded weights of the base, if they are recorded as text."""
    recorded = (config.get("preprocessing") or {}).get("weights")
    source = recorded.get("source") if isinstance(recorded, Mapping) else None
    return source if isinstance(source, str) else None


def _loading(config: Mapping[str, Any]) -> list[str]:
    """Return an example that applies the adapter of a backbone to a cloud."""
    sizes = config["backbone"].get("config") or {}
    channels, has_category = sizes.get("in_channels") or 0, bool(sizes.get("num_categories"))
    features = f", x=torch.rand(2048, {channels})" if channels else ""
    arguments = ["pos=cloud.pos", "batch=batch"]
    arguments[:0] = ["x=cloud.x"] * bool(channels)
    arguments += ["category=torch.tensor([0])"] * has_category
    prepare = _prepare(config.get("preprocessing"))
    return [
        "import torch",
        "from torch_geometric.data import Data",
        "",
        "import pyg_peft",
        *["from pyg_peft.datasets import Preprocessing"] * (prepare is not None),
        "",
        f"model = pyg_peft.load({_FOLDER})  # this folder, or a name on the Hub",
        f"cloud = Data(pos=torch.rand(2048, 3){features})  # your points",
        *[f"cloud = {prepare}.evaluation()(cloud)"] * (prepare is not None),
        "batch = torch.zeros(len(cloud.pos), dtype=torch.long)",
        "with torch.no_grad():",
        f"    scores = model({', '.join(arguments)})",
        "print(scores.softmax(dim=-1).max(dim=-1))",
    ]


def _prepare(recorded: Mapping[str, Any] | None) -> Preprocessing | None:
    """Return the recorded preprocessing, or ``None`` if something else is recorded."""
    try:
        return None if recorded is None else Preprocessing.from_dict(recorded)
    except (TypeError, ValueError):
        return None


def _loading_onto_own_base() -> list[str]:
    return [
        "from pyg_peft import PeftModel",
        "",
        f"model = PeftModel.from_pretrained(base, {_FOLDER})  # base: the model it was trained on",
    ]


def _value(value: Any) -> str:
    """Return text as it is, numbers with four digits, and named values one after the other."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(inner)}" for name, inner in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if type(value) is int else json.dumps(value)


def _text(value: str) -> str:
    """Escape a name for Markdown, so that it adds no table row, link, picture or HTML."""
    one_line = "".join(c if c.isprintable() else " " for c in value)
    return re.sub(r"([\\`|<>&\[\]])", r"\\\1", one_line)


__all__ = ["check_card", "model_card", "with_repo"]
