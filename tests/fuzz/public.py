"""The public names that the suite is generated from, and the few that it leaves out."""

import importlib

import fuzz.entries
from fuzz.strategies import ENTRIES

from pyg_peft.tuners import METHODS

MODULES = (
    "pyg_peft",
    "pyg_peft.geometry",
    "pyg_peft.nn",
    "pyg_peft.backbones",
    "pyg_peft.datasets",
    "pyg_peft.datasets.transforms",
    "pyg_peft.trainable",
    "pyg_peft.checkpoint",
    "pyg_peft.errors",
)

# Each registers its strategies.
for _room in ("backbones", "datasets", "geometry", "nn", "trainable", "tuners"):
    importlib.import_module(f"{fuzz.entries.__name__}.{_room}")

#: Full name of every public function, class and config.
PUBLIC = {
    f"{module}.{name}" for module in MODULES for name in importlib.import_module(module).__all__
} | {f"pyg_peft.tuners.{config.__name__}" for config in METHODS.values()}

_CHECKS = (
    "count",
    "dtype",
    "finite",
    "flag",
    "index",
    "mask",
    "module",
    "number",
    "reach",
    "scale",
    "tensor",
)

#: Names without a strategy, and why.
EXEMPT = {
    **{
        f"pyg_peft.errors.check_{name}": "a check, which the strategies of its callers ask"
        for name in _CHECKS
    },
    "pyg_peft.checkpoint.check_config": "a check of what readers find: test_adapters.py",
    "pyg_peft.__version__": "a text",
    "pyg_peft.checkpoint.CARD": "a text",
    "pyg_peft.checkpoint.CONFIG": "a text",
    "pyg_peft.checkpoint.WEIGHTS": "a text",
    "pyg_peft.load": "a loader, which predict calls: test_adapters.py",
    "pyg_peft.geometry.pyg_ops_enabled": "it takes no argument",
    "pyg_peft.geometry.pyg_ops_worker_init": "its argument is not read",
    "pyg_peft.geometry.GridSample": "a record, made by grid_sample alone",
    "pyg_peft.geometry.Patches": "a record, made by build_patches",
    "pyg_peft.geometry.BipartiteStructure": "a record, made by bipartite_structure",
    "pyg_peft.checkpoint.AdapterFile": "a record, made by read_adapter alone",
    "pyg_peft.checkpoint.read_adapter": "a reader: test_adapters.py",
    "pyg_peft.checkpoint.remove_unused": "a reader: test_adapters.py",
    "pyg_peft.backbones.Completion": "a record, made by PointMAECompletion alone",
    "pyg_peft.backbones.Reconstruction": "a record, made by PointMAEPretraining alone",
    "pyg_peft.datasets.Episode": "a record, made by few_shot_episode alone",
    "pyg_peft.datasets.read_points": "a reader: test_readers.py",
    "pyg_peft.datasets.read_tile": "a reader, of what read_points reads: tests/datasets",
    "pyg_peft.datasets.SceneFolder": "a reader, of what read_points reads: tests/datasets",
    "pyg_peft.datasets.SceneSettings": "settings of readers: tests/datasets/test_scenes.py",
    "pyg_peft.datasets.OutdoorAugment": "its checks: tests/datasets/test_scenes.py",
    "pyg_peft.datasets.CloudTargets": "not fuzzed yet: tests/training/test_tasks.py",
    "pyg_peft.datasets.TargetFolder": "not fuzzed yet: tests/test_cli_tasks.py",
    "pyg_peft.datasets.write_labeled_points": "a writer: tests/datasets/test_labeled_files.py",
    "pyg_peft.datasets.ScanObjectNN": "a reader: test_readers.py",
    "pyg_peft.trainable.Target": "a type alias",
    "pyg_peft.backbones.TokenBackbone": "a protocol",
    "pyg_peft.backbones.list_backbones": "it lists names of a task",
    "pyg_peft.backbones.list_models": "it takes no argument",
    "pyg_peft.backbones.register_backbone": "it takes a class: tests/test_strangers.py",
    "pyg_peft.errors.CheckpointError": "an exception",
    "pyg_peft.errors.MissingHeadError": "an exception",
    "pyg_peft.errors.PlacementError": "an exception",
    "pyg_peft.errors.MissingExtraError": "an exception",
}


def covered(name: str) -> bool:
    """Whether a strategy of this name exists; a name that is public twice needs one."""
    bare = name.rpartition(".")[2]
    return any(key.rpartition(".")[2].partition(" ")[0] == bare for key in ENTRIES)


__all__ = ["EXEMPT", "MODULES", "PUBLIC", "covered"]
