"""Who may influence whom: between clouds nobody, within a cloud the neighbours, and they must."""

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
    """Fail unless each cloud's output is its output alone, and gradients stay within the cloud.

    Values are compared within tolerances, since libraries may sum a larger batch in another order.
    Gradients between clouds must be exactly zero.

    Args:
        module: what is called; in eval mode, if it normalises over batches.
        clouds: at least two clouds that are not empty; ragged ones find more.
        call: how the module is called.
        rows: whether the output has a row per point or per cloud.
        rtol: relative tolerance.
        atol: absolute tolerance.

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
    # Weights that differ from row to row: gradients that cancel in a plain sum do not hide.
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
    """Return which node may influence which within ``num_hops`` steps, itself included.

    Args:
        edge_index: row 0 the neighbour, row 1 the receiver.
        num_nodes: N.
        num_hops: how often messages are passed.

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

    The other half is tested too: some point must be influenced by another, or locality is empty.

    Args:
        module: what is called; its output has a row per point.
        clouds: a small batch: the whole Jacobian is computed.
        reach: whether point j may influence row i, at [i, j]; see :func:`hops`.
        call: how the module is called.

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
    """Fail unless the output changes when points move: the twin of every invariance.

    A component that ignores ``pos`` is invariant under everything, and fails here.

    Args:
        module: what is called, awake.
        clouds: a batch.
        generator: source of the change.
        to: what is changed, positions or features, at every second point.
        call: how the module is called.
        least: the smallest change of the output that counts.

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
