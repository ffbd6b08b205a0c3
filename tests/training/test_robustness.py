from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparsefx.passes.errors import SparsefxError
from sparsefx.training.robustness import accuracy_under, fgsm


def test_images_move_along_the_sign_of_the_gradient() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double()
    images, labels = torch.randn(5, 1, 2, 2, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    weight, bias = model.get_parameter("1.weight"), model.get_parameter("1.bias")
    wrong = (images.flatten(1) @ weight.T + bias).softmax(1) - F.one_hot(labels, 3)
    expected = images + 0.1 * (wrong @ weight).sign().reshape(images.shape)
    assert torch.equal(fgsm(model, images, labels, 0.1), expected.detach())
    assert torch.equal(fgsm(model, images, labels, 0.0), images)


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    moved = fgsm(model, torch.randn(4, 1, 2, 2), torch.zeros(4, dtype=torch.long), 0.1)
    assert model.training and not moved.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_attack_costs_accuracy_of_whoever_computes_the_same() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        model.get_parameter("1.weight").copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        model.get_parameter("1.bias").zero_()
    images = torch.tensor([[0.2, 0.0], [0.6, 0.0], [-0.2, 0.0], [-0.6, 0.0]])[:, None, :, None]
    labels = torch.tensor([0, 0, 1, 1])
    assert [accuracy_under(model, model, images, labels, e) for e in (0.0, 0.3, 0.7)] == [1.0, 0.5, 0.0]
    assert accuracy_under(model, lambda x: model(x).detach().numpy(), images, labels, 0.3) == 0.5
    with pytest.raises(SparsefxError, match="epsilon must not be negative, found -1"):
        fgsm(model, images, labels, -1)
