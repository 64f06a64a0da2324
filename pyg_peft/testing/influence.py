"""Checks of which points may influence which outputs: batch isolation, locality, sensitivity."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from pyg_peft.testing.clouds import Call, Clouds, Rows, call_flat, output_rows


def assert_batch_isolated(
    module: object,
    clouds: Clouds,
    *,
    call: Call = call_flat,
    rows: Rows = "point",
    rtol: float = 1e-7,
    atol: float = 1e-9,
) -> None:
    """Fail unless the output of each cloud is independent of the other clouds in the batch.

    Values are compared within tolerances, because libraries may sum a larger batch in another
    order. Gradients between clouds must be exactly zero.

    Args:
        module: Module or function under test, in eval mode if it normalizes over batches.
        clouds: At least two clouds that are not empty. Clouds of different sizes find more errors.
        call: How to call the module.
        rows: Whether the output has one row per point or per cloud.
        rtol: Relative tolerance.
        atol: Absolute tolerance.

    Example:
        >>> import torch
        >>> from pyg_peft.testing import assert_batch_isolated, random_clouds
        >>> clouds = random_clouds([5, 3], generator=torch.Generator().manual_seed(0))
        >>> def centered(x, pos, batch, batch_size):
        ...     return x - x.mean(dim=0)
        >>> assert_batch_isolated(centered, clouds)
        Traceback (most recent call last):
        ...
        AssertionError: The output of cloud 0 depends on the others...
    """
    present = clouds.batch.unique().tolist()
    if len(present) < 2:
        raise ValueError(f"Expected 'clouds' to hold at least two clouds (got {len(present)})")
    leaves = clouds.leaves()
    together = call(module, leaves)
    for cloud in present:
        own = together[output_rows(clouds, cloud, rows)]
        alone = call(module, clouds.alone(cloud))
        torch.testing.assert_close(
            own,
            alone,
            rtol=rtol,
            atol=atol,
            msg=lambda text, c=cloud: f"The output of cloud {c} depends on the others. {text}",
        )
        _check_gradients(own, leaves, clouds.batch == cloud, cloud)


def _check_gradients(own: Tensor, leaves: Clouds, inside: Tensor, cloud: int) -> None:
    """Fail if the output of one cloud has a gradient for another cloud's points."""
    if not own.requires_grad:
        return
    # Weights differ from row to row, so that gradients do not cancel as in a plain sum.
    weights = torch.linspace(0.5, 1.5, own.numel(), dtype=own.dtype, device=own.device)
    grads = torch.autograd.grad(
        (own.reshape(-1) * weights).sum(),
        [leaves.x, leaves.pos],
        retain_graph=True,
        allow_unused=True,
    )
    for name, grad in zip(("x", "pos"), grads, strict=True):
        if grad is not None and bool((grad[~inside] != 0).any()):
            raise AssertionError(f"Cloud {cloud} has a gradient for '{name}' of another cloud")


def hops(edge_index: Tensor, num_nodes: int, num_hops: int = 1) -> Tensor:
    """Return which nodes may influence which within ``num_hops`` steps, including themselves.

    Args:
        edge_index: Edges. Row 0 is the neighbor, row 1 the receiver.
        num_nodes: Number of nodes N.
        num_hops: Number of message-passing steps.

    Shapes: edge_index (2, E); output (N, N), true at [i, j] where j may reach i.

    Example:
        >>> import torch
        >>> from pyg_peft.testing import hops
        >>> hops(torch.tensor([[0, 1], [1, 2]]), 3).int().tolist()
        [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """
    step = torch.eye(num_nodes, dtype=torch.float64, device=edge_index.device)
    step[edge_index[1], edge_index[0]] = 1
    return torch.linalg.matrix_power(step, num_hops) > 0


def assert_local(module: object, clouds: Clouds, reach: Tensor, *, call: Call = call_flat) -> None:
    """Fail unless the Jacobian with respect to features is zero wherever ``reach`` is false.

    The test also fails if no point influences another, because locality would then hold trivially.

    Args:
        module: Module or function under test. Its output has one row per point.
        clouds: A small batch, because the whole Jacobian is computed.
        reach: Whether point j may influence row i, at [i, j]; see :func:`hops`.
        call: How to call the module.

    Shapes: reach (N, N).

    Example:
        >>> import torch
        >>> from pyg_peft.testing import assert_local, hops, random_clouds
        >>> clouds = random_clouds([4], generator=torch.Generator().manual_seed(0))
        >>> chain = torch.tensor([[0, 1, 2], [1, 2, 3]])
        >>> def pass_on(x, pos, batch, batch_size):
        ...     return x.index_add(0, chain[1], x[chain[0]])
        >>> assert_local(pass_on, clouds, hops(chain, 4))
    """
    leaves = clouds.leaves()

    def output(x: Tensor) -> Tensor:
        return call(module, replace(leaves, x=x)).flatten(1)

    jacobian = torch.autograd.functional.jacobian(output, leaves.x)
    assert isinstance(jacobian, Tensor)
    influence = (jacobian != 0).any(dim=-1).any(dim=1)  # [N, N]
    far = (influence & ~reach).nonzero()
    if far.numel():
        row, source = far[0].tolist()
        raise AssertionError(f"Row {row} is influenced by point {source}, which is out of reach")
    if not bool((influence & ~torch.eye(len(influence), dtype=torch.bool)).any()):
        raise AssertionError("No point influences another: locality is empty")


def assert_sensitive(
    module: object,
    clouds: Clouds,
    *,
    generator: torch.Generator,
    to: Literal["x", "pos"] = "pos",
    call: Call = call_flat,
    least: float = 1e-6,
) -> None:
    """Fail unless the output changes when points move.

    This is the counterpart of every invariance. A component that ignores ``pos`` is invariant under
    every motion, but fails here.

    Args:
        module: Module or function under test, randomized.
        clouds: A batch.
        generator: Source of the change.
        to: What is changed at every second point, positions or features.
        call: How to call the module.
        least: Smallest change of the output that counts.

    Example:
        >>> import torch
        >>> from pyg_peft.testing import assert_sensitive, random_clouds
        >>> generator = torch.Generator().manual_seed(0)
        >>> clouds = random_clouds([5, 3], generator=generator)
        >>> def blind(x, pos, batch, batch_size):
        ...     return 2 * x
        >>> assert_sensitive(blind, clouds, generator=generator, to="pos")
        Traceback (most recent call last):
        ...
        AssertionError: The output does not depend on 'pos'
    """
    value: Tensor = getattr(clouds, to)
    noise = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)
    noise[1::2] = 0
    changes: dict[str, Tensor] = {to: value + noise}
    difference = call(module, replace(clouds, **changes)) - call(module, clouds)
    if not bool((difference.abs() > least).any()):
        raise AssertionError(f"The output does not depend on '{to}'")
