"""Export of a model to a file that runs without this package: torch.export or ONNX."""

import contextlib
import importlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from pyg_peft.deployment.graph import ServedModel, trace
from pyg_peft.deployment.onnx_operators import translations
from pyg_peft.errors import MissingExtraError, check_module, described, printable
from pyg_peft.storage import write_atomic

#: File inside a torch.export archive, and key inside an ONNX file, with names and settings as JSON.
DETAILS = "pyg_peft.json"


def export_model(
    model: nn.Module,
    path: str | Path,
    *,
    format: str = "onnx",
    normalize: bool = False,
    roll: int = 0,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write a model to a file in which sampling and neighbor search are part of the graph.

    The inputs are ``pos [N, 3]`` and ``batch [N]`` (int64, sorted cloud ids), and ``x [N, C]`` for
    a model with point features. The numbers of points and of clouds are free, at least one of each.
    The output is named ``logits``.

    Args:
        model: A backbone or a ``PeftModel``, with its memory bank if it has one. It is exported in
            eval mode; its own mode is restored.
        path: File to write; by custom ``.onnx`` or ``.pt2``.
        format: ``"onnx"`` or ``"torch_export"``.
        normalize: Whether the graph centers each cloud and scales it into the unit sphere.
        roll: Number of places to roll the axes of the positions, which turns another axis up.
        details: JSON values to store in the file, such as names of classes.

    Raises:
        MissingExtraError: If a package for ONNX is missing.
        ValueError: If the format is unknown, or the model cannot be exported, or its scores in
            onnxruntime differ; the message names the reason. Nothing is written then.
        TypeError: If ``model`` is not a module.

    Example:
        >>> import tempfile, torch
        >>> from pyg_peft.backbones import PointNet
        >>> path = tempfile.mkdtemp() + "/model.pt2"
        >>> model = PointNet(4, transforms=False).eval()
        >>> export_model(model, path, format="torch_export")
        >>> pos, batch = torch.randn(70, 3), torch.arange(2).repeat_interleave(35)
        >>> served = torch.export.load(path).module()
        >>> torch.allclose(served(pos, batch), model(pos=pos, batch=batch), atol=1e-6)
        True
    """
    check_module(model, "model")
    if format not in FORMATS:
        raise ValueError(f"Expected 'format' to be one of {', '.join(FORMATS)} (got {format!r})")
    if format == "onnx":
        _require_onnx()
    if not hasattr(torch.compiler, "is_exporting"):
        raise ValueError(
            f"Expected torch of at least 2.7 to export models (got {torch.__version__})"
        )
    if Path(path).is_dir():
        raise ValueError(f"Expected 'path' to be a file (got the folder '{path}')")
    base = getattr(model, "base", model)
    channels = getattr(base, "in_channels", 0)
    text = json.dumps(dict(details or {}), sort_keys=True)
    with _resting(model), _quiet():
        try:
            program = trace(ServedModel(model, normalize=normalize, roll=roll).eval(), channels)
            content = FORMATS[format](program, text)
            if format == "onnx":
                _compare(content, program, channels)
        except Exception as error:
            name = type(base).__name__
            raise ValueError(
                f"Expected the model to be exportable to {format} (got a {name} for which this is "
                f"not supported: {_first_line(error)}); docs/deployment.md lists the models that "
                "are"
            ) from error
    write_atomic(path, lambda temporary: temporary.write_bytes(content))


def _to_torch(program: ExportedProgram, details: str) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={DETAILS: details})
    return buffer.getvalue()


def _to_onnx(program: ExportedProgram, details: str) -> bytes:
    converted: Any = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        # The optimizer takes small constants for zero, and removes the epsilon of a division.
        optimize=False,
        output_names=["logits"],
        custom_translation_table=translations(),
    )
    converted.model.metadata_props[DETAILS] = details
    return converted.model_proto.SerializeToString()


def _compare(content: bytes, program: ExportedProgram, channels: int) -> None:
    """Raise ``ValueError`` if onnxruntime, where it is installed, gives other scores."""
    try:
        import onnxruntime
    except ImportError:
        return
    generator = torch.Generator().manual_seed(0)
    count = torch.tensor([70, 50])
    inputs = {
        "pos": torch.randn(int(count.sum()), 3, generator=generator),
        "batch": torch.arange(2).repeat_interleave(count),
    }
    if channels:
        inputs["x"] = torch.randn(int(count.sum()), channels, generator=generator)
    with torch.no_grad():
        expected = program.module()(*inputs.values())
    session = onnxruntime.InferenceSession(content)
    found: Any = session.run(["logits"], {k: v.numpy() for k, v in inputs.items()})[0]
    if not torch.allclose(torch.from_numpy(found), expected, rtol=1e-3, atol=1e-3):
        raise ValueError("its scores in onnxruntime differ from those in torch")


#: Format to the function that converts a traced graph.
FORMATS: dict[str, Callable[[ExportedProgram, str], bytes]] = {
    "torch_export": _to_torch,
    "onnx": _to_onnx,
}


def _require_onnx() -> None:
    for package in ("onnx", "onnxscript"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingExtraError(package, "export") from error


@contextlib.contextmanager
def _resting(model: nn.Module) -> Generator[None]:
    """Put a model in eval mode within the context, on the CPU."""
    devices = {tensor.device.type for tensor in (*model.parameters(), *model.buffers())}
    if devices - {"cpu"}:
        raise ValueError(
            f"Expected 'model' to be on the CPU (got {', '.join(sorted(devices))}); move it by "
            ".cpu()"
        )
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Hide what torch's exporters say about themselves: missing torchvision, deprecations."""
    loggers: Sequence[logging.Logger] = [
        logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for kind in (FutureWarning, DeprecationWarning, UserWarning):
                warnings.simplefilter("ignore", kind)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return printable(lines[0])[:200] if lines else described(error)


__all__ = ["DETAILS", "FORMATS", "export_model"]
