"""Show that a change of the code changes no number, by digests of outputs and trained weights.

Digests depend on the processor and on the versions of torch and PyG, so they are compared on one
machine: with today's code and with another checkout of this repository.

    python benchmarks/behavior.py                        # print the digests of this checkout
    python benchmarks/behavior.py --against ../before    # compare with another checkout's

The second form exits with 1 where a number differs, and names it. Only public names are used, so
that the script runs on any version that has them.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SIZES = (40, 7, 0, 64, 33)
TOKENS: dict[str, Any] = {
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "num_centers": 8,
    "patch_size": 4,
}
METHODS: dict[str, dict[str, Any]] = {
    "adapter": {"bottleneck_channels": 4},
    "bitfit": {},
    "full_fine_tuning": {},
    "linear_probe": {},
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
# Where methods sit in a model whose blocks are not tokens.
GRAPH_TARGETS: dict[str, dict[str, dict[str, Any]]] = {
    "PointTransformer": {
        "point_peft": {
            "target_modules": ["levels.*.blocks.*.conv"],
            "bottleneck_channels": 2,
            "k": 4,
        },
        "lora": {"rank": 2},
        "bitfit": {},
        "full_fine_tuning": {},
    },
    "PointNetPlusPlus": {"lora": {"rank": 2}, "bitfit": {}, "full_fine_tuning": {}},
}


def digest(*values: Any) -> str:
    """SHA-256 of tensors, numbers and texts, nested as they may be."""
    sha = hashlib.sha256()

    def feed(value: Any) -> None:
        if isinstance(value, Tensor):
            value = value.detach().cpu().contiguous()
            sha.update(f"{value.dtype}{list(value.shape)}".encode())
            sha.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(value, dict):
            for key in sorted(value):
                feed([key, value[key]])
        elif isinstance(value, (list, tuple)):
            for item in value:
                feed(item)
        else:
            sha.update(repr(value).encode())

    feed(values)
    return sha.hexdigest()[:16]


def fill(module: nn.Module, seed: int) -> nn.Module:
    """Give every tensor values of a seed, so that nothing is an identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in sorted([*module.named_parameters(), *module.named_buffers()]):
            if not tensor.is_floating_point() or "memory_bank" in name:
                continue
            value = torch.randn(tensor.shape, generator=generator) * 0.3
            tensor.copy_(value.abs() + 0.5 if "running_var" in name else value)
    return module


def clouds() -> dict[str, Any]:
    """Arguments of a call on ragged clouds, one of them empty."""
    batch = torch.arange(len(SIZES)).repeat_interleave(torch.tensor(SIZES))
    pos = torch.randn(sum(SIZES), 3, generator=torch.Generator().manual_seed(1))
    return {"pos": pos, "batch": batch, "batch_size": len(SIZES)}


def trained(model: nn.Module, call: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Digests before, while and after three steps of training."""
    yield "eval", digest(model.eval()(**call))
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        torch.manual_seed(7)
        model(**call).square().mean().backward()
        optimizer.step()
    yield "gradients", digest([p.grad for p in parameters if p.grad is not None])
    yield "trained", digest(model.eval()(**call))


def geometry() -> Iterator[tuple[str, str]]:
    """Functions of positions."""
    from pyg_peft import geometry as g

    call = clouds()
    pos, batch, size = call["pos"], call["batch"], call["batch_size"]
    yield "knn_graph", digest(g.knn_graph(pos, 5, batch, batch_size=size))
    yield "farthest_point_sample", digest(g.farthest_point_sample(pos, 5, batch, batch_size=size))
    yield "knn", digest(g.knn(pos, pos[:40], 5, batch, batch[:40], batch_size=size))
    yield "ball_query", digest(g.ball_query(pos, pos, 0.7, 6, batch, batch, batch_size=size))
    patches = g.build_patches(pos, batch, num_centers=6, patch_size=5, batch_size=size)
    yield "build_patches", digest(patches.points, patches.center)
    structure = g.build_structure(pos, batch, k=4, batch_size=size)
    fields = {k: v for k, v in vars(structure).items() if isinstance(v, Tensor)}
    yield "build_structure", digest(fields)
    yield (
        "chamfer_distance",
        digest(g.chamfer_distance(pos[:40].view(4, 10, 3), pos[40:100].view(4, 15, 3))),
    )


def data() -> Iterator[tuple[str, str]]:
    """Made shapes and transforms."""
    from pyg_peft.datasets import Normalize, ProceduralShapes, Resample, train_val_split

    shapes: Any = ProceduralShapes(num_shapes=24, num_points=64)
    yield "ProceduralShapes", digest([shapes[row].pos for row in range(24)])
    yield "Normalize", digest(Normalize()(shapes[0].clone()).pos)
    generator = torch.Generator().manual_seed(2)
    yield "Resample", digest(Resample(32)(shapes[0].clone(), generator).pos)
    yield "train_val_split", digest(train_val_split(torch.arange(60) % 5, 0.2, 3))


def models() -> dict[str, Callable[[], nn.Module]]:
    """Backbones by name, in small sizes."""
    from pyg_peft import backbones as b

    return {
        "PointMAE": lambda: b.PointMAE(4, drop_path=0.1, **TOKENS),
        "PointMAESegmentation": lambda: b.PointMAESegmentation(3, **{**TOKENS, "depth": 12}),
        "PointNet": lambda: b.PointNet(4),
        "PointNetSegmentation": lambda: b.PointNetSegmentation(3),
        "PointNetPlusPlus": lambda: b.PointNetPlusPlus(4),
        "PointNetPlusPlusSegmentation": lambda: b.PointNetPlusPlusSegmentation(3),
        "PointTransformer": lambda: b.PointTransformer(4),
        "PointTransformerSegmentation": lambda: b.PointTransformerSegmentation(3),
        "DGCNN": lambda: b.DGCNN(4),
        "DGCNNSegmentation": lambda: b.DGCNNSegmentation(3),
    }


def tuned(name: str, base: nn.Module, settings: dict[str, Any], bank: Any) -> Iterator[Any]:
    """A method on a base: its numbers, its files and what it leaves."""
    from pyg_peft import PeftModel, get_peft_model
    from pyg_peft.tuners import METHODS as CLASSES

    call = clouds()
    before = digest(base.state_dict())
    torch.manual_seed(3)
    model = get_peft_model(base, CLASSES[name](**settings), memory_bank=bank)
    owned = [p for p in model.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in owned:
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    yield "parameters", digest(model.count_parameters())
    if bank is not None:
        call["sample_id"] = torch.arange(len(SIZES))
    yield from trained(model, call)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        for file in sorted(Path(folder).iterdir()):
            if file.name != "README.md":
                yield f"file {file.name.split('.')[0]}", digest(file.read_bytes())
        with model.disable_adapter():
            yield "disabled", digest(model(**call))
        base = model.unload()
        yield "left as it was", digest(before == digest(base.state_dict()))
        again = PeftModel.from_pretrained(base, folder)
        yield "loaded", digest(again.eval()(**call))


def digests() -> Iterator[tuple[str, str]]:
    """Every digest by its name."""
    from pyg_peft import MemoryBank
    from pyg_peft.backbones import PointMAE

    yield from geometry()
    yield from data()
    call = clouds()
    shipped = PointMAE.from_pretrained("point-mae-tiny", num_classes=4)
    yield "point-mae-tiny", digest(shipped.eval().forward_features(shipped.make_patches(**call)))
    for name, build in models().items():
        yield from ((f"{name} {k}", v) for k, v in trained(fill(build(), 0), call))
    values = torch.randn(12, 24, generator=torch.Generator().manual_seed(5))
    for method, settings in METHODS.items():
        for with_bank in (False, True) if method == "point_peft" else (False,):
            keys = nn.functional.normalize(values, dim=-1)
            bank = MemoryBank(keys, values, sample_id=torch.arange(12)) if with_bank else None
            base = fill(models()["PointMAE"](), 0)
            name = f"PointMAE {method}{' bank' if with_bank else ''}"
            yield from ((f"{name} {k}", v) for k, v in tuned(method, base, settings, bank))
    for model, methods in GRAPH_TARGETS.items():
        for method, settings in methods.items():
            base = fill(models()[model](), 0)
            yield from (
                (f"{model} {method} {k}", v) for k, v in tuned(method, base, settings, None)
            )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Digests of what models and methods compute.")
    parser.add_argument("--against", type=Path, help="another checkout to compare with")
    options = parser.parse_args()
    if options.against is None:
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        print(json.dumps(dict(digests()), indent=1))
        return
    here, there = (run(root) for root in (Path(__file__).parents[1], options.against))
    different = [name for name in sorted({*here, *there}) if here.get(name) != there.get(name)]
    for name in different:
        print(f"{name}: {here.get(name, 'missing')} here, {there.get(name, 'missing')} there")
    print(f"{len(different)} of {len({*here, *there})} digests differ")
    sys.exit(bool(different))


def run(root: Path) -> dict[str, str]:
    """The digests of a checkout, by this script."""
    environment = {**os.environ, "PYTHONPATH": str(root.resolve()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", __file__]
    return json.loads(subprocess.run(command, env=environment, stdout=-1, check=True).stdout)


if __name__ == "__main__":
    main()
