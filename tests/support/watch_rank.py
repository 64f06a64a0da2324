"""Run a script or module as one process of several, and record what it does.

    python watch_rank.py FOLDER [--still] script.py arguments...
    python watch_rank.py FOLDER [--still] -m package.module arguments...

``FOLDER/rank0.pt`` then holds, for rank 0: the sample ids of each training forward, the gradients
and tensors of the first optimizer step, the adapter's tensors at the end, and every path below the
current folder that Python opened for writing or renamed. With ``--still`` the model trains in eval
mode, without dropout and statistics of a batch. The gradient is then that of the joint batch.
"""

import os
import runpy
import sys
from pathlib import Path
from typing import Any

import torch

from pyg_peft.model import PeftModel
from pyg_peft.trainable import trainable_parameters

models: list[PeftModel] = []
batches: list[list[int]] = []
first: dict[str, dict[str, torch.Tensor]] = {}
written: set[str] = set()
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    paths: tuple[Any, ...] = ()
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
        paths = arguments[:1]
    elif event in ("os.rename", "os.mkdir", "os.remove"):
        paths = arguments[:1] if event != "os.rename" else arguments[:2]
    here = os.getcwd() + os.sep
    written.update(
        str(path) for path in paths if os.path.abspath(os.fsdecode(path)).startswith(here)
    )


def watch(still: bool) -> None:
    forward, train, step = PeftModel.forward, PeftModel.train, torch.optim.AdamW.step

    def seen_forward(self: PeftModel, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled() and kwargs.get("sample_id") is not None:
            if self not in models:
                models.append(self)
            batches.append(kwargs["sample_id"].tolist())
        return forward(self, *args, **kwargs)

    def look() -> None:
        if not first:
            named = trainable_parameters(models[0])
            first["before"] = {name: p.detach().clone() for name, p in named}
            first["grads"] = {name: p.grad.clone() for name, p in named if p.grad is not None}

    def seen_step(self: torch.optim.AdamW, closure: Any = None) -> Any:
        if closure is None:
            look()
            return step(self)

        def seen_closure() -> Any:  # of Lightning, which computes gradients in the step
            loss = closure()
            look()
            return loss

        return step(self, seen_closure)

    PeftModel.forward = seen_forward
    torch.optim.AdamW.step = seen_step
    if still:
        PeftModel.train = lambda self, mode=True: train(self, False)


def record(folder: Path) -> None:
    rank = int(os.environ.get("RANK", "0"))
    adapter = {
        name: tensor.clone()
        for name, tensor in models[0].state_dict().items()
        if "peft" in name.split(".")
    }
    seen = {"batches": batches, **first, "adapter": adapter, "written": sorted(written)}
    torch.save(seen, folder / f"rank{rank}.pt")


def main() -> None:
    folder, arguments = Path(sys.argv[1]).resolve(), sys.argv[2:]
    still = arguments[0] == "--still"
    arguments = arguments[still:]
    torch.set_num_threads(1)
    watch(still)
    sys.addaudithook(audit)
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path[0] = os.getcwd()
        try:
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        except SystemExit as end:
            if end.code:
                raise
    else:
        sys.argv = arguments
        sys.path[0] = str(Path(arguments[0]).resolve().parent)
        runpy.run_path(arguments[0], run_name="__main__")
    record(folder)


if __name__ == "__main__":
    main()
