"""Saved adapters that every later version has to load; ``python older_adapters.py FOLDER`` writes.

The committed ones in ``tests/golden/adapters`` were written by the version before the modules were
moved into folders. Base and adapters are filled by whole-number arithmetic, which gives the same
bits on every machine, so that no weights of the base have to be kept.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyg_peft import (
    AdapterConfig,
    BitFitConfig,
    FullFineTuningConfig,
    LinearProbeConfig,
    LoRAConfig,
    MemoryBank,
    PeftModel,
    PointPEFTConfig,
    VPTConfig,
    get_peft_model,
)
from pyg_peft.backbones import PointMAE

LOGITS = "logits.json"
LAST = ("head.layers.8",)  # the smallest part of the head
SMALL: dict[str, Any] = {"bottleneck_channels": 4, "attention_channels": 6, "attention_heads": 3}
ADAPTERS: dict[str, Any] = {
    "adapter": AdapterConfig(bottleneck_channels=4, modules_to_save=LAST),
    "bitfit": BitFitConfig(modules_to_save=LAST),
    "full_fine_tuning": FullFineTuningConfig(exclude_modules=("patch_embed", "blocks.0")),
    "linear_probe": LinearProbeConfig(),
    "lora": LoRAConfig(rank=2, modules_to_save=LAST),
    "point_peft": PointPEFTConfig(num_prompts=4, k=4, modules_to_save=LAST, **SMALL),
    "point_peft_bank": PointPEFTConfig(num_prompts=4, k=4, modules_to_save=LAST, **SMALL),
    "vpt": VPTConfig(num_prompts=3, modules_to_save=LAST),
}


def values(count: int, seed: int) -> Tensor:
    """Numbers in [-0.25, 0.25) that look random and are exact."""
    numbers = (torch.arange(1, count + 1) * 40_503 + seed * 9_973) % 65_536
    return numbers.float() / 131_072 - 0.25


def fill_(module: nn.Module, seed: int) -> None:
    """Fill what trains."""
    with torch.no_grad():
        for place, tensor in enumerate(p for p in module.parameters() if p.requires_grad):
            tensor.copy_(values(tensor.numel(), seed + place).view_as(tensor))


def base() -> PointMAE:
    sizes: dict[str, int] = {"depth": 2, "num_heads": 3, "num_centers": 8, "patch_size": 4}
    model = PointMAE(4, embed_dim=24, **sizes).eval()
    fill_(model, seed=1)
    for name, buffer in model.named_buffers():
        if "running_" in name:
            buffer.copy_(values(buffer.numel(), seed=2).abs() + 0.5)
    return model


def bank() -> MemoryBank:
    rows = values(12 * 24, seed=7).view(12, 24)
    return MemoryBank(rows, rows, sample_id=torch.arange(12))


def logits(model: PeftModel) -> Tensor:
    pos = values(3 * 40, seed=11).view(40, 3)
    batch = torch.arange(40) // 20
    with torch.no_grad():
        return model.eval()(pos=pos, batch=batch, sample_id=torch.tensor([90, 91]))


def write(folder: Path) -> None:
    for name, config in ADAPTERS.items():
        rows = bank() if name.endswith("_bank") else None
        model = get_peft_model(base(), config, memory_bank=rows)
        fill_(model, seed=3)
        model.save_pretrained(folder / name, class_names=["a", "b", "c", "d"])
        (folder / name / LOGITS).write_text(json.dumps(logits(model).tolist()) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
