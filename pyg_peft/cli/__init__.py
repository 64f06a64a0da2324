"""The command ``pyg-peft``: a thin layer over the library, and the only code that prints.

Each command is a function in its own module. jsonargparse builds the options from the function's
signature and docstring, and also reads them from ``--config file.yaml``. Only the module of the
requested command is imported.
"""

import logging
import os
import shlex
import sys
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from pyg_peft.cli.say import PrintableFormatter, complain
from pyg_peft.errors import MissingExtraError

# command -> module, description
COMMANDS = {
    "fit": ("pyg_peft.cli.fit", "tune a backbone on labeled clouds and save the adapter"),
    "evaluate": ("pyg_peft.cli.evaluate", "test a saved adapter"),
    "predict": (
        "pyg_peft.cli.predict",
        "classify files or label their points with an adapter",
    ),
    "compare": ("pyg_peft.cli.compare", "compare methods on your own data, with a report"),
    "inspect": ("pyg_peft.cli.inspect", "show what a method trains, where, and what stays frozen"),
    "push": ("pyg_peft.cli.push", "upload a saved adapter to the Hugging Face Hub"),
    "pretrain": ("pyg_peft.cli.pretrain", "pre-train a Point-MAE on unlabeled clouds"),
    "merge": ("pyg_peft.cli.merge", "fold an adapter into its base and write the whole model"),
    "export": ("pyg_peft.cli.export", "write a model as ONNX or torch.export"),
    "demo": ("pyg_peft.cli.demo", "tune, compare and predict, in minutes, on a CPU"),
}
# Commands that can continue after an interruption, and the options to add for that.
RESUMABLE = {"fit": ("--resume", "true"), "pretrain": (), "demo": (), "compare": ()}
INTERRUPTED = 130  # exit code after SIGINT, as in shells
# Exceptions whose message is enough for a user.
MISTAKES = (ValueError, TypeError, OSError, ImportError, FloatingPointError)
# Modules that were imported by name, for processes that a command starts.
IMPORTED: list[str] = []
EXTRA = {"jsonargparse": "train", "lightning": "train", "torchmetrics": "train"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake ends in a short message and exit code 2."""
    given = list(sys.argv[1:] if argv is None else argv)
    modules, arguments = _modules_to_import(given)
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_usage())
        return 0
    if arguments[0] == "--version":
        from pyg_peft import __version__

        sys.stdout.write(f"pyg-peft {__version__}\n")
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        complain(f"Expected a command of {', '.join(COMMANDS)} (got {name!r})")
        return 2
    try:
        _import_modules(modules)
        return _run(name, arguments[1:])
    except BrokenPipeError:
        return 0  # the reader closed the pipe
    except (KeyboardInterrupt, ArgumentError, *MISTAKES) as error:
        if "--traceback" in arguments:
            raise
        return _explain(error, name, modules, arguments)


def _explain(
    error: BaseException, name: str, modules: Sequence[str], arguments: Sequence[str]
) -> int:
    """Print why a command ended, without a traceback, and return its exit code."""
    if isinstance(error, KeyboardInterrupt):
        if int(os.environ.get("LOCAL_RANK", "0")) == 0:  # only one of several processes prints
            sys.stderr.write(f"pyg-peft {name}: interrupted{_how_to_resume(modules, arguments)}\n")
        return INTERRUPTED
    if isinstance(error, ArgumentError):
        line = " ".join(str(error).split())
        complain(f"pyg-peft {name}: {line}\n(pyg-peft {name} --help lists the options)")
    else:
        complain(f"pyg-peft {name}: {error}\n(--traceback shows where)")
    return 2


def make_parser(name: str) -> tuple[Any, Callable[..., Any]]:
    """Return the parser of a command's options, and the function that runs the command.

    Args:
        name: Name of the command, a key of :data:`COMMANDS`.

    Raises:
        MissingExtraError: If a package that the command needs is not installed.
    """
    try:
        from jsonargparse import (
            ActionConfigFile,  # pyright: ignore[reportPrivateImportUsage]
            ArgumentParser,
        )

        from pyg_peft.cli.bounded_yaml import MODE, register
        from pyg_peft.cli.help_format import TableHelpFormatter

        register()
        module = import_module(COMMANDS[name][0])
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        raise MissingExtraError(error.name, EXTRA[error.name]) from error
    parser = ArgumentParser(
        prog=f"pyg-peft {name}",
        description=module.__doc__,
        exit_on_error=False,
        parser_mode=MODE,
        formatter_class=TableHelpFormatter,
    )
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with these options")
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    module.add_arguments(parser)
    return parser, module.run


def _run(name: str, arguments: list[str]) -> int:
    parser, run = make_parser(name)
    _check_arguments(arguments)
    rewrite = getattr(import_module(COMMANDS[name][0]), "rewrite", None)
    arguments = rewrite(arguments) if rewrite else arguments
    # After the imports, because Lightning sets its own levels. Its warnings are kept.
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("pyg_peft").setLevel(logging.INFO)
    # Until jsonargparse 4.4x this method was named instantiate_classes.
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    values = vars(instantiate(parser.parse_args(arguments)))
    result = run(**{k: v for k, v in values.items() if k not in ("config", "traceback")})
    return getattr(result, "exit_code", 0)


def _modules_to_import(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split the options ``--import MODULE`` before the command from the other arguments."""
    modules: list[str] = []
    while arguments and arguments[0].partition("=")[0] == "--import":
        _, equals, name = arguments[0].partition("=")
        taken = 1 if equals else 2
        modules.append(name if equals else "".join(arguments[1:2]))
        arguments = arguments[taken:]
    return modules, arguments


def _import_modules(names: Sequence[str]) -> None:
    """Import modules that register methods, backbones, data or tasks, also from the current folder.

    Only modules named on the command line are imported; files cannot name code.
    """
    if names and "" not in sys.path:
        sys.path.insert(0, "")
    for name in names:
        try:
            import_module(name)
            IMPORTED.append(name)
        except ImportError as error:
            raise ImportError(
                f"Expected '--import' to name a module (got {name!r}: {error})"
            ) from error


def _how_to_resume(modules: Sequence[str], arguments: Sequence[str]) -> str:
    """Return a hint with the command that continues an interrupted one, if that is possible."""
    if arguments[0] not in RESUMABLE:
        return ""
    more = RESUMABLE[arguments[0]]
    if " ".join(more) in " ".join(arguments).replace("--resume=", "--resume "):
        more = ()
    imported = [f"--import={name}" for name in modules]
    return f"; to resume: {shlex.join(['pyg-peft', *imported, *arguments, *more])}"


def _check_arguments(arguments: list[str]) -> None:
    """Raise unless the argument values, which may be YAML, stay small when they are parsed."""
    from pyg_peft.cli.bounded_yaml import TooLarge, check_text

    for argument in arguments:
        for text in (argument, argument.partition("=")[2]):
            try:
                check_text(text)
            except TooLarge as error:
                raise ValueError(f"{error}, in {argument[:40]!r}") from error


def _usage() -> str:
    lines = ["usage: pyg-peft [--import MODULE] COMMAND [options]", ""]
    lines += [f"  {name:10s} {text}" for name, (_, text) in COMMANDS.items()]
    lines += ["", "pyg-peft COMMAND --help lists the options of a command."]
    lines += [
        "--import names a module of yours that registers methods, backbones, data or tasks.",
        "",
    ]
    return "\n".join(lines)


__all__ = ["COMMANDS", "IMPORTED", "main", "make_parser"]
