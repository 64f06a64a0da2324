"""The laws over every public backbone and part of one: a name without a maker fails.

What is tested is what each declares by ``@Symmetries``; what is denied there must indeed fail.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from backbone_recipes import (
    NO_LAWS,
    RECIPES,
    Recipe,
    claims_of,
    every_second,
    full_mask,
    patches_of,
    shuffled,
    tidy,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyg_peft import backbones
from pyg_peft.backbones.point_mae.masking import split_patches
from pyg_peft.symmetries import Symmetries, symmetries_of
from pyg_peft.testing import (
    Clouds,
    assert_batch_isolated,
    assert_layout_invariant,
    assert_local,
    assert_permutation_equivariant,
    assert_rotation_invariant,
    assert_symmetries,
    assert_translation_invariant,
    random_clouds,
)

LAWFUL = [name for name in backbones.__all__ if name not in NO_LAWS]
# Every public name, and further settings of some.
NAMES = LAWFUL + [name for name in RECIPES if name not in LAWFUL]
every_name = pytest.mark.parametrize("name", NAMES)
# Two clouds that have points, one of a single point, others of any size, none included.
ragged = st.lists(st.integers(0, 15), max_size=2).map(lambda more: [9, *more[:1], 1, *more[1:]])


def recipe_of(name: str) -> Recipe:
    if name not in RECIPES:
        pytest.fail(f"{name} is public and has no maker: give it one in backbone_recipes.py")
    return RECIPES[name]


def names_where(holds: Callable[[str], object]) -> list[str]:
    return [name for name in RECIPES if holds(name)]


def clouds_of(name: str, sizes: list[int], generator: torch.Generator) -> Clouds:
    return random_clouds(sizes, recipe_of(name).channels, generator=generator)


def given_clouds(sizes: Any = ragged) -> Any:
    """Draw sizes and a seed; clouds that end and pause empty are always among them."""

    def decorate(test: Any) -> Any:
        test = example(sizes=[9, 0, 7, 1, 0], seed=0)(test)
        return settings(max_examples=2)(given(sizes=sizes, seed=st.integers(0, 2**31))(test))

    return decorate


# ---- every name ----------------------------------------------------------------------------------


@every_name
@pytest.mark.usefixtures("every_warning")
def test_memory_layout_never_matters(name: str, generator: torch.Generator):
    recipe, clouds = recipe_of(name), clouds_of(name, [30, 0, 20], generator)
    assert_layout_invariant(recipe.make(), clouds, call=recipe.call)


def test_no_maker_is_left_over():
    assert {name.split()[0] for name in RECIPES} | set(NO_LAWS) <= set(backbones.__all__)


@pytest.mark.parametrize("name", LAWFUL)
def test_every_name_declares_its_own_symmetries(name: str):
    declared = vars(getattr(backbones, name)).get("symmetries")
    assert isinstance(declared, Symmetries), f"{name} declares none by @Symmetries(...)"
    said = " ".join((getattr(backbones, name).__doc__ or "").split())
    assert f"Symmetries: {' '.join(declared.text.split())}" in said


@every_name
def test_what_is_declared_holds_and_what_is_denied_does_not(name: str, generator: torch.Generator):
    recipe = recipe_of(name)
    assert_symmetries(
        recipe.make(),
        clouds_of(name, [14, 1, 0, 12], generator),
        generator=generator,
        claimed=claims_of(name),
        call=recipe.call,
        reach=recipe.reach,
    )


@pytest.mark.parametrize("name", names_where(lambda name: RECIPES[name].changes))
def test_a_recipe_changes_only_what_is_declared_otherwise(name: str):
    declared = symmetries_of(getattr(backbones, name.split()[0]))
    for field, value in RECIPES[name].changes.items():
        assert getattr(declared, field) != value, f"{name} declares {field}={value!r} itself"


# ---- clouds among themselves ---------------------------------------------------------------------


@every_name
@given_clouds()
def test_clouds_do_not_see_each_other(name: str, sizes: list[int], seed: int):
    recipe = recipe_of(name)
    clouds = clouds_of(name, sizes, torch.Generator().manual_seed(seed))
    assert_batch_isolated(recipe.make(), clouds, call=recipe.call, rows=recipe.rows)


@pytest.mark.parametrize("name", names_where(lambda name: RECIPES[name].rows == "cloud"))
def test_an_empty_cloud_is_the_same_in_any_company(name: str, generator: torch.Generator):
    recipe, module = recipe_of(name), recipe_of(name).make()
    clouds = clouds_of(name, [9, 0, 1, 7, 0], generator).leaves()
    together = recipe.call(module, clouds)
    assert together.size(0) == 5 and together.isfinite().all()
    alone = recipe.call(module, clouds.alone(1))
    torch.testing.assert_close(together[[1, 4]], alone.expand(2, -1), rtol=1e-7, atol=1e-9)
    leaves = [clouds.x, clouds.pos]
    grads = torch.autograd.grad(together[[1, 4]].sum(), leaves, allow_unused=True)
    assert all(grad is None or not grad.any() for grad in grads)


# ---- points of a cloud ---------------------------------------------------------------------------


@every_name
@given_clouds()
def test_the_order_of_points(name: str, sizes: list[int], seed: int):
    recipe, generator = recipe_of(name), torch.Generator().manual_seed(seed)
    assert_permutation_equivariant(
        recipe.make(),
        clouds_of(name, sizes, generator),
        generator=generator,
        call=recipe.call,
        rows=recipe.rows,
        keep_first=claims_of(name).first_point,
    )


CHECKS = {"translation": assert_translation_invariant, "rotation": assert_rotation_invariant}


@pytest.mark.parametrize(
    ("name", "change"),
    [(name, change) for change in CHECKS for name in RECIPES],
)
@settings(max_examples=2)
@given(sizes=ragged, seed=st.integers(0, 2**31))
def test_moved_and_turned_clouds(name: str, change: str, sizes: list[int], seed: int):
    recipe, generator = recipe_of(name), torch.Generator().manual_seed(seed)
    module, clouds = recipe.make(), clouds_of(name, sizes, generator)
    if getattr(claims_of(name), change):
        CHECKS[change](module, clouds, generator=generator, call=recipe.call)
        return
    with pytest.raises(AssertionError, match="depends on a"):
        CHECKS[change](module, clouds, generator=generator, call=recipe.call)


@pytest.mark.parametrize("name", names_where(lambda name: RECIPES[name].reach))
@settings(max_examples=3)
@given(sizes=st.lists(st.integers(1, 10), max_size=2), seed=st.integers(0, 2**31))
def test_local(name: str, sizes: list[int], seed: int):
    recipe, num_hops = recipe_of(name), claims_of(name).reach
    clouds = clouds_of(name, [9, *sizes], torch.Generator().manual_seed(seed))
    assert recipe.reach is not None and num_hops is not None
    reach = recipe.reach(clouds, num_hops)
    assert not bool(reach[:9, :9].all()), "every point reaches every other: nothing is tested"
    assert_local(recipe.make(), clouds, reach, call=recipe.call)


# ---- patches of a cloud --------------------------------------------------------------------------


def scores(model: Any, clouds: Clouds, patches: Any) -> Tensor:
    x = model.forward_features(patches)
    if isinstance(model, backbones.PointMAESegmentation):
        return model.forward_head(x, patches, clouds.pos, clouds.batch)
    return model.forward_head(x, patches.mask)


@pytest.mark.parametrize("name", ["PointMAE", "PointMAESegmentation"])
@given_clouds()
def test_models_given_their_patches(name: str, sizes: list[int], seed: int):
    """Neither the order of patches matters nor that of their members."""
    generator, model = torch.Generator().manual_seed(seed), recipe_of(name).make()
    clouds = clouds_of(name, sizes, generator)
    patches = patches_of(clouds)
    other, _ = shuffled(patches, generator, members=True)
    found, expected = scores(model, clouds, other), scores(model, clouds, patches)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["PointMAEPretraining", "PointMAECompletion"])
@given_clouds()
def test_losses_given_their_patches_and_the_mask(name: str, sizes: list[int], seed: int):
    generator, model = torch.Generator().manual_seed(seed), recipe_of(name).make()
    patches = patches_of(clouds_of(name, sizes, generator))
    hidden = every_second(patches)
    # Masked patches stay last, where 'build_patches' puts them: drawn clouds rely on that.
    other, order = shuffled(patches, generator, members=False, masked_last=True)
    loss = model(patches=patches, mask=hidden)
    again = model(patches=other, mask=hidden.gather(1, order))
    torch.testing.assert_close(again, loss, rtol=1e-7, atol=1e-9)
    fewer = hidden & (torch.arange(hidden.size(1)) > 1)
    assert not torch.equal(model(patches=patches, mask=fewer), loss), "the mask matters"


@given_clouds()
def test_embedding_follows_the_patches(sizes: list[int], seed: int):
    generator, module = torch.Generator().manual_seed(seed), recipe_of("PatchEmbed").make()
    patches = patches_of(clouds_of("PatchEmbed", sizes, generator))
    other, order = shuffled(patches, generator, members=True)
    expected = module(patches)[torch.arange(len(order))[:, None], order]
    torch.testing.assert_close(module(other), expected, rtol=1e-7, atol=1e-9)


@given_clouds()
def test_decoding_follows_the_hidden_patches(sizes: list[int], seed: int):
    """Here alone lies what it declares: the recipe returns a row per cloud."""
    assert symmetries_of(backbones.PointMAEDecoder).permutation == "equivariant"
    generator, module = torch.Generator().manual_seed(seed), recipe_of("PointMAEDecoder").make()
    clouds = clouds_of("PointMAEDecoder", sizes, generator)
    visible, hidden, _ = split_patches(patches_of(clouds), every_second(patches_of(clouds)))
    seen, seen_order = shuffled(visible, generator, members=False)
    gone, gone_order = shuffled(hidden, generator, members=False)
    rows = torch.arange(clouds.batch_size)[:, None]
    x = clouds.x[visible.center_index]
    expected = module(x, both(visible, hidden))[rows, gone_order]
    found = module(x[rows, seen_order], both(seen, gone))
    compare = tidy(found, gone.mask), tidy(expected, gone.mask)
    torch.testing.assert_close(*compare, rtol=1e-7, atol=1e-9)


def both(visible: Any, hidden: Any) -> Any:
    """Visible patches and then the hidden ones."""
    masks = [full_mask(visible), full_mask(hidden)]
    names = ("points", "center", "index", "center_index")
    tensors = {n: torch.cat([getattr(visible, n), getattr(hidden, n)], dim=1) for n in names}
    return type(visible)(**tensors, mask=torch.cat(masks, dim=1))
