"""How a law is tested on each public name of ``pyg_peft.backbones``: how it is built and called.

Every call returns a row per point or a row per cloud, so that the battery reads them all alike.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from flat_backbones import CASES, Case
from torch import Tensor
from torch_geometric.utils import to_dense_batch

from pyg_peft import backbones
from pyg_peft.backbones.point_mae.masking import split_patches
from pyg_peft.geometry import Patches, build_patches, farthest_point_sample, knn_graph
from pyg_peft.symmetries import Symmetries, symmetries_of
from pyg_peft.testing import Call, Clouds, Reach, Rows, hops, randomize_

CHANNELS, HEADS, CENTERS, MEMBERS, CATEGORIES = 12, 3, 6, 4, 3
TOKENS = {"embed_dim": CHANNELS, "depth": 2, "num_heads": HEADS}
SIZES = {**TOKENS, "num_centers": CENTERS, "patch_size": MEMBERS}
PRETRAINING = {**SIZES, "decoder_depth": 1, "decoder_num_heads": HEADS}


@dataclass(frozen=True)
class Recipe:
    """How a name is built and called. What it promises is declared by the class itself.

    Args:
        build: makes it, fresh.
        call: calls it on flat clouds.
        rows: what a row of the result stands for.
        channels: width of ``x``; 0 if there is none.
        changes: what the class declares otherwise, of this setting or of all that the call does.
        reach: for what is local, which point may influence which within some hops.
    """

    build: Callable[[], Any]
    call: Call
    rows: Rows = "point"
    channels: int = CHANNELS
    changes: dict[str, Any] = field(default_factory=dict)
    reach: Reach | None = None

    def make(self, seed: int = 0) -> Any:
        """Build it awake, in eval mode and double precision, the same for the same seed."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            module = self.build()
        return randomize_(module, torch.Generator().manual_seed(seed)).eval().double()


# ---- calls ---------------------------------------------------------------------------------------


def call_cloud(module: Any, clouds: Clouds, **more: Any) -> Tensor:
    """Call a model; one without features gets none."""
    x = clouds.x if clouds.x.size(1) else None
    return module(x, clouds.pos, clouds.batch, batch_size=clouds.batch_size, **more)


def call_with_category(module: Any, clouds: Clouds) -> Tensor:
    return call_cloud(module, clouds, category=counts(clouds) % CATEGORIES)


def counts(clouds: Clouds) -> Tensor:
    return clouds.batch.bincount(minlength=clouds.batch_size)


def patches_of(clouds: Clouds, x: Tensor | None = None) -> Patches:
    size = clouds.batch_size
    return build_patches(
        clouds.pos, clouds.batch, num_centers=CENTERS, patch_size=MEMBERS, x=x, batch_size=size
    )


def full_mask(patches: Patches) -> Tensor:
    shape = patches.center.shape[:2]
    return torch.ones(shape, dtype=torch.bool) if patches.mask is None else patches.mask


def every_second(patches: Patches) -> Tensor:
    """Hide every second patch: a mask that a cloud has alone as in company."""
    return full_mask(patches) & (torch.arange(patches.num_centers) % 2 == 1)


def tidy(values: Tensor, mask: Tensor | None, size: int = CENTERS) -> Tensor:
    """One row per cloud, of the same width in every batch: zero where there is no patch."""
    if mask is not None:
        values = values.masked_fill(~mask.view(*mask.shape, *[1] * (values.dim() - 2)), 0.0)
    values = values.flatten(2)
    return F.pad(values, (0, 0, 0, size - values.size(1))).flatten(1)


def rebuild(module: Any, clouds: Clouds) -> Tensor:
    patches = patches_of(clouds)
    result = module.reconstruct(patches=patches, mask=every_second(patches))
    rebuilt = tidy(result.points, full_mask(result.masked))
    if isinstance(result, backbones.Completion):
        return torch.cat([rebuilt, result.cloud.flatten(1)], dim=1)
    return rebuilt


def decode(module: Any, clouds: Clouds) -> Tensor:
    patches = patches_of(clouds)
    visible, hidden, both = split_patches(patches, every_second(patches))
    return tidy(module(clouds.x[visible.center_index], both), full_mask(hidden))


def embed(module: Any, clouds: Clouds) -> Tensor:
    # Far from the origin, near which sampling skips points.
    x = clouds.x if clouds.x.size(1) else None
    patches = patches_of(clouds.moved(clouds.pos + 20), x)
    return tidy(module(patches), patches.mask)


def dense(clouds: Clouds) -> tuple[Tensor, Tensor]:
    return to_dense_batch(clouds.x, clouds.batch, 0.0, batch_size=clouds.batch_size)


def on_tokens(module: Any, clouds: Clouds) -> Tensor:
    x, mask = dense(clouds)
    return module(x)[mask]


def attend(module: Any, clouds: Clouds) -> Tensor:
    x, mask = dense(clouds)
    keys = mask | ~mask.any(1, keepdim=True)  # an empty cloud would be a softmax over nothing
    return module(x, keys[:, None, None, :])[mask]


def run_block(module: Any, clouds: Clouds) -> Tensor:
    x, mask = dense(clouds)
    nothing = x.new_zeros(*mask.shape, 1, 3)
    index = torch.zeros_like(mask, dtype=torch.long)
    patches = Patches(nothing, nothing[:, :, 0], index[..., None], index, mask)
    return module(x, patches=patches)[mask]


def run_level(module: Any, clouds: Clouds) -> Any:
    return module(clouds.x, clouds.pos, clouds.batch, clouds.batch_size)


def abstract(module: Any, clouds: Clouds) -> Tensor:
    """The features of the centers, from left to right."""
    stage = run_level(module, clouds)
    left = stage.pos[:, 0].argsort()
    order = left[stage.batch[left].argsort(stable=True)]
    mask = to_dense_batch(stage.x[order], stage.batch[order], 0.0, batch_size=clouds.batch_size)
    return tidy(*mask)


def propagate(module: Any, clouds: Clouds) -> Tensor:
    """From three points of each cloud, whatever its order, back to all."""
    rows = farthest_point_sample(clouds.pos, 3, clouds.batch, batch_size=clouds.batch_size)
    rows = rows[rows >= 0]
    coarse = (clouds.x[rows], clouds.pos[rows], clouds.batch[rows])
    return module(clouds.x, clouds.pos, clouds.batch, *coarse, clouds.batch_size)


def align(module: Any, clouds: Clouds) -> Tensor:
    return module(clouds.x, clouds.batch, clouds.batch_size)


def score_rows(module: Any, clouds: Clouds) -> Tensor:
    return module(clouds.x)


def score_points(module: Any, clouds: Clouds) -> Tensor:
    summary = torch.ones(clouds.batch_size, 5, dtype=clouds.x.dtype)
    return module(clouds.x, summary, clouds.batch)


def neighbors(clouds: Clouds, k: int = 4) -> Tensor:
    return knn_graph(clouds.pos.detach(), k, clouds.batch, loop=True, batch_size=clouds.batch_size)


def along_neighbors(clouds: Clouds, num_hops: int) -> Tensor:
    return hops(neighbors(clouds), clouds.batch.numel(), num_hops)


def run_on_edges(module: Any, clouds: Clouds) -> Tensor:
    return module(clouds.x, clouds.pos, neighbors(clouds))


# ---- recipes -------------------------------------------------------------------------------------

# The call makes the patches, from the first point on.
SAMPLED: dict[str, Any] = {"first_point": True}


def of_case(case: Case, call: Call = call_cloud, **sizes: Any) -> Recipe:
    """A model on flat clouds, whose positions are its first features."""
    return Recipe(lambda: case.make(**sizes).float(), call, rows=case.rows, channels=2)


RECIPES: dict[str, Recipe] = {
    **{name: of_case(case) for name, case in CASES.items()},
    "DGCNNSegmentation with categories": of_case(
        CASES["DGCNNSegmentation"], call_with_category, num_categories=CATEGORIES
    ),
    "PointMAE": Recipe(lambda: backbones.PointMAE(4, **SIZES), call_cloud, "cloud", channels=0),
    "PointMAE with features": Recipe(
        lambda: backbones.PointMAE(4, **SIZES, in_channels=2),
        call_cloud,
        "cloud",
        channels=2,
    ),
    "PointMAESegmentation": Recipe(
        lambda: backbones.PointMAESegmentation(4, **SIZES, num_levels=2, head_channels=16),
        call_cloud,
        channels=0,
    ),
    "PointMAESegmentation with categories and features": Recipe(
        lambda: backbones.PointMAESegmentation(
            4, **SIZES, num_levels=2, head_channels=16, num_categories=CATEGORIES, in_channels=2
        ),
        call_with_category,
        channels=2,
    ),
    "PointMAEPretraining": Recipe(
        lambda: backbones.PointMAEPretraining(**PRETRAINING), rebuild, "cloud", channels=0
    ),
    "PointMAECompletion": Recipe(
        lambda: backbones.PointMAECompletion(**PRETRAINING, num_cloud_points=5),
        rebuild,
        "cloud",
        channels=0,
    ),
    "PointMAEDecoder": Recipe(
        lambda: backbones.PointMAEDecoder(CHANNELS, 1, HEADS, MEMBERS),
        decode,
        "cloud",
        changes={**SAMPLED, "permutation": "invariant"},
    ),
    "PatchEmbed": Recipe(
        lambda: backbones.PatchEmbed(CHANNELS),
        embed,
        "cloud",
        channels=0,
        changes=SAMPLED,
    ),
    "PatchEmbed with features": Recipe(
        lambda: backbones.PatchEmbed(CHANNELS, in_channels=2),
        embed,
        "cloud",
        channels=2,
        changes=SAMPLED,
    ),
    "Attention": Recipe(lambda: backbones.Attention(CHANNELS, HEADS), attend),
    "Block": Recipe(lambda: backbones.Block(CHANNELS, HEADS), run_block),
    "DropPath": Recipe(lambda: backbones.DropPath(0.5), on_tokens),
    "Mlp": Recipe(lambda: backbones.Mlp(CHANNELS, 8), on_tokens),
    "ClassificationHead": Recipe(lambda: backbones.ClassificationHead(CHANNELS, 4), score_rows),
    "SegmentationHead": Recipe(
        lambda: backbones.SegmentationHead(CHANNELS, 5, 4, lift_channels=8, channels=8),
        score_points,
    ),
    "EdgeConvBlock": Recipe(lambda: backbones.EdgeConvBlock(CHANNELS, (8,), k=4), run_level),
    "EdgeConvBlock by position": Recipe(
        lambda: backbones.EdgeConvBlock(CHANNELS, (8,), k=4, by_pos=True),
        run_level,
        changes={"depends_on": ("x", "pos"), "reach": 1},
        reach=along_neighbors,
    ),
    "SetAbstraction": Recipe(
        lambda: backbones.SetAbstraction(
            CHANNELS, (8,), num_centers=CENTERS, radius=1.5, patch_size=5
        ),
        abstract,
        "cloud",
    ),
    "GlobalSetAbstraction": Recipe(
        lambda: backbones.GlobalSetAbstraction(CHANNELS, (8,)),
        lambda module, clouds: run_level(module, clouds).x,
        "cloud",
    ),
    "FeaturePropagation": Recipe(
        lambda: backbones.FeaturePropagation(CHANNELS, CHANNELS, (8,)), propagate
    ),
    "PointTransformerBlock": Recipe(
        lambda: backbones.PointTransformerBlock(CHANNELS, share=3),
        run_on_edges,
        reach=along_neighbors,
    ),
    "TNet": Recipe(lambda: backbones.TNet(CHANNELS), align),
}


def claims_of(name: str) -> Symmetries:
    """What the class of a recipe declares, in the setting and by the call of the recipe."""
    return replace(symmetries_of(getattr(backbones, name.split()[0])), **RECIPES[name].changes)


#: Public names without clouds, and why no law applies to them.
NO_LAWS = {
    "Completion": "a record of tensors",
    "Reconstruction": "a record of tensors",
    "TokenBackbone": "a protocol: its members are those of backbones that are here",
    "list_backbones": "a list of names",
    "list_models": "a list of names",
    "orthogonality_penalty": "a mean over matrices, for a loss",
    "register_backbone": "it takes a class",
}


# ---- patches in another order --------------------------------------------------------------------


def shuffled(
    patches: Patches, generator: torch.Generator, *, members: bool, masked_last: bool = False
) -> tuple[Patches, Tensor]:
    """Each cloud's patches, without features, in another order; if wanted their members too."""
    draws = torch.rand(patches.center.shape[:2], generator=generator)
    order = (draws + ~full_mask(patches) if masked_last else draws).argsort(1)
    rows = torch.arange(len(order))[:, None]

    def moved(value: Tensor) -> Tensor:
        return value[rows, order]

    points, index = moved(patches.points), moved(patches.index)
    if members:
        place = torch.rand(index.shape, generator=generator).argsort(2)
        points = points.gather(2, place[..., None].expand_as(points))
        index = index.gather(2, place)
    mask = None if patches.mask is None else moved(patches.mask)
    center, center_index = moved(patches.center), moved(patches.center_index)
    return Patches(points, center, index, center_index, mask), order
