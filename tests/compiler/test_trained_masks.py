"""What every method trains compiles to an engine that is exactly the masked model."""

from __future__ import annotations

import copy

import torch

from sparsefx.compiler.compile import compile
from tests.training.helpers import EXAMPLE, Residual, batch, seeded, train
from tests.training.methods import STEPS, Case, every_method

TIGHT = 1e-9


@every_method
def test_trained_masks_compile_exactly(case: Case) -> None:
    model = seeded(Residual)
    sparsifier = case(model)
    train(model, sparsifier, STEPS)
    model.eval()
    masks = sparsifier.masks()
    images, _ = batch(7, size=16)

    double = copy.deepcopy(model).double()
    slim = compile(double, (EXAMPLE[0].double(),), masks=masks, target="torch", tolerance=TIGHT).graph_module
    with torch.no_grad():
        wanted, found = double(images.double()), slim(images.double())
    assert float(((found - wanted) / wanted.std(0)).abs().max()) < TIGHT

    engine = compile(model, EXAMPLE, masks=masks, threads=1).engine()  # refused by itself above its tolerance
    with torch.no_grad():
        error = (engine(images) - model(images)).abs() / model(images).std(0)
    assert float(error.max()) < 3e-4
