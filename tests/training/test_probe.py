import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.data.data import BaseData
from torch_geometric.loader import DataLoader

from pyg_peft.backbones import PointMAE
from pyg_peft.training.evaluation.probe import fit_linear, fit_probe, frozen_features


def blobs(num: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(num) % 3
    return torch.randn(num, 5, generator=generator) + 4 * torch.eye(5)[y], y


def test_fit_is_a_minimum():
    x, y = blobs(60)
    weight, bias = (value.requires_grad_() for value in fit_linear(x, y, 3, 1e-2))
    loss = torch.nn.functional.cross_entropy(x @ weight + bias, y) + 1e-2 * weight.square().sum()
    gradients = torch.autograd.grad(loss, (weight, bias))
    assert max(float(gradient.abs().max()) for gradient in gradients) < 1e-4


def test_the_penalty_is_chosen_on_validation_and_scales_do_not_matter():
    train, val, test = blobs(90), blobs(60, 1), blobs(60, 2)
    probe = fit_probe(train, val, 3, penalties=(1e-2, 1e3))
    assert probe.penalty == 1e-2 and probe.val_accuracy == probe.accuracy(*val) > 0.9
    assert probe.accuracy(*test) > 0.9
    scaled = [(1000 * x + 5, y) for x, y in (train, val)]
    assert fit_probe(scaled[0], scaled[1], 3).val_accuracy == pytest.approx(probe.val_accuracy)


def test_of_equal_accuracies_the_lower_loss_on_validation_decides():
    train, val = blobs(90), blobs(60, 1)
    x = val[0] + 3 * torch.eye(5)[val[1]]  # so far apart that every penalty is right
    probes = [fit_probe(train, (x, val[1]), 3, penalties=(penalty,)) for penalty in (0.1, 1e-3)]
    assert probes[0].val_accuracy == probes[1].val_accuracy == 1.0
    assert probes[1].val_loss < probes[0].val_loss == probes[0].loss(x, val[1])
    assert fit_probe(train, (x, val[1]), 3, penalties=(0.1, 1e-3)).penalty == 1e-3


def test_features_are_the_input_of_the_head():
    torch.manual_seed(0)
    model = PointMAE(4, 12, 1, 3, 6, 4)
    clouds: list[BaseData] = [
        Data(pos=torch.randn(n, 3), y=torch.tensor([n % 4])) for n in (30, 9, 5)
    ]
    x, y = frozen_features(model, DataLoader(clouds, batch_size=2))
    assert y.tolist() == [2, 1, 1] and x.shape == (3, 24)
    (whole,) = DataLoader(clouds, batch_size=3)
    torch.testing.assert_close(model.head(x), model(pos=whole.pos, batch=whole.batch))


def test_errors():
    with pytest.raises(ValueError, match="'penalties' to hold at least one value"):
        fit_probe(blobs(9), blobs(9), 3, penalties=())
    with pytest.raises(ValueError, match="'loader' to give at least one batch"):
        frozen_features(PointMAE(4, 12, 1, 3, 6, 4), [])
