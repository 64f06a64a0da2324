"""Type aliases for the shapes in the public interface.

The aliases are checked by ``beartype`` under pytest and cost nothing elsewhere. The letters have
these meanings: ``N`` nodes, ``M`` query nodes that search neighbors among them, ``C`` channels,
``E`` edges, ``B`` clouds, ``G`` tokens of a cloud.
"""

from typing import TypeAlias

from jaxtyping import Bool, Float, Integer
from torch import Tensor

#: Features, a row per node.
Features: TypeAlias = Float[Tensor, "N C"]
#: Positions, a row per node.
Pos: TypeAlias = Float[Tensor, "N 3"]
#: Sorted cloud ids of nodes.
Batch: TypeAlias = Integer[Tensor, " N"]
#: Which tokens of each cloud are valid.
Mask: TypeAlias = Bool[Tensor, "B G"]
#: Positions of query nodes.
Query: TypeAlias = Float[Tensor, "M 3"]
#: Sorted cloud ids of query nodes.
QueryBatch: TypeAlias = Integer[Tensor, " M"]
#: Edges: row 0 is the neighbor, row 1 the receiver.
EdgeIndex: TypeAlias = Integer[Tensor, "2 E"]
#: Features of the tokens of each cloud.
Tokens: TypeAlias = Float[Tensor, "B G C"]

__all__ = ["Batch", "EdgeIndex", "Features", "Mask", "Pos", "Query", "QueryBatch", "Tokens"]
