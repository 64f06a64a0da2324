"""Checks that a tuning method starts as the identity and can be removed without a trace."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyg_peft.testing.clouds import Call, Clouds, call_flat, randomize_


def assert_identity_at_init(
    module: nn.Module,
    clouds: Clouds,
    *,
    reference: Tensor,
    generator: torch.Generator,
    call: Call = call_flat,
) -> None:
    """Fail unless a new module returns ``reference`` exactly, and something else once randomized.

    Args:
        module: Newly built module. It is put in eval mode and left with random weights.
        clouds: Input of the module.
        reference: Output of a module without effect: the features, or the logits of the base model.
        generator: Source of the random weights.
        call: How to call the module.

    Example:
        >>> import torch
        >>> from pyg_peft import Bottleneck
        >>> from pyg_peft.testing import assert_identity_at_init, random_clouds
        >>> generator = torch.Generator().manual_seed(0)
        >>> clouds = random_clouds([3], generator=generator)
        >>> assert_identity_at_init(
        ...     Bottleneck(8, 2).double(), clouds, reference=clouds.x, generator=generator,
        ...     call=lambda module, clouds: module(clouds.x),
        ... )
    """
    module.eval()
    if not torch.equal(call(module, clouds), reference):
        raise AssertionError("The module is not the identity at initialization")
    randomize_(module, generator)
    if torch.equal(call(module, clouds), reference):
        raise AssertionError("The module has no effect even with random weights")


def assert_leaves_no_trace(
    base: nn.Module,
    clouds: Clouds,
    *,
    attach: Callable[[nn.Module], nn.Module],
    detach: Callable[[Any], nn.Module],
    generator: torch.Generator,
    call: Call = call_flat,
) -> None:
    """Fail unless adapting, randomizing, training and unloading a model leaves it unchanged.

    The comparison covers the module objects with their names and classes; the keys, values and
    order of the state dict; hooks, attributes, ``requires_grad``, the mode of every module, and the
    exact output in eval mode.

    Args:
        base: The model, in any mode. It is put in eval mode at the end.
        clouds: Input of the models.
        attach: Function that puts a method on the model, such as ``get_peft_model``.
        detach: Function that removes it and returns the base model, such as ``PeftModel.unload``.
        generator: Source of the random weights in between.
        call: How to call the models.

    Example:
        >>> import torch
        >>> from pyg_peft.testing import assert_leaves_no_trace, random_clouds
        >>> generator = torch.Generator().manual_seed(0)
        >>> clouds = random_clouds([3], generator=generator)
        >>> def freeze(model):
        ...     return model.requires_grad_(False)
        >>> assert_leaves_no_trace(
        ...     torch.nn.Linear(8, 2).double(), clouds, attach=freeze, detach=lambda model: model,
        ...     generator=generator, call=lambda module, clouds: module(clouds.x),
        ... )
        Traceback (most recent call last):
        ...
        AssertionError: Left behind: requires_grad of weight, requires_grad of bias
    """
    before = _portrait(base)
    modes = {module: module.training for module in base.modules()}
    expected = call(base.eval(), clouds)
    for module, training in modes.items():
        module.training = training
    adapted = attach(base)
    randomize_(adapted, generator)
    adapted.train()
    output = call(adapted, clouds)
    if output.requires_grad:
        output.sum().backward()
    released = detach(adapted)
    if released is not base:
        raise AssertionError("Expected 'detach' to return the base model (got another object)")
    after = _portrait(base)
    traces = [key for key in {**before, **after} if not _same(before.get(key), after.get(key))]
    if traces:
        raise AssertionError(f"Left behind: {', '.join(traces)}")
    if not torch.equal(call(base.eval(), clouds), expected):
        raise AssertionError("The output of the base model has changed")


def _portrait(model: nn.Module) -> dict[str, Any]:
    """Return everything in a model that a method could leave changed."""
    portrait: dict[str, Any] = {"the keys of the state": list(model.state_dict())}
    for name, module in model.named_modules():
        where = name or "the model"
        portrait[f"the module {where}"] = (id(module), type(module))
        portrait[f"attributes of {where}"] = sorted(vars(module))
        portrait[f"the mode of {where}"] = module.training
        hooks = {key: tuple(value) for key, value in vars(module).items() if key.endswith("_hooks")}
        portrait[f"hooks of {where}"] = hooks
    for name, parameter in model.named_parameters():
        portrait[f"requires_grad of {name}"] = parameter.requires_grad
        portrait[f"the gradient of {name}"] = parameter.grad is None
        portrait[f"the object {name}"] = id(parameter)
    for name, value in model.state_dict().items():
        portrait[f"the value of {name}"] = value.clone()
    return portrait


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    return type(first) is type(second) and first == second
