"""Attach adapters to a base model; switch, disable, delete, merge, save and load them."""

import functools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import torch
from torch import Tensor, nn

from pyg_peft.backbones.contract import FROZEN_INPUTS, frozen_part
from pyg_peft.datasets.preprocessing import Preprocessing
from pyg_peft.nn import MemoryBank
from pyg_peft.trainable import ParameterCount, count_parameters
from pyg_peft.tuners import METHODS, MethodConfig
from pyg_peft.tuners.engine.adapter_set import AdapterSet
from pyg_peft.tuners.engine.calls import by_name
from pyg_peft.tuners.engine.combining import check_weights, combine
from pyg_peft.tuners.engine.config import Question
from pyg_peft.tuners.engine.dry_run import initialize, measure_widths, try_out
from pyg_peft.tuners.engine.hub import check_repo, find_adapter, upload
from pyg_peft.tuners.engine.loading import fill, load_adapter
from pyg_peft.tuners.engine.placement import site_tensors
from pyg_peft.tuners.engine.saving import count, save_adapter

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _changes(
    method: Callable[Concatenate["PeftModel", _P], _R],
) -> Callable[Concatenate["PeftModel", _P], _R]:
    """Run a method while no other thread calls the model; calls wait until it is done."""

    @functools.wraps(method)
    def alone(self: "PeftModel", *args: _P.args, **kwargs: _P.kwargs) -> _R:
        if torch.compiler.is_compiling():
            return method(self, *args, **kwargs)
        with self._adapters.changing():
            return method(self, *args, **kwargs)

    return alone


def get_peft_model(
    base: nn.Module,
    config: MethodConfig,
    adapter_name: str = "default",
    *,
    memory_bank: MemoryBank | None = None,
    example: Any = None,
) -> "PeftModel":
    """Freeze ``base`` and attach a method to it.

    Args:
        base: A backbone. Its modules stay the same objects, see :meth:`PeftModel.unload`.
        config: The method and its settings.
        adapter_name: Name of the adapter, which becomes the active one.
        memory_bank: Memory bank, for methods that retrieve from one.
        example: An input for a dry run: one argument, a tuple of arguments or a mapping of named
            ones. The dry run initializes lazy layers and measures widths. It also raises the
            errors of a first forward: modules that are never called, layers without geometry.

    Raises:
        PlacementError: If the method does not fit the model, or the model already has adapters.
        ValueError: If a setting, the name or the bank does not fit. ``base`` is unchanged in that
            case.

    Example:
        >>> from pyg_peft import LoRAConfig, get_peft_model
        >>> from pyg_peft.backbones import PointMAE
        >>> base = PointMAE(4, embed_dim=24, depth=2, num_heads=3, num_centers=8, patch_size=4)
        >>> get_peft_model(base, LoRAConfig(rank=2)).active_adapter
        'default'
    """
    initialize(base, example)
    model = PeftModel(base)
    try:
        model.add_adapter(adapter_name, config, memory_bank=memory_bank, example=example)
    except BaseException:
        model.unload()
        raise
    return model


class PeftModel(nn.Module):
    """A frozen base and its adapters, of which at most one is active.

    ``train()`` affects only the modules that the active adapter owns. Every other module stays in
    eval mode: frozen batch norms keep their statistics, and frozen dropout and drop-path are off.
    The base's own tensors never change. An adapter trains its own copies of them, which replace
    the originals during the forward.

    Several threads may call a model in eval mode, each as if alone. Methods that change the model
    wait until these calls have returned. Base modules that an adapter has its own copy of are run
    by one thread at a time.

    In DDP or FSDP, choose the adapter before wrapping: wrapping fixes which tensors are
    synchronized.

    Args:
        base: The model. It stays frozen until :meth:`unload`.

    Attributes:
        base: The base, with a child ``peft`` in each adapted module.
        memory_banks: Memory banks by adapter name.

    Raises:
        PlacementError: If ``base`` already has adapters.
    """

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self._adapters = AdapterSet(base)
        self.base = base
        self.memory_banks = nn.ModuleDict()
        self.train(base.training)

    # ---- adapters ---------------------------------------------------------------------------

    @property
    def peft_config(self) -> dict[str, MethodConfig]:
        """Configurations by adapter name."""
        return dict(self._adapters.configs)

    @property
    def active_adapter(self) -> str | None:
        """Name of the active adapter, or ``None``."""
        return self._adapters.active

    @property
    def memory_bank(self) -> MemoryBank | None:
        """Memory bank of the active adapter, or ``None``."""
        return self._bank(self._adapters.active)

    @_changes
    def add_adapter(
        self,
        adapter_name: str,
        config: MethodConfig,
        *,
        memory_bank: MemoryBank | None = None,
        example: Any = None,
    ) -> None:
        """Attach one more adapter and make it the active one.

        Args:
            adapter_name: Name of the adapter.
            config: The method and its settings.
            memory_bank: Memory bank, for methods that retrieve from one.
            example: An input for a dry run, see :func:`get_peft_model`.

        Raises:
            ValueError: If the name is taken or not an identifier, or the bank does not fit.
            PlacementError: If the method does not fit the model. Nothing has changed in either
                case.
        """
        self._adapters.check_new(adapter_name, config)
        self._adapters.refuse_while_merged("add an adapter")
        _check_bank(memory_bank)
        config.check_bank(self.base, memory_bank)
        with self.disable_adapter():
            widths = measure_widths(self.base, example)
            config = config.resolve(self.base, widths, bank=memory_bank)
        sites = config.sites(self.base, has_bank=memory_bank is not None)
        before = self.active_adapter
        self._adapters.add(adapter_name, config, sites)
        if memory_bank is not None:
            self.memory_banks[adapter_name] = memory_bank
        self.set_adapter(adapter_name)
        try:
            try_out(self, example)
            config.check_example(self, self.base, sites, example)
        except BaseException:
            self._remove(adapter_name)
            if before is not None:
                self.set_adapter(before)
            raise

    @_changes
    def add_weighted_adapter(
        self, adapters: Sequence[str], weights: Sequence[float], adapter_name: str
    ) -> None:
        r"""Combine adapters of one method into a new one, and make it the active one.

        The new adapter changes each weight of the base by the weighted sum of their changes,
        :math:`\mathbf{W} + \sum_n w_n \, (\mathbf{W}_n - \mathbf{W})`. This is their mean if the
        weights add up to one. The others stay as they are, and so does their training.

        - LoRA: exact, by concatenating the matrices. The new rank is the sum of the ranks, which
          may differ, as ``alpha`` may; a layer's rank is at most its width.
        - BitFit and full fine-tuning: exact. So are the own copies (heads, ``modules_to_save``) of
          every method. A head for another number of classes than the base's has no
          :math:`\mathbf{W}`: it becomes :math:`\sum_n w_n \mathbf{W}_n`.
        - Running statistics of such copies: the mean of those with positive weights.
        - Other methods (adapter, VPT, Point-PEFT, linear probe) are no changes of weights and are
          refused, and so are memory banks with them.

        Args:
            adapters: Names of the adapters, each once.
            weights: A factor for each of them.
            adapter_name: Name of the new adapter.

        Raises:
            ValueError: If a name is unknown, repeated or taken, methods or settings differ, or the
                weights do not fit. Nothing has changed in that case.
            NotImplementedError: If the method is not a change of weights. Nothing has changed.

        Example:
            >>> from pyg_peft import LoRAConfig, get_peft_model
            >>> from pyg_peft.backbones import PointMAE
            >>> base = PointMAE(4, embed_dim=24, depth=2, num_heads=3, num_centers=8, patch_size=4)
            >>> model = get_peft_model(base, LoRAConfig(rank=2), "chairs")
            >>> model.add_adapter("desks", LoRAConfig(rank=3))
            >>> model.add_weighted_adapter(["chairs", "desks"], [0.7, 0.3], "both")
            >>> model.active_adapter, model.peft_config["both"].rank
            ('both', 5)
        """
        if isinstance(adapters, str) or not isinstance(adapters, Sequence):
            raise TypeError(f"Expected 'adapters' to be a list of names (got {adapters!r})")
        if not adapters or len(set(adapters)) != len(adapters):
            raise ValueError(
                f"Expected 'adapters' to hold at least one name, each once (got {list(adapters)})"
            )
        sites = [self._adapters.sites(name) for name in adapters]
        factors = check_weights(weights, len(adapters))
        self._adapters.check_name(adapter_name)
        self._adapters.refuse_while_merged("add an adapter")
        configs = [self._adapters.configs[name] for name in adapters]
        config, combined = combine(self.base, configs, sites, factors)
        self._adapters.add(adapter_name, config, combined)
        self.set_adapter(adapter_name)

    @_changes
    def set_adapter(self, adapter_name: str) -> None:
        """Make an adapter the active one, which runs and trains."""
        self._adapters.activate(adapter_name)
        self.train(self.training)

    def disable_adapter(self) -> AbstractContextManager[None]:
        """Return a context in which this thread runs the base alone, bit for bit as a frozen base.

        Contexts may be nested. A base that is not frozen may differ in the last bit, since PyTorch
        may choose another kernel where parameters require gradients.
        """
        return self._adapters.paused()

    @_changes
    def delete_adapter(self, adapter_name: str) -> None:
        """Remove an adapter that is not active.

        Raises:
            ValueError: If the adapter is active. Switch to another one first, or call ``unload``
                if it is the last.
        """
        self._adapters.sites(adapter_name)
        self._adapters.refuse_while_merged("delete an adapter")
        if adapter_name == self.active_adapter:
            raise ValueError(
                f"Expected 'adapter_name' to be an inactive adapter (got the active "
                f"{adapter_name!r}): call set_adapter with another one first, or unload"
            )
        self._remove(adapter_name)

    @_changes
    def unload(self) -> nn.Module:
        """Remove all adapters and return the base as it was before."""
        self.memory_banks.clear()
        return self._adapters.clear()

    @property
    def merged_adapter(self) -> str | None:
        """Name of the adapter that :meth:`merge_adapter` has merged, or ``None``."""
        return self._adapters.merged

    def get_base_model(self) -> nn.Module:
        """Return the base, which still has the slots of its adapters, see :meth:`unload`.

        Example:
            >>> from pyg_peft import LoRAConfig, get_peft_model
            >>> from pyg_peft.backbones import PointMAE
            >>> base = PointMAE(4, embed_dim=24, depth=2, num_heads=3, num_centers=8, patch_size=4)
            >>> get_peft_model(base, LoRAConfig(rank=2)).get_base_model() is base
            True
        """
        return self.base

    @_changes
    def merge_adapter(self, adapter_names: Sequence[str] | None = None) -> None:
        """Fold an adapter into the base's weights until :meth:`unmerge_adapter`, for inference.

        A forward then costs what the base's costs, and takes no turns between threads. The outputs
        agree with those before to rounding. The model is set to eval mode. Meanwhile its adapters
        cannot be trained, switched, added, deleted, saved, loaded or disabled, and ``state_dict``
        has the merged weights. One more copy of the changed tensors is kept in memory.

        Args:
            adapter_names: The adapter as a list of one name, which becomes the active one; by
                default the active adapter. :meth:`add_weighted_adapter` combines several.

        Raises:
            NotImplementedError: If the adapter changes no weights, or shared ones. Call the model
                itself in that case. Nothing has changed.
            ValueError: If no adapter is active, one is merged already, or a merged weight would not
                be finite. Nothing has changed in either case.

        Example:
            >>> import torch
            >>> from pyg_peft import LoRAConfig, get_peft_model
            >>> from pyg_peft.backbones import PointMAE
            >>> base = PointMAE(4, embed_dim=24, depth=2, num_heads=3, num_centers=8, patch_size=4)
            >>> model = get_peft_model(base, LoRAConfig(rank=2))
            >>> before = {name: p.clone() for name, p in base.named_parameters()}
            >>> model.merge_adapter()
            >>> model.merged_adapter
            'default'
            >>> model.unmerge_adapter()
            >>> all(torch.equal(p, before[name]) for name, p in base.named_parameters())
            True
        """
        self._adapters.refuse_while_merged("merge an adapter")
        name = self._one_name(adapter_names)
        before, training = self.active_adapter, self.training
        self._adapters.check_mergeable(name)
        if name != before:
            self.set_adapter(name)
        self.train(False)
        try:
            self._adapters.merge_in_place(name)
        except BaseException:
            if before is not None and before != name:
                self.set_adapter(before)
            self.train(training)
            raise

    @_changes
    def unmerge_adapter(self) -> None:
        """Undo :meth:`merge_adapter`: the base gets its own tensors back, bit for bit.

        If the model was converted to another precision meanwhile, its own tensors are too.

        Raises:
            ValueError: If no adapter is merged.
        """
        if self._adapters.merged is None:
            raise ValueError("Expected a merged adapter to unmerge (got none)")
        self._adapters.unmerge()
        self.train(self.training)

    @_changes
    def merge_and_unload(self) -> nn.Module:
        """Fold the active adapter into the base's weights, then :meth:`unload`.

        Raises:
            ValueError: If no adapter is active.
            NotImplementedError: If the adapter changes no weights, or shared ones. Nothing has
                changed in that case.
        """
        if self.active_adapter is None:
            raise ValueError("Expected an active adapter to merge (got none)")
        self._adapters.merge(self.active_adapter)
        return self.unload()

    # ---- forward ----------------------------------------------------------------------------

    def forward(
        self,
        *args: Any,
        query: Tensor | None = None,
        sample_id: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the base with the active adapter.

        Args:
            *args: Positional arguments of the base.
            query: Features ``[B, C]`` that query the memory bank, from :meth:`precompute`. By
                default the frozen base computes them. Its tokens are then reused, unless a tensor
                argument requires gradients. The query itself has no gradient.
            sample_id: Ids ``[B]`` of the samples. Needed while training with a bank that has ids,
                so that a sample does not retrieve itself.
            **kwargs: Keyword arguments of the base.
        """
        if torch.compiler.is_compiling():
            return self._answer(args, kwargs, query, sample_id)
        with self._adapters.calling():
            output = self._answer(args, kwargs, query, sample_id)
            self._adapters.verify()
            return output

    def _answer(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        query: Tensor | None,
        sample_id: Tensor | None,
    ) -> Any:
        bank = self.memory_bank
        for name, path in FROZEN_INPUTS.items():
            if kwargs.get(name) is not None and self._adapters.adapts(path):
                raise ValueError(
                    f"Expected '{name}' to be None, since the adapter changes '{path}', which "
                    "computes it (got a tensor)"
                )
        if bank is None:
            if query is not None:
                raise ValueError("Expected 'query' to be None without a memory bank (got a tensor)")
            return self.base(*args, **kwargs)
        question = Question(bank, query, sample_id, self.training, self.precompute)
        call = dict(by_name(self.base, args, kwargs))
        return self.base(**self._config.ask_bank(self.base, call, question))

    def precompute(self, **call: Any) -> dict[str, Any]:
        """Compute the frozen part of a forward, to be passed to :meth:`forward` by name.

        The result holds ``patches``, ``tokens``, and ``query`` if there is a memory bank; ``query``
        alone if the bank names a module. ``tokens`` are left out if the adapter trains the
        embedding.

        Args:
            **call: Arguments of the base. ``patches`` and ``tokens`` are reused if given.
        """
        if torch.compiler.is_compiling():
            return self._precompute(call)
        with self._adapters.calling():
            return self._precompute(call)

    @torch.no_grad()
    def _precompute(self, call: dict[str, Any]) -> dict[str, Any]:
        stale = [name for name, path in FROZEN_INPUTS.items() if self._adapters.adapts(path)]
        # Read before 'disable_adapter', which hides them.
        config, bank = self._config, self.memory_bank
        if self.merged_adapter is not None:  # what is not stale is as in the base
            return config.precompute(self.base, call, bank, stale)
        with self.disable_adapter():
            if config is None:
                return frozen_part(self.base, call)
            return config.precompute(self.base, call, bank, stale)

    @_changes
    def train(self, mode: bool = True) -> Self:
        """Set the mode of the active adapter's modules; everything frozen stays in eval mode.

        Raises:
            ValueError: If ``mode`` is true while an adapter is merged.
        """
        if not isinstance(mode, bool):
            raise TypeError(f"Expected 'mode' to be bool (got {mode!r})")
        if mode:
            self._adapters.refuse_while_merged("train")
        self.training = mode
        self.memory_banks.train(False)
        self._adapters.train(mode)
        return self

    # ---- counts and files -------------------------------------------------------------------

    def count_parameters(self) -> ParameterCount:
        """Count trainable, head and frozen parameters with the active adapter."""
        active = self.active_adapter
        if active is None:
            return count_parameters(self)
        return count(self.base, self._adapters.configs[active], self._adapters.sites(active))

    def print_trainable_parameters(self) -> None:
        """Print the trainable parameters, with and without the head, and the frozen ones."""
        print(self.count_parameters())  # noqa: T201, the name says so

    @_changes
    def save_pretrained(
        self,
        folder: str | Path,
        *,
        adapter_name: str | None = None,
        class_names: Sequence[str] | None = None,
        preprocessing: Preprocessing | Mapping[str, Any] | None = None,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        """Save a complete adapter: weights, head, norm statistics, bank and prediction settings.

        Args:
            folder: Folder to write to, created if needed. See :mod:`pyg_peft.checkpoint` for its
                contents.
            adapter_name: Name of the adapter; the active one by default.
            class_names: Names of the classes, in the order of the logits.
            preprocessing: How clouds were prepared: a :class:`~pyg_peft.datasets.Preprocessing`,
                or JSON-able values by the names of its arguments, possibly with more of your own.
                Without it, an adapter of this library's backbones records the default, and that it
                is assumed.
            card: JSON-able facts for the model card. ``license`` of the adapter's weights,
                ``data_license`` and ``data``, the name of the data, are text; others of your own
                become rows of its table.
        """
        _check_folder(folder)
        if isinstance(class_names, str) or not all(isinstance(n, str) for n in class_names or ()):
            raise TypeError(f"Expected 'class_names' to be a list of text (got {class_names!r})")
        recorded = _recorded(preprocessing, self.base)
        name = self.active_adapter if adapter_name is None else adapter_name
        if name is None:
            raise ValueError("Expected 'adapter_name' to be given when none is active (got None)")
        sites = self._adapters.sites(name)
        self._adapters.refuse_while_merged("save an adapter")
        save_adapter(
            folder,
            self.base,
            self._adapters.configs[name],
            sites,
            bank=self._bank(name),
            class_names=class_names,
            preprocessing=recorded,
            card=card,
        )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        adapter_name: str | None = None,
        class_names: Sequence[str] | None = None,
        preprocessing: Preprocessing | Mapping[str, Any] | None = None,
        card: Mapping[str, Any] | None = None,
        private: bool | None = None,
        commit_message: str = "Upload adapter",
        token: str | None = None,
    ) -> str:
        """Upload an adapter to the Hugging Face Hub (extra ``hub``): its files and no others.

        Args:
            repo_id: Name of the repository, such as ``"org/name"``, created if needed.
            adapter_name: As in :meth:`save_pretrained`.
            class_names: As in :meth:`save_pretrained`.
            preprocessing: As in :meth:`save_pretrained`.
            card: As in :meth:`save_pretrained`.
            private: Whether a new repository is private; by default as in ``huggingface_hub``.
            commit_message: Message of the commit.
            token: As in ``huggingface_hub``, which finds that of your login by default.

        Returns:
            Address of the commit.

        Raises:
            ValueError: If ``repo_id`` is not of the form ``org/name``.
            MissingExtraError: If ``huggingface_hub`` is not installed.
        """
        check_repo(repo_id)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(
                folder,
                adapter_name=adapter_name,
                class_names=class_names,
                preprocessing=preprocessing,
                card=card,
            )
            return upload(folder, repo_id, private=private, message=commit_message, token=token)

    @classmethod
    def from_pretrained(
        cls,
        base: nn.Module,
        folder: str | Path,
        adapter_name: str = "default",
        *,
        memory_bank: MemoryBank | None = None,
        configs: Sequence[type[MethodConfig]] = (),
        revision: str | None = None,
    ) -> Self:
        """Load a saved adapter onto a base; the logits equal those of the model that was saved.

        Args:
            base: A model with the same frozen weights as at saving. Its head may differ, and so may
                its number of classes if the base has ``reset_head``. The head must be the same for
                an adapter that was saved without its own (``modules_to_save=()``).
            folder: The folder that :meth:`save_pretrained` wrote, or the name of an adapter on the
                Hugging Face Hub, such as ``"org/name"`` (extra ``hub``). A folder takes precedence.
            adapter_name: Name that the adapter gets.
            memory_bank: The adapter's bank, if it is already loaded. By default it is read from
                the folder.
            configs: Third-party methods that the file may hold.
            revision: Branch, tag or commit on the Hub.

        Raises:
            CheckpointError: If the file is damaged or foreign, the base is another one, or a tensor
                does not fit. ``base`` is unchanged in that case.
        """
        model = cls(base)
        try:
            model.load_adapter(
                folder,
                adapter_name,
                memory_bank=memory_bank,
                configs=configs,
                revision=revision,
            )
        except BaseException:
            model.unload()
            raise
        return model.eval()

    @_changes
    def load_adapter(
        self,
        folder: str | Path,
        adapter_name: str,
        *,
        memory_bank: MemoryBank | None = None,
        configs: Sequence[type[MethodConfig]] = (),
        revision: str | None = None,
    ) -> None:
        """Add a saved adapter and make it active, see :meth:`from_pretrained`."""
        _check_folder(folder)
        _check_bank(memory_bank)
        for config in configs:
            if not isinstance(config, type) or not issubclass(config, MethodConfig):
                raise TypeError(
                    f"Expected 'configs' to hold subclasses of MethodConfig (got {config!r})"
                )
        self._adapters.check_name(adapter_name)
        self._adapters.refuse_while_merged("load an adapter")
        methods = {**METHODS, **{config.method: config for config in configs}}
        config, sites, bank = load_adapter(
            find_adapter(folder, revision), self.base, methods, memory_bank
        )
        self._adapters.add(adapter_name, config, sites)
        if bank is not None:
            self.memory_banks[adapter_name] = bank.to(next(self.base.parameters()).device)
        self.set_adapter(adapter_name)

    @_changes
    def load_tensors(self, tensors: Mapping[str, Tensor], *, without: Sequence[str] = ()) -> None:
        """Load tensors into the active adapter, by the keys of its file.

        Args:
            tensors: Tensors by key, as in :func:`pyg_peft.checkpoint.read_adapter`.
            without: Paths of modules whose tensors stay as they are, such as ``["head"]`` to start
                from an adapter for other classes.

        Raises:
            CheckpointError: If a key or a shape does not fit. Nothing is loaded in that case.
            TypeError: If a value is not a tensor, or a tensor of another kind than expected.
        """
        if self.active_adapter is None:
            raise ValueError("Expected an active adapter to load tensors into (got none)")
        self._adapters.refuse_while_merged("load tensors")
        sites = self._adapters.sites(self.active_adapter)
        own = site_tensors(sites)
        _check_tensors(tensors, own)
        kept = {k: t.detach().clone() for k, t in own.items() if _is_below(k, without)}
        rest = {k: t for k, t in tensors.items() if not _is_below(k, without)}
        fill(sites, {**rest, **kept}, "tensors")

    # ---- private ----------------------------------------------------------------------------

    @property
    def _config(self) -> Any:
        """Configuration of the active adapter, or ``None``."""
        return self._adapters.configs.get(self._adapters.active or "")

    def _one_name(self, names: object) -> str:
        """Return the name of the one adapter in a list, or of the active adapter."""
        if names is None:
            if self.active_adapter is None:
                raise ValueError("Expected an active adapter to merge (got none)")
            return self.active_adapter
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise TypeError(f"Expected 'adapter_names' to be a list of names (got {names!r})")
        if len(names) != 1:  # pyright: ignore[reportUnknownArgumentType]
            raise ValueError(
                f"Expected 'adapter_names' to hold one name (got {list(names)}): "  # pyright: ignore[reportUnknownArgumentType]
                "add_weighted_adapter combines several into one"
            )
        self._adapters.sites(names[0])
        return names[0]

    def _remove(self, name: str) -> None:
        self._adapters.remove(name)
        if name in self.memory_banks:
            del self.memory_banks[name]

    def _bank(self, name: str | None) -> MemoryBank | None:
        bank = self.memory_banks[name] if name is not None and name in self.memory_banks else None
        return bank if isinstance(bank, MemoryBank) else None


def _check_bank(bank: object) -> None:
    if bank is not None and not isinstance(bank, MemoryBank):
        raise TypeError(
            f"Expected 'memory_bank' to be a MemoryBank (got {type(bank).__name__}): fill one with "
            "MemoryBank.from_loader, or read it with MemoryBank.load"
        )


def _recorded(preprocessing: object, base: nn.Module) -> Mapping[str, Any] | None:
    """Return the values to save; for a backbone the default if none are given."""
    if isinstance(preprocessing, Preprocessing):
        return preprocessing.to_dict()
    if preprocessing is None:
        known = isinstance(getattr(base, "config", None), Mapping)
        return {**Preprocessing().to_dict(), "assumed": True} if known else None
    if not isinstance(preprocessing, Mapping):
        raise TypeError(
            "Expected 'preprocessing' to be a Preprocessing or a mapping "
            f"(got {type(preprocessing).__name__})"
        )
    return preprocessing


def _is_below(key: str, paths: Sequence[str]) -> bool:
    return any(key.startswith(f"{path}.") for path in paths)


def _check_folder(folder: object) -> None:
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"Expected 'folder' to be a path (got {folder!r})")


def _check_tensors(tensors: object, expected: Mapping[str, Tensor]) -> None:
    """Raise unless each is a dense tensor with values, floating-point if that is expected."""
    if not isinstance(tensors, Mapping):
        raise TypeError(f"Expected 'tensors' to map keys to tensors (got {type(tensors).__name__})")
    for key, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"Expected {key!r} to be a tensor (got {type(tensor).__name__})")
        if tensor.layout != torch.strided or tensor.is_meta:
            got = "meta" if tensor.is_meta else str(tensor.layout)
            raise TypeError(f"Expected {key!r} to be a dense tensor with values (got {got})")
        if key in expected and tensor.is_floating_point() != expected[key].is_floating_point():
            raise TypeError(
                f"Expected {key!r} to be of a type like {expected[key].dtype} (got {tensor.dtype})"
            )


__all__ = ["PeftModel", "get_peft_model"]
