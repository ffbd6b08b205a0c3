"""A slim module is trained on, with its masks, and compiled."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import sparsefx
from sparsefx import MaskSet
from sparsefx.training import Fixed
from tests.compiler.models import half_of_conv1, masked, residual
from tests.compiler.slimming.nets import Block, ablate, lively

X = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_train_on_with_masks_then_compile(tmp_path: Path) -> None:
    model = residual()
    fan_in = torch.rand(model.conv2.weight.shape, generator=torch.Generator().manual_seed(0)).argsort(1) < 5
    masks = MaskSet({**half_of_conv1(model), "conv2.weight": fan_in}, method="Own", step=7)
    small, slim_masks = sparsefx.slim(model, (X[:2],), masks)
    torch.testing.assert_close(small(X), masked(model, masks, X), rtol=1e-4, atol=1e-5)
    slim_masks.check(small)
    assert (slim_masks.method, slim_masks.step) == ("Own", 7)
    assert slim_masks.structure("conv1.weight").kind == "channel"
    before = small.conv1.weight.detach().clone()

    optimizer = torch.optim.SGD(small.parameters(), lr=0.05, momentum=0.9)
    sparsifier = Fixed(small, optimizer, masks=slim_masks)
    small.train()
    for _ in range(3):
        optimizer.zero_grad()
        small(X).square().mean().backward()
        sparsifier.step()
    small.eval()
    assert not torch.equal(before, small.conv1.weight)
    trained = sparsifier.masks()
    assert all(not small.get_parameter(name)[~mask].any() for name, mask in trained.items())
    trained.save(tmp_path / "masks.safetensors")
    compiled = sparsefx.compile(small, (X[:2],), masks=tmp_path / "masks.safetensors", threads=1)
    assert compiled.report.verification is not None
    torch.testing.assert_close(compiled.engine()(X), small(X).detach(), rtol=1e-4, atol=1e-5)


def test_carriers_are_masked_and_what_reads_them_is_not() -> None:
    model, make_inputs = lively(Block(nn.Conv2d(3, 12, 3, padding=1), 12))
    ablate(model, "first")
    small, masks = sparsefx.slim(model, make_inputs(2))
    silent = ~masks["first.weight"].flatten(1).any(1)
    assert int(silent.sum()) == 1 and not small.first.weight[silent].any()
    assert torch.equal(small.first.weight != 0, masks["first.weight"])
    assert masks.structure("first.weight").ablated == tuple(silent.nonzero().flatten().tolist())


def test_slimming_twice_finds_nothing_more() -> None:
    model, make_inputs = lively(Block(nn.Conv2d(3, 12, 3, padding=1), 12))
    ablate(model, "first", "second")
    small, masks = sparsefx.slim(model, make_inputs(2))
    smaller, _ = sparsefx.slim(small, make_inputs(2), masks)
    assert smaller.config["tensors"] == {}


class Auxiliary(nn.Module):
    """A second head that only training uses."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.extra = nn.Linear(6, 16), nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        out: Tensor = self.second(x)
        return out + self.extra(x) if self.training else out


def test_layers_that_only_training_reads_are_found() -> None:
    model, make_inputs = lively(Auxiliary(), [(6,)])
    ablate(model, "first")
    with pytest.raises(sparsefx.VerificationError, match=r"fails in training mode at .*test_training\.py:\d+ \(ret"):
        sparsefx.slim(model, make_inputs(2))
    assert not model.training


class Untrainable(nn.Sequential):
    """Training fails whatever the module's widths are."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise RuntimeError("no labels\nwere given")
        return super().forward(x)


def test_where_training_fails_anyway_a_warning_says_that_nothing_was_shown() -> None:
    model = Untrainable(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    ablate(model, "0")
    with pytest.warns(UserWarning, match=r"Untrainable itself fails in training mode on these inputs \(no labels\)"):
        small, _masks = sparsefx.slim(model, (torch.randn(2, 6),))
    assert len(small[0].weight) < 8


def test_errors_of_the_users() -> None:
    model, make_inputs = lively(Block(nn.Conv2d(3, 12, 3), 12))
    x = make_inputs(2)
    with pytest.raises(sparsefx.CaptureError, match=r"wants a torch\.nn\.Module; found a ExportedProgram"):
        sparsefx.slim(torch.export.export(model, x), x)  # type: ignore[arg-type]
    with pytest.raises(sparsefx.MaskError, match=r"no such parameter.*did you mean first\.weight"):
        sparsefx.slim(model, x, MaskSet({"fist.weight": torch.ones(12, 3, 3, 3)}))
    with pytest.raises(sparsefx.MaskError, match="masks and model do not belong together"):
        sparsefx.slim(model, x, MaskSet({"first.weight": torch.ones(11, 3, 3, 3)}))
    prune.random_unstructured(model.first, "weight", 0.5)
    with pytest.raises(sparsefx.MaskError, match=r"first.weight is under torch.nn.utils.prune.*prune.remove"):
        sparsefx.slim(model, x)


def test_a_deviation_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison can fail: a bias that is lost is found, by the graph and by the numbers."""
    import sparsefx.compiler.slimming.build as build

    model, make_inputs = lively(Block(nn.Conv2d(3, 12, 3), 12, nn.Identity()))
    ablate(model, "first")
    monkeypatch.setattr(build, "_SIZES", ())
    original = build.add_bias
    monkeypatch.setattr(build, "add_bias", lambda *args, **kwargs: original(args[0], args[1], args[2] * 1.01, **kwargs))
    monkeypatch.setattr("sparsefx.compiler.slimming.settle.first_difference", lambda meant, found: None)
    model.second = nn.Conv2d(12, 6, 1, bias=False).double()
    with pytest.raises(sparsefx.VerificationError, match=r"output 'output' of the slim module deviates .* standard"):
        sparsefx.slim(model, make_inputs(2))
