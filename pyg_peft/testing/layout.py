"""Checks that the memory layout of tensors does not affect the output of a module."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pyg_peft.testing.clouds import Call, Clouds, call_flat


def layouts_of(value: Tensor) -> dict[str, Tensor]:
    """Return tensors equal to ``value`` with other memory layouts.

    Args:
        value: A tensor of at least one dimension.

    Returns:
        A dictionary of ``"contiguous"``, a copy; ``"transposed"``, stored column by column;
        ``"sliced"`` and ``"every second column"``, out of a wider table; ``"strided"``, every
        second row of a longer one; ``"offset"``, from the middle of a longer one; and
        ``"expanded"``, with a stride of zero, if all rows are equal.

    Example:
        >>> import torch
        >>> from pyg_peft.testing import layouts_of
        >>> made = layouts_of(torch.arange(6.0).view(3, 2))
        >>> made["transposed"].stride(), made["sliced"].stride(), made["strided"].stride()
        ((1, 3), (6, 1), (4, 1))
    """
    made = {"contiguous": value.clone(memory_format=torch.contiguous_format)}
    size = value.size(0)
    longer = value.new_zeros(2 * size + 3, *value.shape[1:])
    longer[1 : 2 * size + 1 : 2] = value
    made["strided"] = longer[1 : 2 * size + 1 : 2]
    longer = value.new_zeros(size + 3, *value.shape[1:])
    longer[2 : size + 2] = value
    made["offset"] = longer[2 : size + 2]
    if value.dim() > 1:
        made["transposed"] = value.transpose(0, -1).contiguous().transpose(0, -1)
        wider = value.new_zeros(*value.shape[:-1], 3 * value.size(-1))
        wider[..., : value.size(-1)] = value
        made["sliced"] = wider[..., : value.size(-1)]
        wider = value.new_zeros(*value.shape[:-1], 2 * value.size(-1))
        wider[..., ::2] = value
        made["every second column"] = wider[..., ::2]
    if size > 0 and bool((value == value[:1]).all()):
        made["expanded"] = value[:1].expand_as(value)
    return made


def assert_layout_invariant(
    module: object,
    clouds: Clouds,
    *,
    call: Call | Callable[..., object] = call_flat,
    rtol: float = 1e-6,
    atol: float = 1e-8,
) -> None:
    """Fail unless the output is independent of the memory layout of the input tensors.

    Every tensor of the batch is passed in each layout of :func:`layouts_of`, as results from
    NumPy's ``.T``, ``[:, :3]`` and ``[::2]``. Features and positions are also passed with a stride
    of zero, with all rows equal. Values are compared within tolerances, because libraries may sum
    in another order.

    Args:
        module: Module or function under test, in eval mode if it normalizes over batches.
        clouds: A batch, preferably of more than a few dozen points, so that searches are not
            trivial.
        call: How to call the module. Its result is a tensor, or a tuple or list of tensors.
        rtol: Relative tolerance.
        atol: Absolute tolerance.

    Example:
        >>> import torch
        >>> from pyg_peft.testing import assert_layout_invariant, random_clouds
        >>> clouds = random_clouds([5, 3], generator=torch.Generator().manual_seed(0))
        >>> def by_memory(x, pos, batch, batch_size):
        ...     return pos.as_strided(pos.shape, (3, 1))
        >>> assert_layout_invariant(by_memory, clouds)
        Traceback (most recent call last):
        ...
        AssertionError: The output depends on how 'pos' lies in memory (strided)...
    """
    plain = _contiguous(clouds)
    expected = call(module, plain)
    for name in ("x", "pos", "batch"):
        for layout, value in layouts_of(getattr(clouds, name)).items():
            found = call(module, replace(plain, **{name: value}))
            _compare(found, expected, name, layout, rtol, atol)
    for name in ("x", "pos"):
        equal = getattr(plain, name)[:1].expand_as(getattr(plain, name))
        expected = call(module, replace(plain, **{name: equal.contiguous()}))
        found = call(module, replace(plain, **{name: equal}))
        _compare(found, expected, name, "expanded", rtol, atol)


def _compare(
    found: object, expected: object, name: str, layout: str, rtol: float, atol: float
) -> None:
    torch.testing.assert_close(
        found,
        expected,
        rtol=rtol,
        atol=atol,
        equal_nan=True,
        msg=lambda text: f"The output depends on how '{name}' lies in memory ({layout}). {text}",
    )


def _contiguous(clouds: Clouds) -> Clouds:
    return replace(
        clouds,
        x=clouds.x.contiguous(),
        pos=clouds.pos.contiguous(),
        batch=clouds.batch.contiguous(),
    )


__all__ = ["assert_layout_invariant", "layouts_of"]
