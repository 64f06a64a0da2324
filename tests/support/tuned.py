"""A backbone of 24 channels, a bank, and every method in a size that fits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pyg_peft.backbones import PointMAE
from pyg_peft.model import PeftModel, get_peft_model
from pyg_peft.nn import MemoryBank
from pyg_peft.testing import randomize_
from pyg_peft.tuners import METHODS, MethodConfig

CHANNELS, CLASSES, DEPTH = 24, 4, 2
SIZES = (14, 3, 0, 9, 1)
# Of the methods that have sizes of their own; the others run as they are.
SETTINGS: dict[str, dict[str, Any]] = {
    "adapter": {"bottleneck_channels": 4},
    "lora": {"rank": 2},
    "point_peft": {
        "bottleneck_channels": 4,
        "num_prompts": 4,
        "prompt_depth": 1,
        "prompt_bottleneck_channels": 2,
        "attention_channels": 6,
        "attention_heads": 3,
        "k": 4,
    },
    "vpt": {"num_prompts": 3},
}


@dataclass(frozen=True)
class Way:
    """A method, with a memory bank or without, and settings other than the usual ones."""

    method: str
    has_bank: bool = False
    more: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        changed = ", ".join(f"{name}={value}" for name, value in self.more.items())
        bank = " with a bank" if self.has_bank else ""
        return f"{self.method}{bank}" + (f", {changed}" if changed else "")

    def config(self, **settings: Any) -> MethodConfig:
        return METHODS[self.method](**{**SETTINGS.get(self.method, {}), **self.more, **settings})

    def attach(self, base: nn.Module, name: str = "default", **settings: Any) -> PeftModel:
        bank = tiny_bank() if self.has_bank else None
        return get_peft_model(base, self.config(**settings), name, memory_bank=bank)

    def awake(self, seed: int = 3, **settings: Any) -> PeftModel:
        """A tuned model that is no identity any more, in eval mode."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = self.attach(tiny_base(), **settings)
        randomize_(model, torch.Generator().manual_seed(seed))
        return model.eval()


WAYS = [
    Way(name, has_bank)
    for name, config in METHODS.items()
    for has_bank in ([False, True] if config.takes_memory_bank else [False])
]


def tiny_base(seed: int = 0, **sizes: Any) -> PointMAE:
    """Build a backbone whose norm statistics are not trivial, the same for the same seed."""
    settings: dict[str, Any] = {
        "embed_dim": CHANNELS,
        "depth": DEPTH,
        "num_heads": 3,
        "num_centers": 8,
        "patch_size": 4,
        "drop_path": 0.0,
        "head_dropout": 0.0,
        **sizes,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        base = PointMAE(settings.pop("num_classes", CLASSES), **settings)
    return randomize_(base, torch.Generator().manual_seed(seed)).eval()  # type: ignore[return-value]


def tiny_bank(seed: int = 5, rows: int = 12) -> MemoryBank:
    values = torch.randn(rows, CHANNELS, generator=torch.Generator().manual_seed(seed))
    return MemoryBank(nn.functional.normalize(values, dim=-1), values, sample_id=torch.arange(rows))


def points(sizes: Sequence[int] = SIZES, seed: int = 1) -> dict[str, Any]:
    """Arguments of a call on clouds of these sizes."""
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(list(sizes)))
    pos = torch.randn(sum(sizes), 3, generator=torch.Generator().manual_seed(seed))
    return {"pos": pos, "batch": batch, "batch_size": len(sizes)}


def logits(model: nn.Module, **call: Any) -> Tensor:
    """Call a model on the ragged batch; ids are handed in, whether a bank asks for them or not."""
    more = {"sample_id": torch.arange(len(SIZES))} if isinstance(model, PeftModel) else {}
    return model(**{**points(), **more, **call})


def train(model: PeftModel, steps: int = 2) -> None:
    """Take optimizer steps in training mode, as any loop does, and go back to eval mode."""
    model.train()
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9, weight_decay=0.1
    )
    for _ in range(steps):
        optimizer.zero_grad()
        logits(model).square().mean().backward()
        optimizer.step()
    model.eval()


def portrait(model: nn.Module) -> dict[str, Any]:
    """All of a model that a method could leave traces in: objects, keys, hooks, flags, modes."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "modules": {path: id(module) for path, module in model.named_modules()},
        "modes": {path: module.training for path, module in model.named_modules()},
        "hooks": {
            path: {name: list(value) for name, value in vars(module).items() if "hooks" in name}
            for path, module in model.named_modules()
        },
        "tensors": {name: id(tensor) for name, tensor in tensors.items()},
        "flags": {name: p.requires_grad for name, p in model.named_parameters()},
        "keys": list(model.state_dict()),
        "values": {k: v.view(-1).tolist() for k, v in model.state_dict().items()},
    }
