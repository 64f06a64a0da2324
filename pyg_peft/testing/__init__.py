"""Test functions that check the properties a component claims.

Each function takes a module and a random ragged batch, so that your own component can be tested in
a few lines. They raise ``AssertionError`` with a reason if a property does not hold, and need no
test framework.
"""

from pyg_peft.testing.attachment import assert_identity_at_init, assert_leaves_no_trace
from pyg_peft.testing.claims import Reach, assert_symmetries
from pyg_peft.testing.clouds import (
    Call,
    Clouds,
    Rows,
    call_flat,
    random_clouds,
    random_order,
    randomize_,
)
from pyg_peft.testing.influence import (
    assert_batch_isolated,
    assert_local,
    assert_sensitive,
    hops,
)
from pyg_peft.testing.layout import assert_layout_invariant, layouts_of
from pyg_peft.testing.learning import (
    assert_checkpoints,
    assert_frozen_after_step,
    assert_gradients,
)
from pyg_peft.testing.state import (
    assert_compiles,
    assert_deepcopy_and_pickle,
    assert_saved_and_loaded,
)
from pyg_peft.testing.symmetry import (
    assert_permutation_equivariant,
    assert_rotation_invariant,
    assert_translation_invariant,
)

__all__ = [
    "Call",
    "Clouds",
    "Reach",
    "Rows",
    "assert_batch_isolated",
    "assert_checkpoints",
    "assert_compiles",
    "assert_deepcopy_and_pickle",
    "assert_frozen_after_step",
    "assert_gradients",
    "assert_identity_at_init",
    "assert_layout_invariant",
    "assert_leaves_no_trace",
    "assert_local",
    "assert_permutation_equivariant",
    "assert_rotation_invariant",
    "assert_saved_and_loaded",
    "assert_sensitive",
    "assert_symmetries",
    "assert_translation_invariant",
    "call_flat",
    "hops",
    "layouts_of",
    "random_clouds",
    "random_order",
    "randomize_",
]
