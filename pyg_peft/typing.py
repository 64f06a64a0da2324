"""Type aliases for the shapes in the public interface.

The aliases are checked by ``beartype`` under pytest and cost nothing elsewhere. The letters have
these meanings: ``N`` nodes, ``M`` query nodes that search neighbors among them, ``C`` channels,
``E`` edges, ``B`` clouds, ``G`` tokens of a cloud.
"""

from typing import TypeAlias

from jaxtyping import Bool, Float, Integer
from torch import Tensor

Features: TypeAlias = Float[Tensor, "N C"]
Pos: TypeAlias = Float[Tensor, "N 3"]
Batch: TypeAlias = Integer[Tensor, " N"]
Mask: TypeAlias = Bool[Tensor, "B G"]
Query: TypeAlias = Float[Tensor, "M 3"]
QueryBatch: TypeAlias = Integer[Tensor, " M"]
EdgeIndex: TypeAlias = Integer[Tensor, "2 E"]
Tokens: TypeAlias = Float[Tensor, "B G C"]

__all__ = ["Batch", "EdgeIndex", "Features", "Mask", "Pos", "Query", "QueryBatch", "Tokens"]
