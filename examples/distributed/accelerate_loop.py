"""A plain loop with accelerate: the same script on one process, several GPUs or several nodes.

    accelerate launch --num_processes 2 examples/distributed/accelerate_loop.py [--epochs 4]

Needs accelerate (extra ``scale``). On CPUs, start it with ``ACCELERATE_USE_CPU=true torchrun
--nproc_per_node 2 examples/distributed/accelerate_loop.py``.
"""

# The packages of the extra `scale` may be missing where types are checked.
# pyright: reportMissingImports=false

import argparse
from typing import Any

import torch
from accelerate import Accelerator
from torch.nn.functional import cross_entropy
from torch_geometric.loader import DataLoader

from pyg_peft import LoRAConfig, get_peft_model
from pyg_peft.backbones import PointMAE
from pyg_peft.datasets import Augmented, ProceduralShapes, ScaleTranslate
from pyg_peft.trainable import trainable_parameters
from pyg_peft.training import EvenBatches, KeyedSampler, average_batch_norms

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--shapes", type=int, default=96)
parser.add_argument("--batch_size", type=int, default=8, help="clouds per step and process")
parser.add_argument("--output", default="adapter")
args = parser.parse_args()

accelerator = Accelerator()
torch.manual_seed(0)  # the same adapter in each process
train, test = (
    ProceduralShapes(split, num_shapes=number, num_points=512)
    for split, number in (("train", args.shapes), ("test", args.shapes // 2))
)
base = PointMAE.from_pretrained("point-mae-tiny", train.num_classes)
model = get_peft_model(base, LoRAConfig(rank=4))

torch.manual_seed(1 + accelerator.process_index)  # other random numbers in each process
views = Augmented(train, ScaleTranslate())
order = KeyedSampler(views, rank=accelerator.process_index, world_size=accelerator.num_processes)
# The sampler has divided the epoch. Do not pass the loader to prepare, which would divide it again.
loader = DataLoader(views, batch_sampler=EvenBatches(order, args.batch_size))
optimizer = torch.optim.AdamW([p for _, p in trainable_parameters(model)], lr=2e-3)
wrapped, optimizer = accelerator.prepare(model, optimizer)

loss = torch.zeros(())
for epoch in range(args.epochs):
    order.set_epoch(epoch)  # also sets the epoch of the views
    wrapped.train()
    for data in loader:
        data = data.to(accelerator.device)
        logits = wrapped(pos=data.pos, batch=data.batch, sample_id=data.sample_id)
        loss = cross_entropy(logits, data.y)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
    average_batch_norms(model)
    mean = accelerator.reduce(loss.detach(), reduction="mean")
    accelerator.print(f"epoch {epoch + 1}   loss of the last step {mean:.3f}")

model.eval()
rows = range(accelerator.process_index, len(test), accelerator.num_processes)
hits = torch.zeros(2, device=accelerator.device)
with torch.no_grad():
    share: Any = test[list(rows)]
    for data in DataLoader(share, batch_size=16):
        data = data.to(accelerator.device)
        hits[0] += (model(pos=data.pos, batch=data.batch).argmax(1) == data.y).sum()
        hits[1] += data.num_graphs
right, count = accelerator.reduce(hits).tolist()
if accelerator.is_main_process:
    model.save_pretrained(args.output, class_names=train.class_names)
accelerator.print(
    f"{accelerator.num_processes} processes   test {100 * right / count:.1f} %   "
    f"adapter: {args.output}"
)
accelerator.wait_for_everyone()
accelerator.end_training()
