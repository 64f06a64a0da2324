"""Declared symmetries: what may be declared, what is said, and what a declaration leaves alone."""

import copy
import inspect
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyg_peft.symmetries import Symmetries, symmetries_of

EQUIVARIANT = Symmetries(permutation="equivariant")


class Plain(nn.Module):
    """Project.

    Symmetries:

    Raises:
        ValueError: Never.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


@EQUIVARIANT
class Declared(Plain):
    __doc__ = Plain.__doc__


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"permutation": "covariant"}, "'permutation' to be one of .* \\(got 'covariant'\\)"),
        ({"independent": "points"}, "'independent' to be one of"),
        ({"depends_on": ("x", "edges")}, "'depends_on' to be a tuple of 'x' and 'pos'"),
        ({"depends_on": "x"}, "'depends_on' to be a tuple"),
        ({"depends_on": ("x",), "rotation": False}, "because 'depends_on' is without 'pos'"),
        ({"permutation": "invariant", "independent": "rows"}, "one row per cloud"),
        ({"reach": 0}, "'reach' to be >= 1"),
    ],
)
def test_contradictions(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        replace(EQUIVARIANT, **fields)


@pytest.mark.parametrize("name", ["first_point", "translation", "rotation"])
def test_flags(name: str):
    with pytest.raises(TypeError, match=f"Expected '{name}' to be True or False"):
        Symmetries(permutation=None, **{name: 1})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"permutation": None, "first_point": True}, "'first_point' to be False"),
        ({"permutation": "invariant", "reach": 1}, "'reach' to be None"),
        ({"permutation": None, "reach": 1}, "'reach' to be None"),
    ],
)
def test_claims_that_contradict_each_other(fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Symmetries(**fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "Equivariant under permutations of the points. Invariant under translation, rotation"),
        ({"permutation": None}, "Not symmetric under permutations of the points."),
        ({"permutation": "invariant"}, "Invariant under permutations of the points."),
        ({"of": "the tokens"}, "permutations of the tokens."),
        ({"first_point": True}, "that keep the first point of each cloud, where sampling starts."),
        ({"translation": False}, "Invariant under rotation and reflection. Not translation inv"),
        ({"rotation": False}, "Translation invariant. Not rotation invariant."),
        ({"translation": False, "rotation": False}, "Not translation or rotation invariant."),
        ({"depends_on": ("x",)}, "Does not depend on positions."),
        ({"depends_on": ("pos",)}, "Does not depend on features."),
        ({"depends_on": ()}, "Does not depend on the cloud."),
        ({"reach": 1}, "Local: 1 hop. "),
        ({"reach": 3}, "Local: 3 hops. "),
        ({}, "Clouds do not influence each other in eval mode."),
        ({"independent": "rows"}, "Rows do not influence each other in eval mode."),
        ({"given": "the edges"}, "Given the edges: equivariant under permutations"),
        ({"note": "More."}, "in eval mode. More."),
    ],
)
def test_words(fields: dict[str, Any], said: str):
    text = replace(EQUIVARIANT, **fields).text
    assert said in " ".join(text.split()) + " "
    assert max(map(len, text.splitlines())) <= 92


def test_the_docstring_is_filled():
    doc = inspect.getdoc(Declared) or ""
    before, _, after = doc.partition("Symmetries:\n")
    assert before == "Project.\n\n"
    assert after.startswith("    Equivariant under permutations of the points.")
    assert after.endswith("in eval mode.\n\nRaises:\n    ValueError: Never.")
    assert "Equivariant" not in (Plain.__doc__ or "")


def test_a_section_that_is_written_twice():
    def written(x: Tensor) -> Tensor:
        """Return it.

        Symmetries:
            Equivariant.
        """
        return x

    with pytest.raises(ValueError, match=r"section 'Symmetries' to be empty \(got 'Equivariant"):
        EQUIVARIANT(written)


@pytest.mark.parametrize("doc", [None, "Return it.", "Symmetries: none."])
def test_a_docstring_without_the_section_stays(doc: str | None):
    def silent(x: Tensor) -> Tensor:
        return x

    silent.__doc__ = doc
    assert EQUIVARIANT(silent) is silent and silent.__doc__ == doc
    assert symmetries_of(silent) is EQUIVARIANT


def test_a_declaration_changes_nothing_else():
    module = Declared()
    assert symmetries_of(Declared) is symmetries_of(module) is EQUIVARIANT
    assert list(module.state_dict()) == list(Plain().state_dict())
    assert repr(module) == repr(Plain()).replace("Plain", "Declared")
    assert "symmetries" not in vars(module)
    x = torch.randn(3, 2)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x), module(x)) and symmetries_of(other) is EQUIVARIANT
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), module(x))


def test_a_subclass_inherits_until_it_declares():
    class Child(Declared):
        pass

    assert symmetries_of(Child) is EQUIVARIANT
    other = Symmetries(permutation=None)
    assert symmetries_of(other(Child)) is other and symmetries_of(Declared) is EQUIVARIANT


@pytest.mark.parametrize(("value", "name"), [(Plain, "Plain"), (Plain(), "Plain"), (3, "3")])
def test_nothing_declared(value: object, name: str):
    with pytest.raises(TypeError, match=f"Expected '.*{name}' to declare its symmetries by @Symm"):
        symmetries_of(value)
