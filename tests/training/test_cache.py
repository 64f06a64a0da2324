from typing import Any

import pytest
import torch
from torch_geometric.loader import DataLoader

from pyg_peft import FullFineTuningConfig, LinearProbeConfig, MemoryBank, PointPEFTConfig
from pyg_peft.backbones import PointMAE
from pyg_peft.datasets import Augmented, ProceduralShapes, ScaleTranslate
from pyg_peft.errors import CheckpointError
from pyg_peft.model import PeftModel, get_peft_model
from pyg_peft.tensor_file import read_tensors, write_tensors
from pyg_peft.training.data.cache import FeatureCache


def tuned(seed: int = 0) -> tuple[PeftModel, Augmented]:
    torch.manual_seed(seed)
    base = PointMAE(12, embed_dim=24, depth=2, num_heads=3, num_centers=16, patch_size=8)
    shapes = ProceduralShapes(num_shapes=12, num_points=64)
    bank = MemoryBank.from_loader(base, DataLoader(shapes, batch_size=5))
    model = get_peft_model(base, PointPEFTConfig(k=4, num_prompts=5), memory_bank=bank)
    return model.eval(), Augmented(shapes, ScaleTranslate(), num_views=2)


def batch(views: Augmented, rows: list[int]):
    chosen: Any = views[rows]
    return next(iter(DataLoader(chosen, batch_size=len(rows))))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_cached_and_uncached_logits_agree_to_the_bit(dtype):
    model, views = tuned()
    cache = FeatureCache(model)
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        for rows in ([0, 1, 2, 3], [3, 5, 1, 0], [5, 2, 3, 4]):  # second and third: some are known
            data = batch(views, rows)
            plain = model(data.x, data.pos, data.batch, data.num_graphs)
            assert torch.equal(model(**cache(data)), plain)
    assert len(cache) == 6


def test_training_through_the_cache_takes_the_same_step():
    gradients = []
    for cached in (False, True):
        model, views = tuned()
        model.train()
        data = batch(views, [0, 1, 2, 3])
        call = FeatureCache(model)(data) if cached else {"pos": data.pos, "batch": data.batch}
        torch.manual_seed(0)
        model(sample_id=data.sample_id, **call).square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) > 0
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_views_have_entries_of_their_own():
    model, views = tuned()
    cache = FeatureCache(model)
    first = cache(batch(views, [0, 1]))["tokens"]
    views.set_epoch(1)
    assert not torch.equal(cache(batch(views, [0, 1]))["tokens"], first)
    views.set_epoch(2)
    assert torch.equal(cache(batch(views, [0, 1]))["tokens"], first)
    assert len(cache) == 4


def test_ragged_clouds_keep_their_masks():
    model, _ = tuned()
    small: list[Any] = [ProceduralShapes(num_shapes=3, num_points=n)[n % 3] for n in (40, 5, 9)]
    data = next(iter(DataLoader(small, batch_size=3)))
    data.sample_id = torch.arange(3)
    plain = model(pos=data.pos, batch=data.batch, batch_size=3)
    assert torch.equal(model(**FeatureCache(model)(data)), plain)


def test_files_are_whole_and_belong_to_one_base_and_transform(tmp_path):
    model, views = tuned()
    cache, path = FeatureCache(model, "a"), tmp_path / "features.safetensors"
    data = batch(views, [0, 1, 2])
    expected = model(**cache(data))
    cache.save(path)
    again = FeatureCache(model, "a")
    again.load(path)
    assert len(again) == 3
    assert torch.equal(model(**again(data)), expected)
    for other in (FeatureCache(model, "b"), FeatureCache(tuned(seed=1)[0], "a")):
        with pytest.raises(CheckpointError, match="to hold features of"):
            other.load(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256"):
        FeatureCache(model, "a").load(path)
    path.write_bytes(content[:50])
    with pytest.raises(CheckpointError, match="whole safetensors file"):
        FeatureCache(model, "a").load(path)


def test_methods_that_train_the_embedding_are_refused():
    _, views = tuned()
    base = PointMAE(12, embed_dim=24, depth=2, num_heads=3, num_centers=16, patch_size=8)
    data = batch(views, [0, 1])
    with pytest.raises(ValueError, match="leaves the patch embedding frozen"):
        FeatureCache(get_peft_model(base, FullFineTuningConfig()))(data)


def test_errors():
    base = PointMAE(12, embed_dim=24, depth=2, num_heads=3, num_centers=16, patch_size=8)
    cache = FeatureCache(get_peft_model(base, LinearProbeConfig()))
    data = batch(tuned()[1], [0])
    del data.sample_id
    with pytest.raises(ValueError, match="'sample_id' to cache by"):
        cache(data)
    with pytest.raises(ValueError, match="entries to save"):
        cache.save("nowhere")


def test_a_second_run_reads_the_features_of_the_first_and_ends_the_same(tmp_path, monkeypatch):
    pytest.importorskip("lightning", reason="lightning is not installed")
    from pyg_peft.training.fitting.data_module import ShapeDataModule
    from pyg_peft.training.fitting.run import FitOptions, fit

    def run(name: str, caches: Any = None, **options: Any):
        torch.manual_seed(0)
        shapes = ProceduralShapes(num_shapes=24, num_points=64)
        data = ShapeDataModule(shapes, None, shapes, num_views=1, batch_size=4)
        base = PointMAE(12, embed_dim=24, depth=2, num_heads=3, num_centers=16, patch_size=8)
        model = get_peft_model(base, PointPEFTConfig(k=4, num_prompts=5))
        if caches == {}:
            caches |= {stage: FeatureCache(model) for stage in ("train", "val", "test")}
        report = fit(
            model,
            data,
            tmp_path / name,
            options=FitOptions(logger="none", **options),
            caches=caches,
            trainer={"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False},
        )
        assert report.val is not None and report.test is not None
        return report.curves, report.val.confusion.tolist(), report.test.confusion.tolist()

    caches: dict[str, FeatureCache] = {}
    plain = run("plain")
    assert run("kept", caches) == plain
    assert run("own", cache=True) == plain
    assert [len(caches[stage]) for stage in ("train", "val", "test")] == [12, 12, 24]
    monkeypatch.setattr(PeftModel, "precompute", None)  # nothing is left to compute
    assert run("again", caches) == plain


def test_a_cache_of_training_clouds_wants_views(tmp_path):
    pytest.importorskip("lightning", reason="lightning is not installed")
    from pyg_peft.training.fitting.data_module import ShapeDataModule
    from pyg_peft.training.fitting.run import fit

    model, _ = tuned()
    data = ShapeDataModule(ProceduralShapes(num_shapes=24, num_points=64), batch_size=8)
    with pytest.raises(ValueError, match="fixed number of views"):
        fit(model, data, tmp_path / "run", caches={"train": FeatureCache(model)})


CHANGES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"identity": None}, {}, "to hold features of"),
    ({"keys": None}, {}, "'keys'"),
    ({"keys": [[0, 0]]}, {}, "'keys'"),
    ({"keys": [["0", 0, "none"]]}, {}, "'keys'"),
    ({"keys": [[0, 0, "none"]] * 3}, {}, "'tokens' .* for 3 entries"),
    ({}, {"tokens": None}, "to hold tokens"),
    ({}, {"query": None}, "'query'"),
    ({}, {"center": torch.zeros(2, 16, 2)}, "'center'"),
    ({}, {"center": torch.zeros(2, 16, 3, dtype=torch.bool)}, "'center'"),
    ({}, {"mask": torch.ones(2, 16)}, "'mask'"),
    ({}, {"tokens": torch.zeros(())}, "'tokens'"),
    ({}, {"other": torch.zeros(2, 1)}, "'other'"),
]


@pytest.mark.parametrize(("content", "changed", "message"), CHANGES, ids=[m for *_, m in CHANGES])
def test_a_malformed_file_is_refused_by_the_name_of_what_is_wrong(
    content, changed, message, tmp_path
):
    model, views = tuned()
    cache = FeatureCache(model)
    cache(batch(views, [0, 1]))
    cache.save(tmp_path / "cache")
    held, tensors = read_tensors(tmp_path / "cache", "a cache of features", 1)
    tensors = {k: t for k, t in {**tensors, **changed}.items() if t is not None}
    write_tensors(tmp_path / "cache", "a cache of features", tensors, {**held, **content})
    fresh = FeatureCache(model)
    with pytest.raises(CheckpointError, match=message):
        fresh.load(tmp_path / "cache")
    assert len(fresh) == 0
