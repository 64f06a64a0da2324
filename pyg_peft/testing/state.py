"""Checks that saved, copied and compiled modules give the same outputs."""

import copy
import io
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from pyg_peft.testing.clouds import Call, Clouds, call_flat


def assert_saved_and_loaded(
    module: nn.Module,
    clouds: Clouds,
    *,
    save: Callable[[Any, Path], None],
    load: Callable[[Path], nn.Module],
    call: Call = call_flat,
) -> None:
    """Fail unless the module loaded from a file gives bit-identical outputs in eval mode.

    Args:
        module: Module to save, randomized. It is put in eval mode.
        clouds: Input of both modules.
        save: Function that writes the module to a folder.
        load: Function that builds another module, with another seed, and reads the folder.
        call: How to call the modules.

    Example:
        >>> import torch
        >>> from pyg_peft.testing import assert_saved_and_loaded, random_clouds
        >>> clouds = random_clouds([3], generator=torch.Generator().manual_seed(0))
        >>> def save(module, folder):
        ...     torch.save(module.state_dict(), folder / "weights.pt")
        >>> def load(folder):
        ...     fresh = torch.nn.Linear(8, 2).double()
        ...     fresh.load_state_dict(torch.load(folder / "weights.pt"))
        ...     return fresh
        >>> assert_saved_and_loaded(
        ...     torch.nn.Linear(8, 2).double(), clouds, save=save, load=load,
        ...     call=lambda module, clouds: module(clouds.x),
        ... )
    """
    module.eval()
    with TemporaryDirectory() as folder:
        save(module, Path(folder))
        loaded = load(Path(folder)).eval()
    if loaded is module:
        raise AssertionError("'load' returned the saved module itself")
    _equal(call(loaded, clouds), call(module, clouds), "Loading")


def assert_deepcopy_and_pickle(
    module: nn.Module, clouds: Clouds, *, call: Call = call_flat
) -> None:
    """Fail unless copies give the same outputs and share no memory with the original.

    Args:
        module: Module to copy. It is put in eval mode.
        clouds: Input of all modules.
        call: How to call the modules.

    Example:
        >>> import torch
        >>> from pyg_peft.testing import assert_deepcopy_and_pickle, random_clouds
        >>> clouds = random_clouds([3], generator=torch.Generator().manual_seed(0))
        >>> layer = torch.nn.Linear(8, 2).double()
        >>> assert_deepcopy_and_pickle(layer, clouds, call=lambda module, clouds: module(clouds.x))
    """
    module.eval()
    expected = call(module, clouds)
    stored = io.BytesIO()
    torch.save(module, stored)
    stored.seek(0)
    copies: dict[str, nn.Module] = {
        "copy.deepcopy": copy.deepcopy(module),
        "pickle": pickle.loads(pickle.dumps(module)),
        "torch.save": torch.load(stored, weights_only=False),
    }
    own = {tensor.data_ptr() for tensor in _tensors(module)}
    for way, duplicate in copies.items():
        _equal(call(duplicate, clouds), expected, way)
        if own & {tensor.data_ptr() for tensor in _tensors(duplicate)}:
            raise AssertionError(f"{way} shares memory with the original")
    with torch.no_grad():
        for tensor in _tensors(copies["copy.deepcopy"]):
            tensor.zero_()
    _equal(call(module, clouds), expected, "Changing a copy")


def assert_compiles(
    module: nn.Module,
    batches: Sequence[Clouds],
    *,
    call: Call = call_flat,
    backend: str = "inductor",
    rtol: float = 1e-5,
    atol: float = 1e-6,
) -> None:
    """Fail unless ``torch.compile(fullgraph=True)`` gives the eager outputs at every size.

    Args:
        module: Module to compile. The function ``call`` itself is not compiled.
        batches: Batches of at least two sizes.
        call: How to call the module.
        backend: The compiler backend. ``"eager"`` checks the graph capture only, in a fraction of
            the time.
        rtol: Relative tolerance.
        atol: Absolute tolerance.

    Example:
        >>> import torch
        >>> from pyg_peft.testing import assert_compiles, random_clouds
        >>> generator = torch.Generator().manual_seed(0)
        >>> batches = [random_clouds([size], generator=generator) for size in (4, 7)]
        >>> layer = torch.nn.Linear(8, 2).double()
        >>> def features(module, clouds):
        ...     return module(clouds.x)
        >>> assert_compiles(layer, batches, call=features, backend="eager")
    """
    if len({clouds.batch.numel() for clouds in batches}) < 2:
        raise ValueError("Expected 'batches' to have at least two sizes")
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    for clouds in batches:
        expected = call(module, clouds)
        torch.testing.assert_close(
            call(compiled, clouds),
            expected,
            rtol=rtol,
            atol=atol,
            msg=lambda text: f"Compiling changes the output. {text}",
        )
    torch.compiler.reset()


def _tensors(module: nn.Module) -> list[Tensor]:
    return [t for t in (*module.parameters(), *module.buffers()) if t.numel()]


def _equal(found: Tensor, expected: Tensor, way: str) -> None:
    if not torch.equal(found, expected):
        size = (found - expected).abs().max() if found.shape == expected.shape else "the shape"
        raise AssertionError(f"{way} changes the output by {size}")
