"""What each process of a distributed test runs; it writes what it saw to a folder."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from tuned import Way, points

from pyg_peft.model import PeftModel
from pyg_peft.trainable import shared_parameters

SIZES = (14, 3, 9, 11)


def prepare(method: str, has_bank: bool) -> PeftModel:
    """Build a model in training mode, the same in each process, that sees clouds one by one."""
    model = Way(method, has_bank).awake()
    return model.eval()  # statistics of batch norms would differ between the halves of a batch


def half(rank: int, world: int) -> dict[str, object]:
    """The clouds of one rank."""
    call = points(SIZES)
    clouds = range(len(SIZES))[rank::world] if world > 1 else range(len(SIZES))
    keep = [call["batch"] == cloud for cloud in clouds]
    return {
        "pos": torch.cat([call["pos"][rows] for rows in keep]),
        "batch": torch.arange(len(keep)).repeat_interleave(
            torch.tensor([int(rows.sum()) for rows in keep])
        ),
        "batch_size": len(keep),
    }


def gathered(grad: Any) -> Tensor:
    """The whole of a gradient that may be sharded."""
    return grad.full_tensor() if isinstance(grad, DTensor) else grad


def average(parameter: Tensor) -> None:
    """Average a gradient over the ranks; gloo only sums."""
    assert parameter.grad is not None
    dist.all_reduce(parameter.grad.div_(dist.get_world_size()))


def run(rank: int, world: int, folder: str, wrap: str, method: str, has_bank: bool) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    try:
        model = prepare(method, has_bank)
        wrapped: Any = model
        if wrap == "ddp":
            wrapped = DistributedDataParallel(model)
        else:
            mesh = init_device_mesh("cpu", (world,))
            shared: set[nn.Parameter] = set()
            if wrap == "fsdp by block":
                shared = set(shared_parameters(model))
                for parameter in shared:  # whole on every rank, their gradients averaged
                    parameter.register_post_accumulate_grad_hook(average)
                for block in model.base.get_submodule("blocks").children():
                    fully_shard(block, mesh=mesh, ignored_params=shared)
            wrapped = fully_shard(model, mesh=mesh, ignored_params=shared)
        out = torch.empty(0)
        for _ in range(2):  # a second pass meets what the first has left behind
            wrapped.zero_grad()
            out = wrapped(**half(rank, world))
            out.square().mean().backward()
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        whole = {name: gathered(grad) for name, grad in grads.items()}
        torch.save({"out": out.detach(), "grads": whole}, Path(folder) / f"rank{rank}.pt")
        # A rank that leaves while another still talks to it may abort in gloo's threads.
        dist.barrier()
    finally:
        dist.destroy_process_group()
