"""Settings of Point-PEFT and checks of their values."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pyg_peft.trainable import Target
from pyg_peft.tuners.engine.checks import check_names, check_positive, check_widths
from pyg_peft.tuners.engine.config import MethodConfig
from pyg_peft.tuners.graphs.geometry import Names

#: Default number of prompts of a block of a token backbone.
TOKEN_PROMPTS = 10


@dataclass(frozen=True, kw_only=True)
class PointPEFTSettings(MethodConfig):
    """Settings of :class:`~pyg_peft.tuners.PointPEFTConfig`, whose docstring explains each."""

    bottleneck_channels: int = 16
    num_prompts: int | None = None
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
    target_modules: tuple[Target, ...] | None = None
    channels: Mapping[str, int] | None = field(default=None, hash=False)
    in_channels: Mapping[str, int] | None = field(default=None, hash=False)
    bank_channels: int | None = None
    pos_from: str | None = None
    pos_name: str = "pos"
    batch_name: str = "batch"
    edge_index_name: str = "edge_index"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_prompts is not None and self.num_prompts < 0:
            raise ValueError(f"Expected 'num_prompts' to be non-negative (got {self.num_prompts})")
        if self.prompt_depth < 0:
            raise ValueError(
                f"Expected 'prompt_depth' to be non-negative (got {self.prompt_depth})"
            )
        check_positive(
            self,
            "bottleneck_channels",
            "prompt_bottleneck_channels",
            "attention_channels",
            "attention_heads",
            "k",
            "num_interp",
            "bank_channels",
        )
        if self.attention_channels % self.attention_heads:
            raise ValueError(
                f"Expected 'attention_heads' to divide attention_channels "
                f"{self.attention_channels} (got {self.attention_heads})"
            )
        check_widths(self, "channels", "in_channels")
        check_names(self, "pos_name", dotted=True)
        check_names(self, "batch_name", "edge_index_name")
        if not 0.0 < self.ratio <= 1.0:
            raise ValueError(f"Expected 'ratio' to lie in (0, 1] (got {self.ratio})")

    @property
    def top_k(self) -> int:
        """Number of rows to retrieve from the memory bank.

        It is two less than ``num_prompts``: two prompts hold the query and the weighted sum.
        """
        return (TOKEN_PROMPTS if self.num_prompts is None else self.num_prompts) - 2

    @property
    def names(self) -> Names:
        """Names of the geometry in the model's calls."""
        return Names(self.pos_name, self.batch_name, self.edge_index_name)


__all__ = ["TOKEN_PROMPTS", "PointPEFTSettings"]
