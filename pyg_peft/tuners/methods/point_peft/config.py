"""Point-PEFT: Point-prior Prompt and Geometry-aware Adapter, on tokens or on any PyG model."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from torch import nn

from pyg_peft.backbones.contract import is_token_backbone
from pyg_peft.nn import MemoryBank
from pyg_peft.trainable import match_modules
from pyg_peft.tuners.engine.config import Question, Site
from pyg_peft.tuners.engine.dry_run import Widths
from pyg_peft.tuners.graphs.row_order import check_row_order
from pyg_peft.tuners.methods.point_peft.bank import check_graph_bank, check_token_bank
from pyg_peft.tuners.methods.point_peft.on_graphs import graph_sites
from pyg_peft.tuners.methods.point_peft.on_tokens import token_sites
from pyg_peft.tuners.methods.point_peft.retrieval import ask, module_query
from pyg_peft.tuners.methods.point_peft.settings import TOKEN_PROMPTS, PointPEFTSettings
from pyg_peft.tuners.tokens.blocks import token_blocks


@dataclass(frozen=True, kw_only=True)
class PointPEFTConfig(PointPEFTSettings):
    r"""`"Point-PEFT: Parameter-Efficient Fine-Tuning for 3D Pre-trained Models"
    <https://arxiv.org/abs/2310.03059>`_ for Point-MAE and its family, and for any PyG model.

    On a token backbone::

                                                         once per forward: structures, bank(query)
        pos ── patches ── tokens ──▶ [cls, patches]
                                        │ insert P prompts ◀── bank(query)
                        ┌───────────────▼────────────────┐
                        │ x + proj(attn(norm1 x))        │  frozen weights, own biases
                        │ x + f + 0.7·A(f), f = MLP(..)  │  Bottleneck after the MLP
                        └───────────────┬────────────────┘
                                        │ GeometryAwareAdapter over the patches' centers
                                        │ remove the prompts
                                        ▼  next block

    | placed at | component | trainable parameters (C = 384) |
    | --- | --- | --- |
    | first ``prompt_depth`` blocks, input | :class:`~pyg_peft.nn.PointPriorPrompt` \
      (:class:`~pyg_peft.nn.PromptTokens` without a bank) | 10,376 (3,840) each |
    | every block's MLP, output | :class:`~pyg_peft.nn.Bottleneck` | 12,688 each |
    | every block, output | :class:`~pyg_peft.nn.GeometryAwareAdapter` | 13,457 each |
    | shared by all of these | :class:`~pyg_peft.nn.NeighborAttention` | 28,800 |
    | base | prompt positions; own biases, final norm, cls token | 30 + 38,400 |
    | ``feature_stem``, if there is one | own copy | 128 · ``in_channels`` |
    | ``modules_to_save`` | own copy of the head | 267,535 (15 classes) |

    On the layers of another model that ``target_modules`` names::

        pos, batch / edge_index ─────────────┐   by name, from the layer's call or from the nearest
                                             ▼   one around it
        x ── layer (frozen, own biases) ── GeometryAwareAdapter ── output
        │                              │
        └ join P prompts to all points └ remove their rows          with num_prompts, where a layer
                                                                    has edges and features

    | placed at | component | trainable parameters |
    | --- | --- | --- |
    | first ``prompt_depth`` layers that can take them, input | \
      :class:`~pyg_peft.nn.PointPriorPrompt` (:class:`~pyg_peft.nn.PromptTokens` without a bank) \
      | P C + 17 C + 8 (P C) |
    | the same, if they receive positions | prompt positions | 3 P |
    | the same, for a bank of another width D | linear map of rank 8 | 8 (C + D) |
    | layers named, output | :class:`~pyg_peft.nn.GeometryAwareAdapter` | 35 C + 17 (width 16) |
    | shared by layers of one width C | :class:`~pyg_peft.nn.NeighborAttention` | 75 C (width 18) |
    | layers named, and below | own biases | their lengths |
    | ``modules_to_save`` | own copy | all of them |

    On these layers the adapter's neighborhoods are the layer's own edges, and every point is a
    center. If a layer has no edges, a structure over ``pos`` and ``batch`` is built once per level,
    with ``k`` neighbors and centers as in a token backbone. ``ratio`` and ``num_interp`` have no
    effect on layers with edges. Prompts are off unless ``num_prompts`` is given. Identity at init
    without prompts.

    A prompt on a graph is a virtual node. It has learned features of the width ``C`` of the layer's
    input and, as on tokens, learned coordinates, so a translation-invariant layer is no longer
    invariant. It sends to every point of its cloud and receives nothing; in bipartite edges it is a
    source.

    A layer can take prompts if it is called with features first and with ``edge_index`` by name.
    It must need nothing else that has a row per point or edge, except positions. Examples are
    ``PointTransformerConv``, ``PointNetConv`` with features, ``EdgeConv``, and blocks of these.
    ``PPFConv`` (normals) and layers that search neighbors themselves cannot. If no target can take
    prompts, an error is raised.

    The memory bank of such a model is filled by ``MemoryBank.from_loader(..., module=...)``, which
    defines the query. The cloud ids of a layer's points are then read from calls or outputs with
    ``pos`` and ``batch``, which the model must have.

    The authors' code counts 773,017 trainable parameters on ScanObjectNN, of which 62,268 never get
    a gradient (prompts of blocks that have none, and an unused gate in each block). Ours has
    710,761: those are gone, and each adapter's propagation has a gate.

    On tokens there is no identity at init, since prompts change the attention. Without prompts
    (``num_prompts=0``) there is.

    Differences to the released code: clouds of a batch do not mix; a prompt is a node at its
    learned position and takes part in neighborhoods; the query is computed by the same frozen
    backbone with its adapters disabled, not by a second copy; the second-level centers start from
    the point farthest from the centroid; the frozen backbone stays in eval mode;
    ``propagation_scale`` starts at 0 and is trained (0.3 and fixed), ``up`` weights start at 0, and
    the propagation takes the ``num_interp`` nearest centers (all). :meth:`authors` gives their
    values.

    Args:
        bottleneck_channels: Width of the bottlenecks in the adapters.
        num_prompts: Number ``P`` of prompts of a prompted block or layer. With a memory bank the
            top ``P - 2`` rows are retrieved. ``None`` means 10 on tokens and 0 on other layers.
        prompt_depth: Number of prompted blocks, or of prompted layers that can take prompts,
            counted from the first.
        prompt_bottleneck_channels: Width of the bottleneck for the bank's answer. Also the rank of
            the map from the bank to a layer of another width. At most the layer's own width.
        attention_channels: Width of the attention among neighbors, all heads together.
        attention_heads: Number of heads of this attention.
        k: Number of neighbors of a second-level center.
        ratio: Number of second-level centers per patch center.
        num_interp: Number of centers that a patch's propagated feature is interpolated from;
            ``None`` for all.
        mlp_scale: Factor of the bottleneck after the MLP.
        scale: Factor of the bottleneck after the propagation.
        propagation_scale: Initial value of the gate on the propagation.
        center_scale: Factor of a center's own feature.
        train_biases: Whether to train own biases of ``proj``, ``fc1``, ``fc2`` and the norms, and
            an own final norm and cls token. In other models, own biases of the target layers.
        target_modules: Paths, globs, ``re:`` expressions or classes of layers, such as
            ``PointTransformerConv``, or of some of a token backbone's blocks. ``None`` takes all of
            its blocks. A layer must return one row per point, or ``(x, pos, batch)``.
        channels: Output widths of layers by path, if they differ from those of their last linear
            layers. Measured if ``get_peft_model`` gets an ``example``.
        in_channels: Input feature widths of layers with prompts by path, likewise.
        bank_channels: Width of the memory bank, set by ``get_peft_model``.
        pos_from: Path or glob of the module that provides the geometry: an enclosing module, by its
            call, or another one, by its output ``(x, pos, batch)``. By default the layer's own call
            is read, and missing values are taken from the nearest enclosing call.
        pos_name: Name of the positions in the model's calls; ``"graph.pos"`` is an attribute of the
            parameter ``graph``. The attributes of a parameter ``data`` or ``graph`` are always
            read, as are those of a ``batch`` that is the model's only argument. The usual names are
            also read, for layers of PyG.
        batch_name: Name of the cloud ids in the model's calls.
        edge_index_name: Name of the edges in the model's calls.
    """

    method: ClassVar[str] = "point_peft"
    takes_memory_bank: ClassVar[bool] = True
    identity_at_init: ClassVar[bool] = False

    @classmethod
    def authors(cls, **settings: Any) -> Self:
        """Create a configuration with the released code's factors.

        The propagation uses all centers, and its gate starts at 0.3.
        """
        theirs: dict[str, Any] = {"propagation_scale": 0.3, "num_interp": None}
        return cls(**{**theirs, **settings})

    def check_bank(self, base: nn.Module, bank: MemoryBank | None) -> None:
        if bank is None:
            return
        if self._is_on_tokens(base):
            check_token_bank(base, bank)
        else:
            check_graph_bank(base, bank)
        if self._prompts(base) < 3:
            raise ValueError(
                "Expected 'num_prompts' to be at least 3 with a memory bank, and to be given on "
                f"other layers than a token backbone's blocks (got {self.num_prompts})"
            )
        if self.prompt_depth < 1:
            raise ValueError(
                "Expected 'prompt_depth' to be positive with a memory bank "
                f"(got {self.prompt_depth})"
            )
        if len(bank) <= self.top_k:
            raise ValueError(
                f"Expected 'memory_bank' to have more than {self.top_k} rows (got {len(bank)})"
            )

    def precompute(
        self,
        base: nn.Module,
        call: Mapping[str, Any],
        bank: MemoryBank | None,
        stale: Collection[str],
    ) -> dict[str, Any]:
        if bank is not None and bank.source is not None:
            return {"query": module_query(base, call, bank.source, self.names)}
        return super().precompute(base, call, bank, stale)

    def ask_bank(self, base: nn.Module, call: dict[str, Any], question: Question) -> dict[str, Any]:
        return ask(base, call, question, self.top_k)

    def check_example(
        self, model: nn.Module, base: nn.Module, sites: Sequence[Site], example: Any
    ) -> None:
        check_row_order(model, base, sites, example)

    def resolve(
        self, base: nn.Module, widths: Widths | None = None, *, bank: MemoryBank | None = None
    ) -> Self:
        changes: dict[str, Any] = {"num_prompts": self._prompts(base)}
        if bank is not None:
            changes["bank_channels"] = bank.channels
        return replace(super().resolve(base, widths), **changes)

    def sites(self, base: nn.Module, *, has_bank: bool = False) -> list[Site]:
        config = replace(self, num_prompts=self._prompts(base))
        found = None if self.target_modules is None else match_modules(base, self.target_modules)
        if found is None or self._is_on_tokens(base):
            sites = token_sites(base, config, found, has_bank=has_bank)
        else:
            sites = graph_sites(base, config, found, has_bank=has_bank)
        return sites + self.saved_sites(base)

    def _is_on_tokens(self, base: nn.Module) -> bool:
        """Whether all targets are blocks of a token backbone."""
        if self.target_modules is None:
            return True
        if not is_token_backbone(base):
            return False
        return set(match_modules(base, self.target_modules)) <= set(token_blocks(base)[1])

    def _prompts(self, base: nn.Module) -> int:
        if self.num_prompts is not None:
            return self.num_prompts
        return TOKEN_PROMPTS if self._is_on_tokens(base) else 0


__all__ = ["PointPEFTConfig"]
