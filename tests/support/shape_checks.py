"""Check the jaxtyping shapes of pyg_peft's functions while the tests run.

An import hook wraps every function of the package that mentions a jaxtyping alias. Two things
differ from jaxtyping's own hook, both measured:

- Arguments are judged after the call, not before it. A call that raises is judged by the error that
  its user will see; a call that returns must have had arguments, and a result, of the declared
  shapes. Checking first would put the checker's message in the place of the library's own.
- Nothing happens while a graph is being compiled: jaxtyping's wrapper breaks
  ``torch.compile(fullgraph=True)``, and under the compiler this one is the bare function.

Annotations without a jaxtyping alias are left to the static type checker. PyG's ``message`` and its
kin are annotated with plain tensors and are therefore never wrapped.
"""

import functools
import inspect
import sys
import threading
import types
import typing
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from typing import Any

import torch
from beartype import beartype
from jaxtyping import AbstractArray, jaxtyped


def mentions_shape(annotation: Any) -> bool:
    """Whether a jaxtyping alias occurs anywhere in ``annotation``."""
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return True
    return any(mentions_shape(part) for part in typing.get_args(annotation))


def shape_signature(function: types.FunctionType) -> inspect.Signature | None:
    """Return the signature with all but the shapes blanked out, or ``None`` if it has no shape."""
    signature = inspect.signature(function)
    hints = {name: resolve(hint, function) for name, hint in function.__annotations__.items()}
    hints = {name: hint for name, hint in hints.items() if mentions_shape(hint)}
    if not hints:
        return None
    parameters = [
        parameter.replace(annotation=hints.get(name, Any))
        for name, parameter in signature.parameters.items()
    ]
    return signature.replace(parameters=parameters, return_annotation=hints.get("return", Any))


def resolve(annotation: Any, function: types.FunctionType) -> Any:
    """Return the annotation that a string stands for; a name known to type checkers only is Any."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, function.__globals__)
    except NameError:
        return Any


def checked(function: types.FunctionType) -> Callable[..., Any]:
    """Wrap ``function`` so that a call which returns must agree with its shape annotations."""
    signature = shape_signature(function)
    if signature is None:
        return function

    local = threading.local()  # several threads may be in one function

    def replay(*args: Any, **kwargs: Any) -> Any:
        return local.results[-1]

    functools.update_wrapper(replay, function, updated=())
    replay.__signature__ = signature  # type: ignore[attr-defined]
    judge = jaxtyped(replay, typechecker=beartype)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if not torch.compiler.is_compiling():
            results = local.__dict__.setdefault("results", [])
            results.append(result)
            try:
                judge(*args, **kwargs)
            finally:
                results.pop()
        return result

    return wrapper


def check_namespace(owner: Any, module_name: str) -> None:
    """Wrap the functions of a module or class in place, and those of the classes within."""
    for name, value in list(vars(owner).items()):
        if isinstance(value, types.FunctionType) and value.__module__ == module_name:
            setattr(owner, name, checked(value))
        elif isinstance(value, staticmethod | classmethod):
            inner = value.__func__
            if isinstance(inner, types.FunctionType) and inner.__module__ == module_name:
                setattr(owner, name, type(value)(checked(inner)))
        elif isinstance(value, type) and value.__module__ == module_name and value is not owner:
            check_namespace(value, module_name)


class CheckedLoader(SourceFileLoader):
    """Loads a module, then wraps its functions."""

    def exec_module(self, module: types.ModuleType) -> None:
        super().exec_module(module)
        check_namespace(module, module.__name__)


class CheckedFinder(MetaPathFinder):
    """Finds the modules of one package for :class:`CheckedLoader`."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: types.ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname != self.package and not fullname.startswith(self.package + "."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = CheckedLoader(spec.loader.name, spec.loader.path)
        return spec


def install(package: str) -> None:
    """Check ``package`` from its first import on."""
    if package in sys.modules:
        raise RuntimeError(f"'{package}' was imported before its shapes could be checked")
    sys.meta_path.insert(0, CheckedFinder(package))
