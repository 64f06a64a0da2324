"""The rows of the battery of methods: each method on each kind of model, in small sizes.

A kind is a backbone on tokens or on points, for clouds or for the points of clouds. Rows are made
from ``METHODS``; a new method that has sizes gets them in ``tuned.SETTINGS``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from flat_backbones import CASES
from flat_backbones import CHANNELS as FEATURES
from torch import Tensor, nn
from tuned import CHANNELS, CLASSES, DEPTH, WAYS, Way, tiny_bank, tiny_base

from pyg_peft import MemoryBank, PeftModel, get_peft_model
from pyg_peft.backbones import PointMAESegmentation
from pyg_peft.backbones.registry import BACKBONES
from pyg_peft.errors import PlacementError
from pyg_peft.testing import Clouds, Rows, randomize_
from pyg_peft.tuners import MethodConfig

CATEGORIES = 3
# Beside the usual settings: prompts before the first block alone, and before every block.
VARIANTS = [
    Way("vpt", more={"deep": False}),
    *(Way("point_peft", has_bank, more={"prompt_depth": DEPTH}) for has_bank in (False, True)),
]


@dataclass(frozen=True)
class Kind:
    """A kind of model, shown by one registered backbone in a small size.

    Args:
        name: the backbone's name in the registry.
        make: makes it, awake and in eval mode, the same for the same seed.
        targets: layers for the methods that have no place of their own here.
        settings: settings of a method that differ on this kind.
        channels: width of ``x``; 0 if it takes none.
        category: whether its calls get the category of each cloud.
    """

    name: str
    make: Callable[[], nn.Module]
    targets: tuple[str, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    channels: int = 0
    category: bool = False

    @property
    def rows(self) -> Rows:
        return "point" if BACKBONES[self.name].task == "segmentation" else "cloud"

    def base(self) -> nn.Module:
        """Make the backbone in double precision."""
        return self.make().double()

    def call(self, model: Any, clouds: Clouds) -> Tensor:
        """Call the backbone, or a model tuned from it."""
        more: dict[str, Tensor] = {}
        if self.category:
            # By the cloud's size, so that a cloud alone has the category it has in company.
            size = clouds.batch.bincount(minlength=clouds.batch_size)
            more["category"] = size % CATEGORIES
        if getattr(model, "memory_bank", None) is not None:
            more["sample_id"] = torch.arange(clouds.batch_size)
        x = clouds.x if self.channels else None
        return model(x, clouds.pos, clouds.batch, batch_size=clouds.batch_size, **more)


def segmentation_base() -> nn.Module:
    sizes = {"num_centers": 8, "patch_size": 4, "num_levels": 2, "head_channels": 16}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = PointMAESegmentation(
            CLASSES,
            embed_dim=CHANNELS,
            depth=DEPTH,
            num_heads=3,
            num_categories=CATEGORIES,
            drop_path=0.0,
            head_dropout=0.0,
            **sizes,
        )
    return randomize_(base, torch.Generator().manual_seed(0)).eval()


# Beside the features of layers; prompts among points have tests of their own.
ON_LAYERS: dict[str, Any] = {
    "targets": ("levels.*",),
    "settings": {"point_peft": {"num_prompts": 0}},
    "channels": FEATURES,
}
KINDS = [
    Kind("PointMAE", tiny_base),
    Kind("PointMAESegmentation", segmentation_base, category=True),
    *(
        Kind(name, CASES[name].make, **ON_LAYERS)
        for name in ("PointNetPlusPlus", "PointNetPlusPlusSegmentation")
    ),
]


class Row(NamedTuple):
    """A method on a kind of model."""

    kind: Kind
    way: Way

    def __str__(self) -> str:
        return f"{self.kind.name}: {self.way}"

    def config(self) -> MethodConfig:
        """Return the method's settings; layers are named where it has no place of its own."""
        config: Any = self.way.config(**self.kind.settings.get(self.way.method, {}))
        if self.kind.targets and not fits(self.kind.make(), config):
            return replace(config, target_modules=self.kind.targets)
        return config

    @property
    def is_identity(self) -> bool:
        """Whether a fresh adapter has no effect; on layers also Point-PEFT, without prompts."""
        config: Any = self.config()
        on_layers = self.kind.targets and self.way.method == "point_peft"
        return config.identity_at_init or bool(on_layers and config.num_prompts == 0)

    def bank(self) -> MemoryBank | None:
        return tiny_bank() if self.way.has_bank else None

    def attach(self, base: nn.Module, adapter_name: str = "default") -> PeftModel:
        with torch.random.fork_rng():
            torch.manual_seed(2)
            model = get_peft_model(base, self.config(), adapter_name, memory_bank=self.bank())
        return model.double().eval()

    def awake(self) -> PeftModel:
        """A tuned model that is no identity any more, in eval mode."""
        model = self.attach(self.kind.base())
        randomize_(model, torch.Generator().manual_seed(3))
        return model


def fits(base: nn.Module, config: MethodConfig) -> bool:
    try:
        config.sites(base)
    except PlacementError:
        return False
    return True


def rows_of(kind: Kind) -> list[Row]:
    """Every way on tokens; elsewhere the methods that find layers, and no bank.

    A bank of layers is filled from a module of the model: see ``test_graph_prompts_bank.py``.
    """
    if not kind.targets:
        return [Row(kind, way) for way in [*WAYS, *VARIANTS]]
    base = kind.make()
    return [
        Row(kind, way)
        for way in WAYS
        if not way.has_bank
        if hasattr(way.config(), "target_modules") or fits(base, way.config())
    ]


ROWS = [row for kind in KINDS for row in rows_of(kind)]
