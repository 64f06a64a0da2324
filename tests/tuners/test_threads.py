"""Several threads call one model in eval mode, each as if it were alone."""

import copy
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from prompted import PLACED, ragged
from pyg_models import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch_geometric.data import Batch
from tuned import WAYS, Way, points, portrait, tiny_base

from pyg_peft import BitFitConfig, LoRAConfig, PeftModel, PointPEFTConfig, get_peft_model
from pyg_peft.geometry import enable_pyg_ops
from pyg_peft.testing import randomize_
from pyg_peft.tuners import Component, MethodConfig, Site, TrainedTensors

THREADS = 8


@dataclass(frozen=True)
class Job:
    """A model, and what each thread calls it with; no two threads have the same clouds."""

    model: PeftModel
    calls: list[Callable[[Any], Tensor]]


@pytest.fixture(autouse=True)
def frequent_switches() -> Iterator[None]:
    """Have threads take turns far more often than Python's five milliseconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@torch.no_grad()
def check(job: Job, repeats: int, resting: tuple[int, ...] = (2, 5)) -> None:
    """Fail unless each thread gets what it gets alone, some of them without the adapter."""
    alone = [call(job.model) for call in job.calls]
    with job.model.disable_adapter():
        base = [call(job.model) for call in job.calls]
    assert not any(torch.equal(a, b) for a, b in zip(alone, base, strict=True))
    before = portrait(job.model)
    start = threading.Barrier(THREADS, timeout=60)

    def run(number: int) -> int:
        # Modes of autograd belong to a thread.
        with torch.no_grad():
            call, expected = job.calls[number], alone[number]
            start.wait()
            if number not in resting:
                return sum(not torch.equal(call(job.model), expected) for _ in range(repeats))
            wrong = 0
            for _ in range(repeats):
                with job.model.disable_adapter():
                    wrong += not torch.equal(call(job.model), base[number])
                wrong += not torch.equal(call(job.model), expected)
            return wrong

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(run, range(THREADS))) == [0] * THREADS
    assert portrait(job.model) == before


def on_tokens(way: Way) -> Job:
    calls = [partial(_call_named, points((5 + i, 3, 0, 9), seed=i)) for i in range(THREADS)]
    return Job(way.awake(), calls)


def _call_named(arguments: dict[str, Any], model: Any) -> Tensor:
    return model(**arguments)


def on_graphs(name: str, *, has_bank: bool) -> Job:
    calls = []
    for seed in range(THREADS):
        clouds = ragged(seed)
        calls.append(lambda model, c=clouds: model(c.x, c.pos, c.batch, batch_size=c.batch_size))
    return Job(PLACED[name].awake(has_bank=has_bank), calls)


def on_pyg(name: str) -> Job:
    """Point-PEFT on a PyG model whose layers read the geometry around them."""
    kind, takes_data, _, targets, _ = MODELS[name]
    torch.manual_seed(0)
    base = randomize_(kind().double(), torch.Generator().manual_seed(0)).eval()
    config = PointPEFTConfig(
        bottleneck_channels=4, attention_channels=6, k=4, target_modules=targets, modules_to_save=()
    )
    model = randomize_(get_peft_model(base, config), torch.Generator().manual_seed(2)).eval()
    calls = []
    for seed in range(THREADS):
        call = points((9 + seed, 6), seed=seed)
        pos, batch = call["pos"].double(), call["batch"]
        x = pos.flip(1) if name.endswith("seg") else None
        if takes_data:
            data = Batch(x=x, pos=pos, batch=batch)
            calls.append(lambda m, d=data: m(copy.copy(d)))
        else:
            calls.append(lambda m, p=pos, b=batch: m(None, p, b))
    return Job(model, calls)  # type: ignore[arg-type]


# ---- eight threads -------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_threads_on_tokens(way: Way):
    check(on_tokens(way), repeats=2)


@pytest.mark.parametrize("has_bank", [False, True], ids=["no bank", "bank"])
@pytest.mark.parametrize("name", ["blocks, and layers in them", "sources"])
def test_threads_on_graphs(name: str, has_bank: bool):
    check(on_graphs(name, has_bank=has_bank), repeats=2)


# Models that sample from a random point are no case: threads share the state of torch's generator.
@pytest.mark.parametrize("name", ["dgcnn cls", "dgcnn seg"])
def test_threads_on_models_of_pyg(name: str):
    with enable_pyg_ops():
        check(on_pyg(name), repeats=2)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_many_calls_on_tokens(way: Way):
    check(on_tokens(way), repeats=40)


@pytest.mark.slow
@pytest.mark.parametrize("has_bank", [False, True], ids=["no bank", "bank"])
@pytest.mark.parametrize("name", PLACED)
def test_many_calls_on_graphs(name: str, has_bank: bool):
    check(on_graphs(name, has_bank=has_bank), repeats=40)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dgcnn cls", "dgcnn seg"])
def test_many_calls_on_models_of_pyg(name: str):
    with enable_pyg_ops():
        check(on_pyg(name), repeats=40)


# ---- whose turn it is ----------------------------------------------------------------------------


class Gate(Component):
    """Lets a call wait in the middle, until the test goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = _Events()

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        if threading.current_thread().name == "slow":
            self.gates.inside.set()
            assert self.gates.go_on.wait(30)
        return args, kwargs


class _Events:
    def __init__(self) -> None:
        self.inside, self.go_on = threading.Event(), threading.Event()


@dataclass(frozen=True, kw_only=True)
class Gated(MethodConfig):
    """A gate at one module, and beside it an own copy of tensors where that is asked for."""

    method: ClassVar[str] = "gated"
    modules_to_save: tuple[Any, ...] = ()
    swaps: bool = False

    def sites(self, base: nn.Module, *, has_bank: bool = False) -> list[Site]:
        sites = [Site("1", "gate", Gate())]
        if self.swaps:
            sites.insert(0, Site("1", "trained", TrainedTensors(base[1], ["bias"])))  # type: ignore[index]
        return sites


X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


def gated(swaps: bool) -> tuple[PeftModel, _Events]:
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).eval()
    model = get_peft_model(base, Gated(swaps=swaps))
    randomize_(model, torch.Generator().manual_seed(1)).eval()
    gate: Any = model.get_submodule("base.1.peft.adapters.default.gate")
    return model, gate.gates


def in_thread(
    run: Callable[[], Any], name: str | None = None
) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(run()), name=name, daemon=True)
    thread.start()
    return thread, results


def done(thread: threading.Thread, seconds: float = 30.0) -> bool:
    thread.join(seconds)
    return not thread.is_alive()


def test_what_owns_no_tensors_waits_for_nobody():
    model, gates = gated(swaps=False)
    slow, _ = in_thread(lambda: model(X), "slow")
    assert gates.inside.wait(30)
    other, _ = in_thread(lambda: model(X))
    assert done(other) and slow.is_alive()
    gates.go_on.set()
    assert done(slow)


def test_own_tensors_are_seen_by_no_other_thread():
    model, gates = gated(swaps=True)
    expected = model(X)
    with model.disable_adapter():
        reference = model(X)
    assert not torch.equal(expected, reference)
    slow, first = in_thread(lambda: model(X), "slow")
    assert gates.inside.wait(30)

    def rest() -> Tensor:
        with model.disable_adapter():
            return model(X)

    other, second = in_thread(rest)
    assert not done(other, 0.2), "it waits for the module, though its adapters rest"
    gates.go_on.set()
    assert done(slow) and done(other)
    assert torch.equal(first[0], expected) and torch.equal(second[0], reference)


@pytest.mark.parametrize("way", [Way("full_fine_tuning"), Way("point_peft", True)], ids=str)
def test_a_thread_started_while_adapters_rest_is_awake(way: Way):
    """The one who rests waits for the other; both are in contexts of their own."""
    model = way.awake()
    call = points()
    tuned = model(**call)
    with model.disable_adapter():
        reference = model(**call)
        for depth in range(2):
            thread, results = in_thread(lambda: (model(**call), model.active_adapter))
            assert done(thread)
            assert torch.equal(results[0][0], tuned) and results[0][1] == "default"
            assert torch.equal(model(**call), reference), depth
            with model.disable_adapter():
                assert torch.equal(model(**call), reference)
    assert torch.equal(model(**call), tuned)


def test_a_change_waits_for_calls_and_calls_for_the_change():
    model, gates = gated(swaps=False)
    model.add_adapter("second", LoRAConfig(rank=1, target_modules=("0",), modules_to_save=()))
    model.set_adapter("default")
    slow, _ = in_thread(lambda: model(X), "slow")
    assert gates.inside.wait(30)
    change, _ = in_thread(lambda: model.set_adapter("second"))
    assert not done(change, 0.2) and model.active_adapter == "default"
    later, seen = in_thread(lambda: (model(X), model.active_adapter))
    assert not done(later, 0.2)
    gates.go_on.set()
    assert done(slow) and done(change) and done(later)
    assert seen[0][1] == "second"


def test_no_change_while_adapters_rest_in_another_thread():
    model, _ = gated(swaps=True)
    inside, go_on = threading.Event(), threading.Event()

    def rest() -> None:
        with model.disable_adapter():
            inside.set()
            assert go_on.wait(30)

    thread, _ = in_thread(rest)
    assert inside.wait(30)
    with pytest.raises(ValueError, match="to stay as they are within 'disable_adapter'"):
        model.set_adapter("default")
    go_on.set()
    assert done(thread)
    model.set_adapter("default")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("through", ["model", "resting", "precompute"])
@pytest.mark.parametrize("way", [Way("bitfit"), Way("point_peft", True)], ids=str)
def test_an_error_leaves_no_turn_taken(
    way: Way, through: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
):
    model = way.awake()
    call = points()
    expected, before = model(**call), portrait(model)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(model.base.get_submodule("blocks.0.mlp.fc2"), "forward", fail)
        with pytest.raises(error):
            if through == "model":
                model(**call)
            elif through == "precompute" and way.has_bank:
                model.precompute(**call)
            else:
                with model.disable_adapter():
                    model.base(**call)
    assert portrait(model) == before
    thread, results = in_thread(lambda: model(**call))
    assert done(thread), "another thread gets its turn"
    assert torch.equal(results[0], expected) and torch.equal(model(**call), expected)


def test_an_interrupted_call_of_the_base_is_forgotten_in_the_next_of_the_model():
    model = Way("bitfit").awake()
    call = points()
    expected, before = model(**call), portrait(model)
    layer = model.base.get_submodule("blocks.0.mlp.fc2")
    layer.forward = lambda *args: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        model.base(**call)
    del layer.forward
    with model.disable_adapter():
        reference = model(**call)
    assert torch.equal(reference, tiny_base()(**call))
    assert torch.equal(model(**call), expected) and portrait(model) == before


def test_a_hook_that_raises_before_ours_gives_no_turn_away():
    """PyTorch then runs what follows a call, though nothing has gone before it."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).eval()
    fail_in = "failing"

    def refuse(module: nn.Module, args: Any) -> None:
        if threading.current_thread().name == fail_in:
            raise ValueError(fail_in)

    base[1].register_forward_pre_hook(refuse)
    model = get_peft_model(base, Gated(swaps=True))
    randomize_(model, torch.Generator().manual_seed(1)).eval()
    gates: Any = model.get_submodule("base.1.peft.adapters.default.gate").gates
    expected = model(X)
    slow, results = in_thread(lambda: model(X), "slow")
    assert gates.inside.wait(30)

    def call_and_fail() -> bool:
        with pytest.raises(ValueError, match=fail_in):
            model(X)
        return True

    failing, failed = in_thread(call_and_fail, fail_in)
    assert done(failing) and failed == [True]
    own: Any = model.get_submodule("base.1.peft.adapters.default.trained")
    assert base[1]._parameters["bias"] is own._parameters["bias"], "still in the slow call"
    gates.go_on.set()
    assert done(slow) and torch.equal(results[0], expected)


def test_a_module_that_calls_itself_keeps_its_own_tensors():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((), 2.0))

        def forward(self, x: Tensor, more: int = 1) -> Tensor:
            inner = self(x, more - 1) if more else x
            return inner * self.weight

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.twice = Twice()

        def forward(self, x: Tensor) -> Tensor:
            return self.twice(x)

    model = get_peft_model(Net(), LoRAOfNothing(modules_to_save=("twice",)))
    own = model.get_submodule("base.twice.peft.adapters.default.trained").get_parameter("weight")
    with torch.no_grad():
        own.fill_(3.0)
        assert float(model(torch.ones(()))) == 9.0
        with model.disable_adapter():
            assert float(model(torch.ones(()))) == 4.0


@dataclass(frozen=True, kw_only=True)
class LoRAOfNothing(MethodConfig):
    """Only what ``modules_to_save`` says."""

    method: ClassVar[str] = "nothing"

    def sites(self, base: nn.Module, *, has_bank: bool = False) -> list[Site]:
        return self.saved_sites(base)


# ---- copies, checkpoints and compilers -----------------------------------------------------------


@pytest.mark.parametrize("way", [Way("bitfit"), Way("point_peft", True)], ids=str)
def test_a_copy_made_while_adapters_rest_is_awake(way: Way):
    model = way.awake()
    call = points()
    expected = model(**call)
    with model.disable_adapter():
        copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for duplicate in copies:
        assert duplicate.active_adapter == "default"
        assert torch.equal(duplicate(**call), expected)
        duplicate.set_adapter("default")


@pytest.mark.parametrize("way", [Way("bitfit"), Way("full_fine_tuning")], ids=str)
def test_threads_recompute_their_own_blocks(way: Way):
    """A block is recomputed with the adapter, or without, as its forward ran."""

    def recomputed(model: PeftModel) -> PeftModel:
        for block in model.base.get_submodule("blocks").children():
            run = block.forward
            block.forward = lambda *a, f=run, **k: checkpoint(f, *a, use_reentrant=False, **k)
        return model

    def gradient(model: PeftModel, number: int, rests: bool) -> Tensor:
        call = points((9 + number, 3), seed=number)
        pos = call["pos"].requires_grad_()
        if not rests:
            return torch.autograd.grad(model(**call).square().sum(), pos)[0]
        with model.disable_adapter():
            return torch.autograd.grad(model(**call).square().sum(), pos)[0]

    model = way.awake()
    jobs = [(number, bool(number % 2)) for number in range(4)]
    expected = [gradient(model, *job) for job in jobs]
    model = recomputed(model)
    with ThreadPoolExecutor(len(jobs)) as pool:
        for _ in range(2):
            found = pool.map(lambda job: gradient(model, *job), jobs)
            for wanted, got in zip(expected, found, strict=True):
                torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-7)


def test_a_compiled_layer_rests_in_one_thread_only():
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)).eval()
    model = get_peft_model(base, BitFitConfig(modules_to_save=()))
    randomize_(model, torch.Generator().manual_seed(1)).eval()
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    tuned = model(X)
    with model.disable_adapter():
        reference = model(X)
        assert torch.equal(compiled(X), reference)
        thread, results = in_thread(lambda: compiled(X))
        assert done(thread, 60) and torch.equal(results[0], tuned)
    assert not torch.equal(tuned, reference) and torch.equal(compiled(X), tuned)


@pytest.mark.slow
@pytest.mark.parametrize("way", [Way("bitfit"), Way("lora")], ids=str)
def test_a_compiled_model_rests_in_one_thread_only(way: Way):
    model = way.awake()
    call = model.precompute(**points())
    tuned = model(**call)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(**call), tuned)
    with model.disable_adapter():
        reference = model(**call)
        torch.testing.assert_close(compiled(**call), reference)
        thread, results = in_thread(lambda: compiled(**call))
        assert done(thread, 60)
        torch.testing.assert_close(results[0], tuned)
    assert not torch.allclose(tuned, reference)
    torch.testing.assert_close(compiled(**call), tuned)
