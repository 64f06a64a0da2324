"""Point-PEFT: Point-prior Prompt and Geometry-aware Adapter on a token backbone."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import nn

from ..nn import (
    Bottleneck,
    GeometryAwareAdapter,
    MemoryBank,
    NeighborAttention,
    PointPriorPrompt,
    PromptTokens,
)
from .config import MethodConfig, Site
from .point_peft_parts import GeometryBlock, PromptGeometry, PromptInput
from .slot import OutputAdapter
from .tokens import token_blocks
from .trained_tensors import TrainedTensors


@dataclass(frozen=True, kw_only=True)
class PointPEFTConfig(MethodConfig):
    r"""`"Point-PEFT: Parameter-Efficient Fine-Tuning for 3D Pre-trained Models"
    <https://arxiv.org/abs/2310.03059>`_ for Point-MAE and its family.

    ::

        pos ── patches ── tokens ──▶ [cls, patches]                         once per forward: the
        structures,
                                        │ insert P prompts ◀── bank(query)  the query and its answer
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
    | ``modules_to_save`` | own copy of the head | 267,535 (15 classes) |

    The authors' code counts 773,017 trainable parameters on ScanObjectNN, of which 62,268 never get
    a gradient (prompts of blocks that have none, and an unused gate in each block). Ours has
    710,761: those are gone, and each adapter's propagation has a gate.

    No identity at init: prompts change the attention. Without prompts (``num_prompts=0``) it is
    one.

    Differences to the released code: clouds of a batch do not mix; a prompt is a node at its
    learned position and takes part in neighbourhoods; the query is made by the same frozen backbone
    with its adapters off, not by a second copy; the second-level centers start from the point
    farthest from the centroid; the frozen backbone stays in eval mode; ``propagation_scale`` starts
    at 0 and is trained (0.3 and fixed), ``up`` weights start at 0, and the propagation takes the
    ``num_interp`` nearest centers (all). :meth:`authors` gives their values.

    Args:
        bottleneck_channels: Width of the bottlenecks in the adapters.
        num_prompts: Prompts of a prompted block, ``P``; with a memory bank the top ``P - 2`` rows
            are retrieved.
        prompt_depth: How many blocks, from the first, are prompted.
        prompt_bottleneck_channels: Width of the bottleneck that the bank's answer passes.
        attention_channels: Width of the attention among neighbours, all heads together.
        attention_heads: Its heads.
        k: Neighbours of a second-level center.
        ratio: Second-level centers per patch center.
        num_interp: Centers that a patch takes its propagated feature from; ``None`` for all.
        mlp_scale: Factor of the bottleneck after the MLP.
        scale: Factor of the bottleneck after the propagation.
        propagation_scale: Initial value of the gate on the propagation.
        center_scale: Factor of a center's own feature.
        train_biases: Own biases of ``proj``, ``fc1``, ``fc2`` and the norms, own final norm and cls
            token.
    """

    method: ClassVar[str] = "point_peft"
    takes_memory_bank: ClassVar[bool] = True
    identity_at_init: ClassVar[bool] = False

    bottleneck_channels: int = 16
    num_prompts: int = 10
    prompt_depth: int = 6
    prompt_bottleneck_channels: int = 8
    attention_channels: int = 18
    attention_heads: int = 6
    k: int = 16
    ratio: float = 0.5
    num_interp: int | None = 3
    mlp_scale: float = 0.7
    scale: float = 1.0
    propagation_scale: float = 0.0
    center_scale: float = 0.3
    train_biases: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_prompts < 0:
            raise ValueError(f"Expected 'num_prompts' to be non-negative (got {self.num_prompts})")
        if self.prompt_depth < 0:
            raise ValueError(
                f"Expected 'prompt_depth' to be non-negative (got {self.prompt_depth})"
            )
        if not 0.0 < self.ratio <= 1.0:
            raise ValueError(f"Expected 'ratio' to lie in (0, 1] (got {self.ratio})")

    @classmethod
    def authors(cls, **settings: Any) -> Self:
        """The released code's factors: propagation from all centers, with 0.3 from the start."""
        theirs: dict[str, Any] = {"propagation_scale": 0.3, "num_interp": None}
        return cls(**{**theirs, **settings})

    @property
    def top_k(self) -> int:
        """Rows that are retrieved from the memory bank; two prompts carry the query and the
        weighted sum.
        """
        return self.num_prompts - 2

    def check_bank(self, base: nn.Module, bank: MemoryBank | None) -> None:
        if bank is None:
            return
        channels, _ = token_blocks(base)
        if bank.channels != channels:
            raise ValueError(
                f"Expected 'memory_bank' to have {channels} channels, as the backbone "
                f"(got {bank.channels})"
            )
        if self.num_prompts < 3:
            raise ValueError(
                "Expected 'num_prompts' to be at least 3 with a memory bank "
                f"(got {self.num_prompts})"
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

    def sites(self, base: nn.Module, *, has_bank: bool = False) -> list[Site]:
        channels, blocks = token_blocks(base)
        attention = NeighborAttention(channels, self.attention_channels, self.attention_heads)
        geometry = PromptGeometry(
            self.num_prompts, k=self.k, ratio=self.ratio, num_interp=self.num_interp
        )
        sites = [Site("", "geometry", geometry)]
        for depth, (path, block) in enumerate(blocks.items()):
            num_prompts = self.num_prompts if depth < self.prompt_depth else 0
            adapter = GeometryAwareAdapter(
                channels,
                self.bottleneck_channels,
                k=self.k,
                ratio=self.ratio,
                num_interp=self.num_interp,
                attention=attention,
                propagation_scale=self.propagation_scale,
                center_scale=self.center_scale,
                scale=self.scale,
            )
            # After hooks run in reverse: the geometry comes before the prompts are removed.
            if num_prompts:
                prompt = (
                    PointPriorPrompt(channels, num_prompts, self.prompt_bottleneck_channels)
                    if has_bank
                    else PromptTokens(num_prompts, channels)
                )
                sites.append(Site(path, "prompt", PromptInput(prompt)))
            sites.append(Site(path, "adapter", GeometryBlock(adapter, num_prompts)))
            bottleneck = Bottleneck(channels, self.bottleneck_channels, scale=self.mlp_scale)
            sites.append(Site(f"{path}.mlp", "adapter", OutputAdapter(bottleneck)))
            if self.train_biases:
                sites += [
                    Site(
                        f"{path}.{layer}",
                        "trained",
                        TrainedTensors(block.get_submodule(layer), ["bias"]),
                    )
                    for layer in ("attn.proj", "mlp.fc1", "mlp.fc2", "norm1", "norm2")
                ]
        if self.train_biases:
            norm = base.get_submodule("norm")
            sites.append(Site("norm", "trained", TrainedTensors(norm, ["weight", "bias"])))
            own = [name for name in ("cls_token", "cls_pos") if name in base._parameters]
            if own:
                sites.append(Site("", "trained", TrainedTensors(base, own)))
        return sites + self.saved_sites(base)


__all__ = ["PointPEFTConfig"]
