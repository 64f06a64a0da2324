"""Turn a finished pre-training run into weights that ship with the package, and their card.

    python benchmarks/accuracy/ship_weights.py --run runs/point_mae_tiny --name point-mae-tiny \\
        --data_text benchmarks/accuracy/point_mae_tiny_data.md \\
        --config benchmarks/accuracy/point_mae_tiny.yaml

Written are the encoder and its summary token in half precision (statistics of batch norms stay in
float32), a card beside them that says what the clouds were as --data_text does, and the run's log
below benchmarks/accuracy/results. Printed is the
entry for ``SHIPPED`` of pyg_peft/backbones/weights/shipped.py.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from pyg_peft.backbones import PointMAECompletion
from pyg_peft.backbones.weights import shipped
from pyg_peft.storage import write_atomic
from pyg_peft.training.pretraining.run import steps_of_epoch

HERE = Path(__file__).resolve().parent
FOLDER = Path(shipped.__file__).parent.parent / "pretrained_weights"
KEPT = ("num_heads", "num_centers", "patch_size")

CARD = """# {name}

A Point-MAE of {embed_dim} channels, {depth} blocks, {num_heads} heads, for {num_centers} patches of
{patch_size} points: the encoder and its summary token, {parameters:,} parameters, half precision.

- **Task**: rebuild {mask:.0f} % hidden patches, and draw the whole cloud from the summary token
  beside the maximum over the visible tokens (`pyg_peft.backbones.PointMAECompletion`).
- **Data**: {clouds:,} clouds an epoch, without labels. {data_text}
- **Run**: {steps:,} steps of {batch_size} clouds ({epochs} epochs), {minutes:.0f} minutes, matrix
  products in {precision}, seed {seed}, last loss {loss:.5f}. Configuration: `{config}`; log:
  `benchmarks/accuracy/results/{stem}_log.jsonl`.
- **Input**: z up, mean at the origin, farthest point at distance 1, {num_points:,} points.
- **Use**: to try parameter-efficient tuning on a laptop, for examples and tests. For the accuracy
  of papers take published weights of larger models.
- **License**: Apache-2.0, as the package; attributions in *Data* go along.
- **SHA-256** of `{stem}.safetensors`: `{sha256}`.
"""


def encoder_of(state: dict[str, Any]) -> dict[str, Tensor]:
    """Weights that a classifier takes, in half precision; statistics and counts as they are."""
    model = PointMAECompletion(**state["identity"]["model"])
    model.load_state_dict(state["model"])
    classifier = model.to_classifier(2)
    kept = {k: v for k, v in classifier.state_dict().items() if not k.startswith("head.")}
    return {k: v if "running" in k or not v.is_floating_point() else v.half()
            for k, v in kept.items()}  # fmt: skip


def clouds_an_epoch(corpus: dict[str, Any]) -> int:
    """Of the identity of a corpus: those in memory, and those of its streams."""
    streams = corpus.get("streams", {}).values()
    return corpus.get("clouds", 0) + sum(stream["each_epoch"] for stream in streams)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("--name", required=True)
    parser.add_argument("--data_text", type=Path, required=True, help="what the clouds are, whose")
    parser.add_argument("--config", required=True, help="the run's configuration, for the card")
    parser.add_argument("--weights_folder", type=Path, default=FOLDER)
    parser.add_argument("--log_folder", type=Path, default=HERE / "results")
    args = parser.parse_args()
    state = torch.load(args.run / "checkpoint.pth", map_location="cpu", weights_only=True)
    sizes, options = state["identity"]["model"], state["identity"]["options"]
    clouds = clouds_an_epoch(state["identity"]["corpus"])
    every = bool(state.get("every_cloud", False))  # earlier runs left some out of each epoch
    total = options["epochs"] * steps_of_epoch(clouds, options["batch_size"], every_cloud=every)
    if state["step"] != total:
        raise SystemExit(f"Expected a finished run of {total} steps (got {state['step']})")
    tensors = encoder_of(state)
    data = save({name: tensors[name].contiguous() for name in sorted(tensors)})
    stem = args.name.replace("-", "_")
    sha256 = hashlib.sha256(data).hexdigest()
    losses = [json.loads(line) for line in state["lines"] if "loss" in json.loads(line)]
    card = CARD.format(
        name=args.name,
        stem=stem,
        sha256=sha256,
        mask=100 * sizes["mask_ratio"],
        parameters=sum(p.numel() for p in tensors.values() if p.dtype == torch.float16),
        clouds=clouds,
        data_text=args.data_text.read_text().strip().replace("\n", "\n  "),
        config=args.config,
        precision="bfloat16" if options["bf16"] else "float32",
        num_points=options["views"]["num_points"],
        steps=state["step"],
        minutes=state["seconds"] / 60,
        loss=losses[-1]["loss"],
        **{name: sizes[name] for name in ("embed_dim", "depth", *KEPT)},
        **{name: options[name] for name in ("batch_size", "epochs", "seed")},
    )
    log = (args.run / "log.jsonl").read_text()
    for folder in (args.weights_folder, args.log_folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomic(args.weights_folder / f"{stem}.safetensors", lambda path: path.write_bytes(data))
    write_atomic(args.weights_folder / f"{stem}.md", lambda path: path.write_text(card))
    write_atomic(args.log_folder / f"{stem}_log.jsonl", lambda path: path.write_text(log))
    kept = {name: sizes[name] for name in KEPT}
    print(f"{len(data) / 2**20:.2f} MiB")
    print(f'"{args.name}": PretrainedFile("{stem}.safetensors", "{sha256}", {kept}),')


if __name__ == "__main__":
    main()
