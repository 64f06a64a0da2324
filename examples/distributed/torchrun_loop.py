"""A plain loop in several processes, one per GPU, on one node or more.

    torchrun --nproc_per_node 2 examples/distributed/torchrun_loop.py [--epochs 4] [--shapes 96]

Each process trains on its share of every epoch, and torch averages the gradients. Without a GPU the
processes use the CPU.
"""

import argparse
import os
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch_geometric.loader import DataLoader

from pyg_peft import MemoryBank, PeftModel, PointPEFTConfig, get_peft_model
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

local_rank = int(os.environ["LOCAL_RANK"])
device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
if device.type == "cuda":
    torch.cuda.set_device(device)
dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
rank, world_size = dist.get_rank(), dist.get_world_size()

# The same data, bank and adapter in each process.
torch.manual_seed(0)
train, test = (
    ProceduralShapes(split, num_shapes=number, num_points=512)
    for split, number in (("train", args.shapes), ("test", args.shapes // 2))
)
base = PointMAE.from_pretrained("point-mae-tiny", train.num_classes).to(device)
bank = MemoryBank.from_loader(base, DataLoader(train, batch_size=32))
model = get_peft_model(base, PointPEFTConfig(k=4), memory_bank=bank).to(device)

# Another part of the epoch, and other random numbers (dropout), in each process.
torch.manual_seed(1 + rank)
views = Augmented(train, ScaleTranslate())
order = KeyedSampler(views, rank=rank, world_size=world_size)
loader = DataLoader(views, batch_sampler=EvenBatches(order, args.batch_size))
# Gradients of trainable parameters are averaged. All of them get one in every step, so that
# find_unused_parameters is not needed.
wrapped = DistributedDataParallel(model)
optimizer = torch.optim.AdamW([p for _, p in trainable_parameters(model)], lr=2e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * len(loader))

loss = torch.zeros((), device=device)
for epoch in range(args.epochs):
    order.set_epoch(epoch)  # also sets the epoch of the views
    wrapped.train()
    for data in loader:
        data = data.to(device)
        logits = wrapped(pos=data.pos, batch=data.batch, sample_id=data.sample_id)
        loss = cross_entropy(logits, data.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    average_batch_norms(model)
    dist.all_reduce(loss := loss.detach() / world_size)
    if rank == 0:
        print(f"epoch {epoch + 1}   loss of the last step {loss:.3f}")


@torch.no_grad()
def accuracy(model: PeftModel) -> float:
    """Return the accuracy on the test set, each process on its share."""
    hits = torch.zeros(2, device=device)
    share: Any = test[list(range(rank, len(test), world_size))]
    for data in DataLoader(share, batch_size=16):
        data = data.to(device)
        hits[0] += (model.eval()(pos=data.pos, batch=data.batch).argmax(1) == data.y).sum()
        hits[1] += data.num_graphs
    dist.all_reduce(hits)
    return float(hits[0] / hits[1])


found = accuracy(model)  # call the model itself: the processes may have shares of other sizes
if rank == 0:
    model.save_pretrained(args.output, class_names=train.class_names)
    print(f"{world_size} processes   test {100 * found:.1f} %   adapter: {args.output}")
dist.barrier()  # no process may leave while another one still needs it
dist.destroy_process_group()
