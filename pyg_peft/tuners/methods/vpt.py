"""Visual prompt tuning: learned tokens beside the patches."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from pyg_peft.nn import PromptTokens
from pyg_peft.tuners.engine.config import MethodConfig, Site
from pyg_peft.tuners.engine.slot import Args, Component, Kwargs
from pyg_peft.tuners.tokens.blocks import token_blocks
from pyg_peft.tuners.tokens.order import insert_prompts, remove_prompts


@dataclass(frozen=True, kw_only=True)
class VPTConfig(MethodConfig):
    r"""Add learned tokens to the patches, after `"Visual Prompt Tuning"
    <https://arxiv.org/abs/2203.12119>`_.

    ::

        deep                                    shallow
        [cls, patches]                          [cls, patches]
          └ insert P own prompts                  └ insert P prompts before the first block
        block                                   block, block, ... block
          └ take them out, for every block        └ take them out after the last

    | placed at | component | trainable parameters |
    | --- | --- | --- |
    | every block (deep) or the first (shallow) | :class:`~pyg_peft.nn.PromptTokens` | P · C each |
    | ``feature_stem``, if there is one | own copy | 128 · ``in_channels`` |
    | ``modules_to_save`` | own copy | all of them |

    No identity at init. Differences: prompts are between the cls token and the patches, not at the
    end, and have no position embedding; the point-cloud versions of VPT give them learned
    positions.

    Args:
        num_prompts: Number of prompts in a block.
        deep: Whether every block has its own prompts. Otherwise one set passes through all blocks.
    """

    method: ClassVar[str] = "vpt"
    identity_at_init: ClassVar[bool] = False

    num_prompts: int = 10
    deep: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_prompts < 1:
            raise ValueError(f"Expected 'num_prompts' to be positive (got {self.num_prompts})")

    def sites(self, base: nn.Module, *, has_bank: bool = False) -> list[Site]:
        channels, blocks = token_blocks(base)
        paths = list(blocks)
        sites: list[Site] = []
        if self.deep:
            for path in paths:
                sites.append(Site(path, "take_out", PromptRemoval(self.num_prompts)))
        else:
            sites.append(Site(paths[-1], "take_out", PromptRemoval(self.num_prompts)))
        for path in paths if self.deep else paths[:1]:
            prompts = PromptTokens(self.num_prompts, channels)
            sites.append(Site(path, "prompt", PromptInsertion(prompts)))
        return sites + self.saved_sites(base)


class PromptInsertion(Component):
    """Inserts prompts directly before the patches."""

    def __init__(self, prompts: PromptTokens) -> None:
        super().__init__()
        self.prompts = prompts

    def before(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        x, *rest = args
        return (insert_prompts(x, self.prompts(x.size(0)), kwargs), *rest), kwargs


class PromptRemoval(Component):
    """Removes the prompts from a block's output."""

    def __init__(self, num_prompts: int) -> None:
        super().__init__()
        self.num_prompts = num_prompts

    def after(self, module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> Any:
        return remove_prompts(output, self.num_prompts, kwargs)


__all__ = ["PromptInsertion", "PromptRemoval", "VPTConfig"]
