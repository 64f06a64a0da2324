"""Write the README.md of an adapter folder."""

import json
import re
from collections.abc import Mapping
from typing import Any


def model_card(config: Mapping[str, Any]) -> str:
    """Return the text of an adapter's README.md, from its configuration."""
    method = config["method"]
    counts = config.get("parameters", {})
    lines = [
        "---",
        "library_name: pyg_peft",
        "tags: [point-cloud, peft, pytorch-geometric]",
        "---",
        "",
        f"# {_text(method)} adapter for {_text(config['backbone']['class'])}",
        "",
        "Made by `pyg_peft`. It holds every weight that was trained, the head among them; "
        "the frozen base is not in it.",
        "",
        "| | |",
        "| --- | --- |",
        f"| trainable parameters | {counts.get('trainable', 0):,} |",
        f"| of them in the head | {counts.get('head', 0):,} |",
        f"| frozen parameters | {counts.get('frozen', 0):,} |",
        f"| base fingerprint | `{config['base_fingerprint'][:16]}` |",
        f"| memory bank | `{(config['memory_bank'] or 'none')[:16]}` |",
        f"| classes | {_text(', '.join(config['class_names'] or ['not named']))} |",
        f"| preprocessing | {_text(json.dumps(config.get('preprocessing')))} |",
        "",
        "```python",
        "from pyg_peft import PeftModel",
        "",
        "model = PeftModel.from_pretrained(backbone, folder)",
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


def _text(value: str) -> str:
    """Escape a name for Markdown, so that it adds no table row, link, picture or HTML."""
    one_line = "".join(c if c.isprintable() else " " for c in value)
    return re.sub(r"([\\`|<>&\[\]])", r"\\\1", one_line)


__all__ = ["model_card"]
