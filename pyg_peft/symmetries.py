"""Declare what a class or a function does under permutations, motions and batching of its clouds.

The declaration is data: the docstring's section *Symmetries* is rendered from it, the table in the
documentation lists it, and :func:`pyg_peft.testing.assert_symmetries` tests it.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from textwrap import fill, indent
from typing import Any, Literal, TypeVar

from pyg_peft.errors import check_count, check_flag, described

Declared = TypeVar("Declared", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Symmetries:
    """Symmetries of a class or a function. An instance is the decorator that declares them.

    Declaring sets the attribute ``symmetries``, and fills the docstring's section *Symmetries*: a
    line ``Symmetries:`` without a text. Nothing else changes, and a docstring without that line
    stays as it is.

    A symmetry that is not claimed is denied: :func:`pyg_peft.testing.assert_symmetries` fails as
    well if a denied symmetry holds. Claims are about eval mode, and about changes of ``pos`` while
    ``x`` stays the same.

    Args:
        permutation: What the output does if the points of a cloud are reordered. It is
            ``"equivariant"`` if the output has a row per point and follows the order. It is
            ``"invariant"`` if the output has a row per cloud and stays the same. ``None`` denies
            both.
        of: What is permuted, in words.
        first_point: Whether sampling starts at the first point of each cloud. Permutations then
            keep this point.
        translation: Whether the output stays the same if a cloud is moved.
        rotation: Whether the output stays the same if a cloud is rotated or reflected.
        depends_on: Inputs on which the output depends, of ``"x"`` and ``"pos"``.
        independent: Whether clouds do not influence each other, or not even the rows of a cloud.
        reach: Number of hops along the edges from which a point is influenced. ``None`` claims
            nothing, and is not tested.
        given: Condition of all the claims, in words, such as ``"the edges"``.
        note: Further sentences for the docstring. They are not tested by ``assert_symmetries``.

    Raises:
        ValueError: If a field has none of the values above; if a motion is denied although the
            output does not depend on positions; if the first point is kept although permutations
            are denied; if ``reach`` is given without a row per point; or, when used as a decorator,
            if the docstring has a section *Symmetries* that is not empty.
        TypeError: If a field has the wrong type.

    Example:
        >>> @Symmetries(permutation="equivariant", rotation=False)
        ... def offsets(x, pos, batch, batch_size):
        ...     '''Return the offset of each point from the mean of its cloud.
        ...
        ...     Symmetries:
        ...     '''
        >>> symmetries_of(offsets).translation
        True
        >>> print(symmetries_of(offsets).text)
        Equivariant under permutations of the points. Translation invariant. Not rotation invariant.
        Clouds do not influence each other in eval mode.
    """

    permutation: Literal["equivariant", "invariant"] | None
    of: str = "the points"
    first_point: bool = False
    translation: bool = True
    rotation: bool = True
    depends_on: tuple[Literal["x", "pos"], ...] = ("x", "pos")
    independent: Literal["clouds", "rows"] = "clouds"
    reach: int | None = None
    given: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        _check_choice(self.permutation, "permutation", ("equivariant", "invariant", None))
        _check_choice(self.independent, "independent", ("clouds", "rows"))
        for name in ("first_point", "translation", "rotation"):
            check_flag(getattr(self, name), name)
        if not isinstance(self.depends_on, tuple) or not set(self.depends_on) <= {"x", "pos"}:
            raise ValueError(
                f"Expected 'depends_on' to be a tuple of 'x' and 'pos' (got {self.depends_on!r})"
            )
        if self.reach is not None:
            check_count(self.reach, "reach")
        if self.permutation is None and self.first_point:
            raise ValueError(
                "Expected 'first_point' to be False, because 'permutation' is denied (got True)"
            )
        if self.permutation != "equivariant" and self.reach is not None:
            raise ValueError(
                "Expected 'reach' to be None, because the output has no row per point that follows "
                f"the order (got {self.reach})"
            )
        if self.permutation == "invariant" and self.independent == "rows":
            raise ValueError(
                "Expected 'independent' to be 'clouds', because an invariant output has one row "
                "per cloud (got 'rows')"
            )
        if "pos" not in self.depends_on and not (self.translation and self.rotation):
            raise ValueError(
                "Expected 'translation' and 'rotation' to be True, because 'depends_on' is without "
                f"'pos' (got {self.translation} and {self.rotation})"
            )

    @property
    def text(self) -> str:
        """The claims in words, in lines of at most 92 characters."""
        said = " ".join([*self._permutation(), *self._motions(), *self._influence(), self.note])
        if self.given:
            said = f"Given {self.given}: {said[0].lower()}{said[1:]}"
        return fill(said.strip(), 92, break_long_words=False, break_on_hyphens=False)

    def __call__(self, declared: Declared) -> Declared:
        """Declare the symmetries of a class or a function."""
        declared.__doc__ = _filled(declared.__doc__, self.text)
        setattr(declared, "symmetries", self)  # noqa: B010  (no type checker knows the attribute)
        return declared

    def _permutation(self) -> Iterator[str]:
        if self.permutation is None:
            yield f"Not symmetric under permutations of {self.of}."
        else:
            kept = (
                " that keep the first point of each cloud, where sampling starts"
                if self.first_point
                else ""
            )
            yield f"{self.permutation.capitalize()} under permutations of {self.of}{kept}."

    def _motions(self) -> Iterator[str]:
        if not self.depends_on:
            yield "Does not depend on the cloud."
            return
        if "pos" not in self.depends_on:
            yield "Does not depend on positions."
            return
        if "x" not in self.depends_on:
            yield "Does not depend on features."
        if self.translation and self.rotation:
            yield "Invariant under translation, rotation and reflection of the positions."
        elif self.translation:
            yield "Translation invariant. Not rotation invariant."
        elif self.rotation:
            yield "Invariant under rotation and reflection. Not translation invariant."
        else:
            yield "Not translation or rotation invariant."

    def _influence(self) -> Iterator[str]:
        if self.reach is not None:
            yield f"Local: {self.reach} hop{'s' if self.reach > 1 else ''}."
        yield f"{self.independent.capitalize()} do not influence each other in eval mode."


def symmetries_of(value: object) -> Symmetries:
    """Return what a class, an instance of it or a function declares.

    A subclass has the symmetries of its base, unless it declares its own.

    Raises:
        TypeError: If nothing is declared.

    Example:
        >>> from pyg_peft.nn import Bottleneck
        >>> symmetries_of(Bottleneck).independent
        'rows'
    """
    found = getattr(value, "symmetries", None)
    if not isinstance(found, Symmetries):
        name = getattr(value, "__name__", None) or described(value)
        raise TypeError(f"Expected '{name}' to declare its symmetries by @Symmetries(...)")
    return found


def _check_choice(value: object, name: str, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        raise ValueError(f"Expected '{name}' to be one of {choices} (got {described(value)})")


def _filled(doc: str | None, text: str) -> str | None:
    """Return a docstring with a text in its empty section."""
    found = re.search(r"^( *)Symmetries:$(?:\n\1    \s*(.+))?", doc or "", re.MULTILINE)
    if doc is None or found is None:
        return doc
    if found[2] is not None:
        raise ValueError(f"Expected the section 'Symmetries' to be empty (got {found[2]!r})")
    body = f"{found[1]}Symmetries:\n{indent(text, found[1] + '    ')}"
    return f"{doc[: found.start()]}{body}{doc[found.end() :]}"


__all__ = ["Symmetries", "symmetries_of"]
