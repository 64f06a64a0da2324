"""The check of memory layout passes on a good module and fails on one that reads raw memory."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_peft.testing import Clouds, assert_layout_invariant, layouts_of, random_clouds


@pytest.fixture
def clouds(generator: torch.Generator) -> Clouds:
    return random_clouds([5, 1, 0, 4], generator=generator)


def raw(value: Tensor) -> Tensor:
    """The first numbers of a tensor's memory, as a library reads it that knows no strides."""
    flat = torch.empty(0, dtype=value.dtype).set_(value.untyped_storage())
    begin = value.storage_offset()
    return flat[begin:].repeat(2)[: value.numel()].view(value.shape)


def reads_memory_of(name: str) -> Any:
    def module(x: Tensor, pos: Tensor, batch: Tensor, batch_size: int) -> Tensor:
        given = {"x": x, "pos": pos, "batch": batch.double()[:, None]}
        if name == "batch":
            given["batch"] = raw(batch).double()[:, None]
        else:
            given[name] = raw(given[name])
        return torch.cat([given["x"], given["pos"], given["batch"]], dim=1)

    return module


def test_passes_what_minds_strides(clouds: Clouds):
    def module(x: Tensor, pos: Tensor, batch: Tensor, batch_size: int) -> Tensor:
        return torch.cat([x, pos, batch[:, None]], dim=1)

    assert_layout_invariant(module, clouds)
    assert_layout_invariant(module, random_clouds([6], generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", ["x", "pos", "batch"])
def test_fails_what_reads_memory(name: str, clouds: Clouds):
    with pytest.raises(AssertionError, match=f"how '{name}' lies in memory"):
        assert_layout_invariant(reads_memory_of(name), clouds)


def test_a_call_may_return_several_tensors(clouds: Clouds):
    def both(module: Any, clouds: Clouds) -> list[Tensor]:
        return [clouds.x, raw(clouds.pos)]

    with pytest.raises(AssertionError, match="how 'pos' lies in memory"):
        assert_layout_invariant(None, clouds, call=both)


@pytest.mark.parametrize(
    "value", [torch.arange(12.0).view(4, 3), torch.arange(5), torch.ones(3, 2)]
)
def test_every_layout_is_equal_and_another(value: Tensor):
    made = layouts_of(value)
    assert all(torch.equal(layout, value) for layout in made.values())
    assert len({(t.stride(), t.storage_offset()) for t in made.values()}) == len(made)
    assert ("expanded" in made) == bool((value == value[0]).all())
