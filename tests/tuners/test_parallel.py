"""Several processes: gradients under DDP and FSDP2 are those of one process."""

from pathlib import Path

import pytest
import torch
from ranks import SIZES, prepare, run
from torch.multiprocessing.spawn import start_processes
from tuned import points

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("wrap", "method", "has_bank"),
    [
        ("ddp", "point_peft", True),
        ("ddp", "full_fine_tuning", False),
        ("fsdp", "point_peft", True),
        ("fsdp", "full_fine_tuning", False),
        ("fsdp by block", "lora", False),
        ("fsdp by block", "bitfit", False),
        ("fsdp by block", "point_peft", False),
        ("fsdp by block", "point_peft", True),
    ],
)
def test_gradients_equal_those_of_one_process(
    tmp_path: Path, wrap: str, method: str, has_bank: bool
):
    model = prepare(method, has_bank)
    expected = model(**points(SIZES))
    expected.square().mean().backward()
    start_processes(run, (2, str(tmp_path), wrap, method, has_bank), 2, start_method="spawn")
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for rank in range(2):
        seen = torch.load(tmp_path / f"rank{rank}.pt")
        torch.testing.assert_close(seen["out"], expected.detach()[rank::2], rtol=1e-4, atol=1e-5)
        assert seen["grads"].keys() == grads.keys()
        for name, grad in grads.items():
            torch.testing.assert_close(seen["grads"][name], grad, rtol=1e-3, atol=1e-5, msg=name)
