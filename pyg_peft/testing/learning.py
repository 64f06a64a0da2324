"""Checks of what a training step changes and what it must not change."""

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pyg_peft.testing.clouds import Call, Clouds, call_flat


def assert_gradients(
    module: nn.Module,
    clouds: Clouds,
    *,
    call: Call = call_flat,
    may_be_zero: Collection[str] = (),
) -> None:
    """Fail unless every trainable parameter gets a nonzero gradient and no frozen one gets any.

    Randomize the module first: gradients behind weights of zero are zero.

    Args:
        module: Module whose parameters are checked. Its current gradients are discarded.
        clouds: Input of the module.
        call: How to call the module.
        may_be_zero: Names of parameters whose gradient is known to vanish.

    Example:
        >>> import torch
        >>> from pyg_peft.testing import assert_gradients, random_clouds
        >>> clouds = random_clouds([3], generator=torch.Generator().manual_seed(0))
        >>> layers = torch.nn.ModuleList([torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)]).double()
        >>> assert_gradients(layers, clouds, call=lambda module, clouds: module[0](clouds.x))
        Traceback (most recent call last):
        ...
        AssertionError: Dead parameters: 1.weight, 1.bias
    """
    module.zero_grad(set_to_none=True)
    _loss(call(module, clouds)).backward()
    dead: list[str] = []
    for name, parameter in module.named_parameters():
        grad = parameter.grad
        if not parameter.requires_grad:
            if grad is not None:
                raise AssertionError(f"The frozen parameter {name} received a gradient")
        elif grad is None or (name not in may_be_zero and not bool((grad != 0).any())):
            dead.append(name)
        elif not bool(torch.isfinite(grad).all()):
            raise AssertionError(f"The gradient of {name} is not finite")
    module.zero_grad(set_to_none=True)
    if dead:
        raise AssertionError(f"Dead parameters: {', '.join(dead)}")


def assert_frozen_after_step(
    module: nn.Module,
    clouds: Clouds,
    *,
    call: Call = call_flat,
    moving_buffers: Collection[str] = (),
) -> None:
    """Fail if two training steps change any bit of a frozen parameter or buffer.

    The module is put in training mode, as in any training loop. A buffer is frozen unless its
    module also has a trainable parameter, such as the norm of an adapter.

    Args:
        module: Module to train for two steps with weight decay and momentum. Its weights change.
        clouds: Input of the module.
        call: How to call the module.
        moving_buffers: Names of further buffers that are meant to change.

    Example:
        >>> import torch
        >>> from pyg_peft.testing import assert_frozen_after_step, random_clouds
        >>> clouds = random_clouds([4], generator=torch.Generator().manual_seed(0))
        >>> net = torch.nn.Sequential(torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2)).double()
        >>> _ = net[0].requires_grad_(False)        # its statistics still drift
        >>> assert_frozen_after_step(net, clouds, call=lambda module, clouds: module(clouds.x))
        Traceback (most recent call last):
        ...
        AssertionError: Moved although frozen: 0.running_mean, 0.running_var, 0.num_batches_tracked
    """
    module.train()
    frozen = {name: value.detach().clone() for name, value in _frozen(module, moving_buffers)}
    trained = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}
    if not trained:
        raise AssertionError("Nothing is trainable")
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        _loss(call(module, clouds)).backward()
        optimizer.step()
    after = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    moved = [name for name, value in frozen.items() if not torch.equal(after[name], value)]
    if moved:
        raise AssertionError(f"Moved although frozen: {', '.join(moved)}")
    if all(torch.equal(after[name], value) for name, value in trained.items()):
        raise AssertionError("Two training steps changed nothing")


def assert_checkpoints(module: nn.Module, clouds: Clouds, *, call: Call = call_flat) -> None:
    """Fail unless activation checkpointing gives the same gradients as an ordinary pass.

    Args:
        module: Module without active dropout.
        clouds: Input of the module.
        call: How to call the module.

    Example:
        >>> import torch
        >>> from pyg_peft.testing import assert_checkpoints, random_clouds
        >>> clouds = random_clouds([3], generator=torch.Generator().manual_seed(0))
        >>> layer = torch.nn.Linear(8, 2).double()
        >>> assert_checkpoints(layer, clouds, call=lambda module, clouds: module(clouds.x))
    """

    def output(x: Tensor, pos: Tensor) -> Tensor:
        return call(module, Clouds(x, pos, clouds.batch, clouds.batch_size))

    found: list[dict[str, Tensor]] = []
    for recompute in (False, True):
        module.zero_grad(set_to_none=True)
        leaves = clouds.leaves()
        if recompute:
            result = checkpoint(output, leaves.x, leaves.pos, use_reentrant=False)
        else:
            result = output(leaves.x, leaves.pos)
        _loss(result).backward()
        found.append({n: p.grad for n, p in module.named_parameters() if p.grad is not None})
        if leaves.x.grad is not None:
            found[-1]["x"] = leaves.x.grad
    module.zero_grad(set_to_none=True)
    plain, recomputed = found
    if plain.keys() != recomputed.keys():
        raise AssertionError(f"Checkpointing loses gradients: {set(plain) ^ set(recomputed)}")
    for name, grad in plain.items():
        torch.testing.assert_close(
            recomputed[name], grad, msg=lambda text, n=name: f"Checkpointing changes {n}. {text}"
        )


def _loss(output: Tensor) -> Tensor:
    """Return a loss with different weights, so that gradients do not cancel by symmetry."""
    weights = torch.linspace(-1.0, 1.5, output.numel(), dtype=torch.float64, device=output.device)
    return (output.reshape(-1).to(torch.float64) * (1 + weights.cos())).square().mean()


def _frozen(module: nn.Module, moving: Collection[str]) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter and buffer that must not change in training."""
    for prefix, owner in module.named_modules():
        own = list(owner.named_parameters(recurse=False))
        buffers = list(owner.named_buffers(recurse=False))
        trained = any(parameter.requires_grad for _, parameter in own)
        still = [(n, p) for n, p in own if not p.requires_grad] + ([] if trained else buffers)
        for name, value in still:
            full = f"{prefix}.{name}" if prefix else name
            if full not in moving:
                yield full, value
