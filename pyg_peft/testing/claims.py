"""Check of a module against the symmetries that it declares."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from pyg_peft.symmetries import Symmetries, symmetries_of
from pyg_peft.testing.clouds import Call, Clouds, Rows, call_flat
from pyg_peft.testing.influence import assert_batch_isolated, assert_local, assert_sensitive
from pyg_peft.testing.symmetry import (
    assert_permutation_equivariant,
    assert_rotation_invariant,
    assert_translation_invariant,
)

Reach: TypeAlias = Callable[[Clouds, int], Tensor]
"""Function that returns which point may influence which within a number of hops, at [i, j] whether
j may influence i; see :func:`pyg_peft.testing.hops`."""

INPUTS: tuple[Literal["x"], Literal["pos"]] = ("x", "pos")
# A denied symmetry may hold for one random change by chance.
TRIES = 5


def assert_symmetries(
    module: Any,
    clouds: Clouds,
    *,
    generator: torch.Generator,
    claimed: Symmetries | None = None,
    call: Call = call_flat,
    rows: Rows | None = None,
    reach: Reach | None = None,
) -> None:
    """Fail unless a module has every symmetry that it declares, and none that it denies.

    Args:
        module: Module or function under test, randomized and in eval mode.
        clouds: At least two clouds of about ten points, without equal distances. If they have no
            features, dependence on ``x`` is not tested.
        generator: Source of the changes.
        claimed: Symmetries to test. By default those that the module declares.
        call: How to call the module.
        rows: Whether the output has one row per point or per cloud. By default one per cloud if
            the module claims to be permutation invariant, and one per point otherwise.
        reach: For a module that declares a ``reach``, which point may influence which.

    Raises:
        TypeError: If the module declares no symmetries.
        ValueError: If ``reach`` is passed for a module that declares none, or is missing; or if
            ``clouds`` are too small: fewer than two, or every point within reach of the others.

    Example:
        >>> import torch
        >>> from pyg_peft.symmetries import Symmetries
        >>> from pyg_peft.testing import assert_symmetries, random_clouds
        >>> generator = torch.Generator().manual_seed(0)
        >>> clouds = random_clouds([9, 7], generator=generator)
        >>> @Symmetries(permutation="equivariant", independent="rows", depends_on=("pos",))
        ... def heights(x, pos, batch, batch_size):
        ...     return pos[:, 2:]
        >>> assert_symmetries(heights, clouds, generator=generator)
        Traceback (most recent call last):
        ...
        AssertionError: heights claims translation invariance: The output depends on a ...
    """
    claimed = symmetries_of(module) if claimed is None else claimed
    if (reach is None) != (claimed.reach is None):
        raise ValueError(
            f"Expected 'reach' to be passed if a module declares 'reach', and only then (got "
            f"{'None' if reach is None else 'a function'} for a declared {claimed.reach})"
        )
    if rows is None:
        rows = "cloud" if claimed.permutation == "invariant" else "point"
    trial = _Trial(module, clouds, generator, claimed, call, rows)
    trial.check_rows()
    assert_batch_isolated(module, clouds, call=call, rows=rows)
    trial.check_order()
    trial.check_motions()
    trial.check_inputs()
    if rows == "point":
        trial.check_independence()
    if reach is not None:
        trial.check_reach(reach)


@dataclass(frozen=True)
class _Trial:
    """One module, its claims, and the clouds that they are tested on."""

    module: Any
    clouds: Clouds
    generator: torch.Generator
    claimed: Symmetries
    call: Call
    rows: Rows

    def expect(self, holds: bool, claim: str, check: Callable[[], None]) -> None:
        """Fail unless ``check`` passes for what is claimed, and fails for what is denied."""
        name = getattr(self.module, "__name__", None) or type(self.module).__name__
        for _ in range(1 if holds else TRIES):
            try:
                check()
            except AssertionError as error:
                if holds:
                    raise AssertionError(f"{name} claims {claim}: {error}") from error
                return
        if not holds:
            raise AssertionError(f"{name} denies {claim}, which holds")

    def check_rows(self) -> None:
        size = self.call(self.module, self.clouds).size(0)
        wanted = self.clouds.batch.numel() if self.rows == "point" else self.clouds.batch_size
        if size != wanted:
            raise AssertionError(
                f"The output has {size} rows, not the {wanted} of one per {self.rows}"
            )

    def check_order(self) -> None:
        def check(keep_first: bool) -> None:
            assert_permutation_equivariant(
                self.module,
                self.clouds,
                generator=self.generator,
                call=self.call,
                rows=self.rows,
                keep_first=keep_first,
            )

        kind = f"permutation {'equivariance' if self.rows == 'point' else 'invariance'}"
        claimed, first = self.claimed.permutation is not None, self.claimed.first_point
        self.expect(claimed, kind, lambda: check(first))
        if first:
            self.expect(False, f"{kind} if the first points change", lambda: check(False))

    def check_motions(self) -> None:
        common: dict[str, Any] = {"generator": self.generator, "call": self.call}
        self.expect(
            self.claimed.translation,
            "translation invariance",
            lambda: assert_translation_invariant(self.module, self.clouds, **common),
        )
        self.expect(
            self.claimed.rotation,
            "rotation invariance",
            lambda: assert_rotation_invariant(self.module, self.clouds, **common),
        )

    def check_inputs(self) -> None:
        for name in INPUTS:
            if getattr(self.clouds, name).size(1) == 0:
                continue

            def check(to: Literal["x", "pos"] = name) -> None:
                try:
                    assert_sensitive(
                        self.module, self.clouds, generator=self.generator, to=to, call=self.call
                    )
                except AssertionError:
                    return
                raise AssertionError(f"The output depends on '{to}'")

            self.expect(name not in self.claimed.depends_on, f"independence of '{name}'", check)

    def check_independence(self) -> None:
        count = self.clouds.batch.numel()
        apart = replace(self.clouds, batch=torch.arange(count), batch_size=count)

        def check() -> None:
            together, alone = (self.call(self.module, c) for c in (self.clouds, apart))
            torch.testing.assert_close(together, alone, rtol=1e-7, atol=1e-9)
            assert_batch_isolated(self.module, apart, call=self.call)

        self.expect(self.claimed.independent == "rows", "independence of rows", check)

    def check_reach(self, reach: Reach) -> None:
        hops = self.claimed.reach or 0
        within, batch = reach(self.clouds, hops), self.clouds.batch
        if bool(within[batch[:, None] == batch].all()):
            raise ValueError(
                "Expected 'clouds' to be so large that not all points are within reach "
                f"(got clouds of at most {int(batch.bincount().max())} points)"
            )

        def check(reached: Tensor) -> None:
            assert_local(self.module, self.clouds, reached, call=self.call)

        self.expect(True, f"locality within {hops} hops", lambda: check(within))
        nearer = reach(self.clouds, hops - 1)
        self.expect(False, f"locality within {hops - 1} hops", lambda: check(nearer))


__all__ = ["Reach", "assert_symmetries"]
