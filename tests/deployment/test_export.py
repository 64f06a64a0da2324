"""Exported files give what eager gives, for other numbers of points and of clouds."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_peft import LoRAConfig, MemoryBank, PointPEFTConfig, get_peft_model
from pyg_peft.backbones import DGCNN, PointMAE, PointNet, PointNetPlusPlus
from pyg_peft.datasets import Normalize
from pyg_peft.deployment import export_model
from pyg_peft.deployment.export import DETAILS
from pyg_peft.errors import MissingExtraError
from pyg_peft.testing import randomize_

#: Of scores around one in float32; sums are taken in another order.
TOLERANCE = 1e-5


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def point_mae() -> PointMAE:
    return PointMAE(4, embed_dim=24, depth=2, num_heads=3, num_centers=8, patch_size=4)


def lora() -> nn.Module:
    model = get_peft_model(point_mae(), LoRAConfig(rank=2))
    randomize_(model, seeded())
    return model.merge_and_unload()


def point_peft(*, has_bank: bool) -> nn.Module:
    bank = None
    if has_bank:
        keys, values = torch.randn(2, 30, 24, generator=seeded(1))
        bank = MemoryBank(F.normalize(keys, dim=1), values)
    config = PointPEFTConfig(bottleneck_channels=4, num_prompts=3)
    model = get_peft_model(point_mae(), config, memory_bank=bank)
    randomize_(model, seeded())
    return model


def pointnet() -> PointNet:
    model = PointNet(4, channels=((8, 8), (8, 16, 32)), head_channels=(16, 8))
    randomize_(model, seeded())  # T-Nets start as identities
    return model


def pointnet2() -> PointNetPlusPlus:
    channels = ((8, 8), (8, 16), (16, 32))
    sizes: dict[str, Any] = {"num_centers": (12, 4), "radii": (0.4, 0.8), "patch_sizes": (6, 4)}
    return PointNetPlusPlus(4, channels=channels, head_channels=(16,), **sizes)


def dgcnn() -> DGCNN:
    return DGCNN(4, channels=((8,), (16,)), mix_channels=16, k=5, head_channels=(16,))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "point_mae": point_mae,
    "lora": lora,
    "point_peft": lambda: point_peft(has_bank=False),
    "point_peft_bank": lambda: point_peft(has_bank=True),
    "pointnet": pointnet,
    "pointnet2": pointnet2,
    "dgcnn": dgcnn,
}
# One cloud and several, of one size and ragged, one of them smaller than a patch.
SIZES = [(100,), (50, 40, 30), (3, 60), (64,) * 5]
QUICK = ("pointnet",)


def clouds(sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return 0.4 * torch.randn(len(batch), 3, generator=seeded(2)), batch


def built(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MODELS[name]().eval()


def torch_answer(path: Path) -> Callable[..., Tensor]:
    return torch.export.load(path).module()  # type: ignore[return-value]


def onnx_answer(path: Path) -> Callable[..., Tensor]:
    import onnxruntime  # pyright: ignore[reportMissingImports]

    session = onnxruntime.InferenceSession(path)

    def answer(pos: Tensor, batch: Tensor) -> Tensor:
        feed = {"pos": pos.numpy(), "batch": batch.numpy()}
        return torch.from_numpy(session.run(["logits"], feed)[0])

    return answer


def check(model: nn.Module, answer: Callable[..., Tensor]) -> None:
    seen: list[Tensor] = []
    for sizes in SIZES:
        pos, batch = clouds(sizes)
        with torch.no_grad():
            expected = model(pos=pos, batch=batch, batch_size=len(sizes))
            found = answer(pos, batch)
        torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)
        seen.append(expected)
    # The scores depend on the cloud, so that equal ones prove something.
    assert (torch.cat(seen).std(dim=0) > 10 * TOLERANCE).all()


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in MODELS]
)
def test_torch_export(name: str, tmp_path: Path):
    model = built(name)
    export_model(model, tmp_path / "model.pt2", format="torch_export")
    check(model, torch_answer(tmp_path / "model.pt2"))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in MODELS]
)
def test_onnx(name: str, tmp_path: Path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    model = built(name)
    export_model(model, tmp_path / "model.onnx", format="onnx")
    check(model, onnx_answer(tmp_path / "model.onnx"))


def test_preprocessing_and_details(tmp_path: Path):
    model, path = built("pointnet"), tmp_path / "model.pt2"
    model.train()
    export_model(
        model, path, format="torch_export", normalize=True, roll=1, details={"class_names": ["a"]}
    )
    assert model.training
    files = {DETAILS: ""}
    answer = torch.export.load(path, extra_files=files).module()
    assert json.loads(files[DETAILS]) == {"class_names": ["a"]}
    pos, batch = clouds((40, 25))
    pos = 7 * pos + 20
    parts = [Normalize()(Data(pos=p.roll(1, dims=1))).pos for p in pos.split([40, 25])]
    with torch.no_grad():
        expected = model.eval()(pos=torch.cat([p for p in parts if p is not None]), batch=batch)
        torch.testing.assert_close(answer(pos, batch), expected, rtol=1e-4, atol=1e-4)


def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = built("pointnet")
    with pytest.raises(ValueError, match="'format' to be one of torch_export, onnx"):
        export_model(model, tmp_path / "model", format="tflite")
    with pytest.raises(ValueError, match="'path' to be a file"):
        export_model(model, tmp_path, format="torch_export")
    with pytest.raises(TypeError, match=r"'model' to be a torch\.nn"):
        export_model(torch.relu, tmp_path / "model")  # pyright: ignore[reportArgumentType]
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"pyg-peft\[export\]"):
        export_model(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())


class Guesses(nn.Module):
    """A model whose branches depend on values."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, pos: Tensor, batch: Tensor, batch_size: int) -> Tensor:
        return self.weight if pos.sum() > 0 else -self.weight


def test_a_model_that_cannot_be_exported(tmp_path: Path):
    with pytest.raises(ValueError, match=r"exportable to torch_export \(got a Guesses"):
        export_model(Guesses(), tmp_path / "model.pt2", format="torch_export")
    assert not list(tmp_path.iterdir())
