"""The shape checker catches what it should, keeps the library's errors, and leaves graphs whole."""

import pytest
import torch
from jaxtyping import Float, TypeCheckError
from shape_checks import checked
from torch import Tensor
from torch_geometric.nn import MessagePassing

from pyg_peft.typing import EdgeIndex, Features, Pos


def double(x: Float[Tensor, "N C"], pos: "Float[Tensor, 'N 3']") -> Float[Tensor, "N C"]:
    if x.size(1) == 7:
        raise ValueError("seven")
    return x[:1] if x.size(1) == 5 else 2 * x


def plain(x: int) -> str:
    return "x" * x


class Layer(MessagePassing):
    def forward(self, x: Features, pos: Pos, edge_index: EdgeIndex) -> Features:
        return x + self.propagate(edge_index, x=x, pos=pos)

    def message(self, x_j: Tensor, pos_i: Tensor, pos_j: Tensor) -> Tensor:
        return x_j * (pos_i - pos_j).norm(dim=-1, keepdim=True)


class CheckedLayer(Layer):
    forward = checked(Layer.forward)


def test_accepts_what_fits_and_catches_what_does_not():
    watch = checked(double)
    assert torch.equal(watch(torch.ones(4, 2), torch.ones(4, 3)), torch.full((4, 2), 2.0))
    with pytest.raises(TypeCheckError):
        watch(torch.ones(4, 2), torch.ones(5, 3))
    with pytest.raises(TypeCheckError):
        watch(torch.ones(4, 5), pos=torch.ones(4, 3))


def test_the_librarys_own_error_comes_first():
    with pytest.raises(ValueError, match="seven"):
        checked(double)(torch.ones(4, 7), torch.ones(9, 9))


def test_functions_without_shapes_stay_as_they_are():
    assert checked(plain) is plain
    assert checked(Layer.message) is Layer.message


def test_message_passing_works_compiled_and_exported():
    layer = CheckedLayer(aggr="max")
    edge_index = torch.tensor([[0, 1], [1, 0]])
    args = (torch.randn(3, 4), torch.randn(3, 3), edge_index)
    expected = layer(*args)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    assert torch.equal(compiled(*args), expected)
    exported = torch.export.export(layer.eval(), args)
    assert torch.equal(exported.module()(*args), expected)


def test_the_package_is_being_checked():
    from pyg_peft import GeometryAwareAdapter, errors

    assert not hasattr(errors.check_pos, "__wrapped__")  # its annotations are plain tensors
    assert hasattr(GeometryAwareAdapter.forward, "__wrapped__")
