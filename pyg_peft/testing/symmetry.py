"""Checks of claimed symmetries: permutation, translation, rotation and reflection."""

import torch
from torch import Tensor

from pyg_peft.testing.clouds import Call, Clouds, Rows, call_flat, random_order


def assert_permutation_equivariant(
    module: object,
    clouds: Clouds,
    *,
    generator: torch.Generator,
    call: Call = call_flat,
    rows: Rows = "point",
    keep_first: bool = False,
    rtol: float = 1e-7,
    atol: float = 1e-9,
) -> None:
    """Fail unless reordering the points of each cloud only reorders the output.

    Args:
        module: Module or function under test.
        clouds: A batch without equal distances.
        generator: Source of the order.
        call: How to call the module.
        rows: Whether the output has one row per point, or one per cloud, which must then not
            change.
        keep_first: Keep the first point of each cloud in its place, for a module that claims the
            symmetry only for a given start of its sampling.
        rtol: Relative tolerance.
        atol: Absolute tolerance.

    Example:
        >>> import torch
        >>> from pyg_peft.testing import assert_permutation_equivariant, random_clouds
        >>> generator = torch.Generator().manual_seed(0)
        >>> clouds = random_clouds([5, 3], generator=generator)
        >>> def double(x, pos, batch, batch_size):
        ...     return 2 * x
        >>> assert_permutation_equivariant(double, clouds, generator=generator)
    """
    order = random_order(clouds, generator, keep_first=keep_first)
    expected = call(module, clouds)
    expected = expected[order] if rows == "point" else expected
    _compare(call(module, clouds.permuted(order)), expected, "the order of the points", rtol, atol)


def assert_translation_invariant(
    module: object,
    clouds: Clouds,
    *,
    generator: torch.Generator,
    call: Call = call_flat,
    rtol: float = 1e-6,
    atol: float = 1e-8,
) -> None:
    """Fail unless moving each cloud by its own offset leaves the output unchanged.

    Args:
        module: Module or function under test.
        clouds: A batch without equal distances.
        generator: Source of the offsets.
        call: How to call the module.
        rtol: Relative tolerance.
        atol: Absolute tolerance.

    Example:
        >>> import torch
        >>> from pyg_peft.testing import assert_translation_invariant, random_clouds
        >>> generator = torch.Generator().manual_seed(0)
        >>> clouds = random_clouds([5, 3], generator=generator)
        >>> def steps(x, pos, batch, batch_size):
        ...     return (pos[1:] - pos[:-1]) * (batch[1:] == batch[:-1])[:, None]
        >>> assert_translation_invariant(steps, clouds, generator=generator)
    """
    offset = torch.randn(clouds.batch_size, 3, generator=generator, dtype=torch.float64)
    moved = clouds.moved(clouds.pos + offset.to(clouds.pos)[clouds.batch])
    _compare(call(module, moved), call(module, clouds), "a translation", rtol, atol)


def assert_rotation_invariant(
    module: object,
    clouds: Clouds,
    *,
    generator: torch.Generator,
    call: Call = call_flat,
    rtol: float = 1e-6,
    atol: float = 1e-8,
) -> None:
    """Fail unless a separate rotation, and a reflection, of each cloud leave the output unchanged.

    Args:
        module: Module or function under test.
        clouds: A batch without equal distances.
        generator: Source of the orthogonal matrices.
        call: How to call the module.
        rtol: Relative tolerance.
        atol: Absolute tolerance.

    Example:
        >>> import torch
        >>> from pyg_peft.testing import assert_rotation_invariant, random_clouds
        >>> generator = torch.Generator().manual_seed(0)
        >>> clouds = random_clouds([5, 3], generator=generator)
        >>> def distance(x, pos, batch, batch_size):
        ...     return pos.norm(dim=1)
        >>> assert_rotation_invariant(distance, clouds, generator=generator)
    """
    normal = torch.randn(clouds.batch_size, 3, 3, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(normal).Q.to(clouds.pos)
    turned = clouds.moved(torch.einsum("nij,nj->ni", rotation[clouds.batch], clouds.pos))
    expected = call(module, clouds)
    _compare(call(module, turned), expected, "a rotation", rtol, atol)
    mirrored = clouds.moved(clouds.pos * clouds.pos.new_tensor([-1.0, 1.0, 1.0]))
    _compare(call(module, mirrored), expected, "a reflection", rtol, atol)


def _compare(found: Tensor, expected: Tensor, change: str, rtol: float, atol: float) -> None:
    torch.testing.assert_close(
        found,
        expected,
        rtol=rtol,
        atol=atol,
        msg=lambda text: f"The output depends on {change}. {text}",
    )
