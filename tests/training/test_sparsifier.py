"""The core, through RigL: an optimizer to the outside, masks inside."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

from sparsefx.passes.errors import MaskError, SparsefxError
from sparsefx.training import MaskSet, RigL, Sparsifier

from .helpers import Plain, adam, assert_masked, backward, batch, same, seeded, sgd, train


def rigl(model: nn.Module, optimizer: torch.optim.Optimizer | None = None, **options: Any) -> RigL:
    defaults: dict[str, Any] = {"total_steps": 20, "update_interval": 4}
    return RigL(model, optimizer or sgd(model), **(defaults | options))


def test_it_is_an_optimizer_that_shares_state_and_groups() -> None:
    model = seeded(Plain)
    optimizer = sgd(model)
    sparsifier = rigl(model, optimizer)
    assert isinstance(sparsifier, torch.optim.Optimizer) and isinstance(sparsifier, Sparsifier)
    train(model, sparsifier, 2)
    assert sparsifier.param_groups is optimizer.param_groups
    assert sparsifier.state is optimizer.state and len(sparsifier.state) > 0
    assert sparsifier.defaults == optimizer.defaults
    extra = nn.Parameter(torch.ones(3))
    sparsifier.add_param_group({"params": [extra], "lr": 1.0})
    assert optimizer.param_groups[1]["params"] == [extra]
    assert optimizer.param_groups[1]["momentum"] == 0.9


def test_step_hooks_run_once_a_step() -> None:
    model = seeded(Plain)
    sparsifier = rigl(model)
    seen: list[str] = []
    sparsifier.register_step_pre_hook(lambda *_: seen.append("before"))
    sparsifier.register_step_post_hook(lambda *_: seen.append("after"))
    train(model, sparsifier, 5)
    assert seen == ["before", "after"] * 5


def test_zero_grad() -> None:
    model = seeded(Plain)
    sparsifier = rigl(model)
    backward(model, 0)
    sparsifier.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    sparsifier.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_learning_rate_schedulers_drive_it() -> None:
    model = seeded(Plain)
    sparsifier = rigl(model)
    scheduler = torch.optim.lr_scheduler.StepLR(sparsifier, step_size=1, gamma=0.5)
    train(model, sparsifier, 3, after=lambda step: scheduler.step())
    assert sparsifier.optimizer.param_groups[0]["lr"] == 0.05 / 8
    assert rigl(model).param_groups[0]["lr"] == 0.05


def test_the_learning_rate_counts() -> None:
    model = seeded(Plain)
    sparsifier = rigl(model)
    torch.optim.lr_scheduler.ConstantLR(sparsifier, factor=0.0, total_iters=100)
    before = [p.detach().clone() for p in model.parameters()]
    train(model, sparsifier, 3)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def scaled_backward(model: nn.Module, scaler: torch.amp.GradScaler, step: int) -> None:
    images, labels = batch(step)
    scaler.scale(F.cross_entropy(model(images), labels)).backward()  # type: ignore[no-untyped-call]


def test_grad_scaler_unscales_steps_and_skips() -> None:
    model, plain = seeded(Plain), seeded(Plain)
    sparsifier, reference = rigl(model), rigl(plain)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(6):
        sparsifier.zero_grad()
        scaled_backward(model, scaler, step)
        scaler.step(sparsifier)
        scaler.update()
    train(plain, reference, 6)
    assert sparsifier.step_count == 6 and len(sparsifier.history) == 1
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b)

    scaled_backward(model, scaler, 6)
    conv = model.get_parameter("conv2.weight")
    assert conv.grad is not None
    conv.grad[0, 0, 0, 0] = torch.inf
    before = conv.detach().clone()
    scaler.step(sparsifier)
    assert sparsifier.step_count == 6, "a skipped step does not count"
    assert torch.equal(conv, before)


def test_the_closure_is_run_and_its_loss_returned() -> None:
    model, plain = seeded(Plain), seeded(Plain)
    sparsifier, reference = rigl(model), rigl(plain)
    losses = []
    for step in range(9):

        def closure(step: int = step) -> float:
            sparsifier.zero_grad()
            return float(backward(model, step))

        losses.append(sparsifier.step(closure))
    train(plain, reference, 9)
    assert all(isinstance(loss, float) for loss in losses)
    assert sparsifier.masks() == reference.masks()
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_optimizer_that_needs_its_closure() -> None:
    model = seeded(Plain)
    lbfgs = torch.optim.LBFGS(model.parameters(), max_iter=3)
    sparsifier = rigl(model, lbfgs)

    def closure() -> float:
        sparsifier.zero_grad()
        return float(backward(model, 0))

    first, last = sparsifier.step(closure), sparsifier.step(closure)
    assert first is not None and last is not None and last < first
    assert_masked(sparsifier)


def test_gradient_accumulation_is_one_large_batch() -> None:
    model, plain = seeded(Plain).eval(), seeded(Plain).eval()
    sparsifier, reference = rigl(model), rigl(plain)
    for step in range(8):
        images, labels = batch(step, size=6)
        for half in (slice(0, 3), slice(3, 6)):
            (F.cross_entropy(model(images[half]), labels[half]) / 2).backward()  # type: ignore[no-untyped-call]
        F.cross_entropy(plain(images), labels).backward()  # type: ignore[no-untyped-call]
        for optimizer in (sparsifier, reference):
            optimizer.step()
            optimizer.zero_grad()
    assert sparsifier.masks() == reference.masks()
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_mask_update_replaces_the_optimizer_step() -> None:
    model = seeded(Plain)
    sparsifier = rigl(model, update_interval=1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model, sparsifier, 1)
    assert len(sparsifier.history) == 1
    for name, parameter in model.named_parameters():
        if name in sparsifier.layers:
            kept = sparsifier.layers[name].mask & (before[name] != 0)
            assert torch.equal(parameter[kept], before[name][kept])
        else:
            assert torch.equal(parameter, before[name])


def test_gradients_of_masked_weights_do_not_reach_the_optimizer() -> None:
    model = seeded(Plain)
    sparsifier = rigl(model)
    backward(model, 0)
    dense = nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
    sparsifier.mask_gradients()
    sparse = nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
    assert sparse < dense
    for layer in sparsifier.layers.values():
        assert layer.parameter.grad is not None
        assert not layer.parameter.grad[~layer.mask].any()


def test_gradients_stay_dense_in_front_of_a_mask_update() -> None:
    model = seeded(Plain)
    sparsifier = rigl(model, update_interval=1)
    backward(model, 0)
    before = model.get_parameter("conv2.weight").grad
    assert before is not None
    kept = before.clone()
    sparsifier.mask_gradients()
    assert torch.equal(before, kept)


def test_the_initial_mask_is_random_with_the_seed() -> None:
    same = [rigl(seeded(Plain, seed), seed=3).masks() for seed in (0, 1)]
    assert same[0] == same[1] != rigl(seeded(Plain), seed=4).masks()


@pytest.mark.parametrize("distribution", ["erdos_renyi_kernel", "uniform", "uniform_first_dense", "global"])
def test_every_distribution_starts_on_target(distribution: str) -> None:
    model = seeded(Plain)
    sparsifier = rigl(model, distribution=distribution, sparsity=0.7)
    assert sparsifier.nonzeros == sparsifier.target_nonzeros == round(0.3 * sparsifier.size)
    assert_masked(sparsifier)
    first = sparsifier.masks().density("conv1.weight")
    if distribution == "uniform_first_dense":
        assert first == 1 and sparsifier.dense_layers["conv1.weight"] == "the first layer"
    if distribution == "uniform":
        assert first == pytest.approx(0.3, abs=0.01)
    if distribution == "global":
        kept = torch.cat([layer.weight[layer.mask].abs() for layer in sparsifier.layers.values()]).min()
        dense = seeded(Plain)
        lost = [dense.get_parameter(n).detach()[~layer.mask].abs().max() for n, layer in sparsifier.layers.items()]
        assert kept >= max(float(value) for value in lost if value.numel())


def test_what_stays_dense_is_listed_with_the_reason() -> None:
    model = nn.ModuleDict(
        {
            "embed": nn.Embedding(10, 8),
            "frozen": nn.Linear(8, 8),
            "other": nn.Linear(8, 8),
            "left": nn.Linear(8, 8),
            "kept": nn.Linear(8, 8),
            "stray": nn.Linear(8, 8),
            "tied": nn.Linear(8, 10),
            "again": nn.Linear(8, 8),
        }
    )
    model["tied"].weight = model["embed"].weight
    model["again"].weight = model["other"].weight
    model["frozen"].weight.requires_grad_(False)
    trained = [p for name, p in model.named_parameters() if not name.startswith("stray")]
    sparsifier = rigl(model, torch.optim.SGD(trained, lr=0.1), exclude=["left"], dense="kept", sparsity=0.4)
    assert sparsifier.dense_layers == {
        "embed.weight": "a parameter of Embedding, which is not sparsified",
        "frozen.weight": "frozen",
        "left.weight": "excluded by pattern",
        "kept.weight": "kept dense by pattern",
        "stray.weight": "not trained by the optimizer",
    }
    assert list(sparsifier.layers) == ["other.weight", "kept.weight"]
    assert sparsifier.nonzeros == round(0.6 * 128), "what is kept dense counts, so the other is sparser"
    assert sparsifier.masks().density("kept.weight") == 1
    assert rigl(Plain(), include=["conv*"], sparsity=0.3).dense_layers["fc.weight"] == "excluded by pattern"


def test_layers_are_chosen_by_type_too() -> None:
    assert list(rigl(Plain(), include=["Conv2d"], sparsity=0.5).layers) == [
        "conv1.weight",
        "conv2.weight",
        "conv3.weight",
    ]
    by_type = rigl(Plain(), dense=["Linear"], sparsity=0.5)
    assert by_type.dense_layers["fc.weight"] == "kept dense by pattern" and by_type.masks().density("fc.weight") == 1


def test_a_linear_layer_tied_to_an_embedding_stays_dense() -> None:
    model = nn.ModuleDict({"head": nn.Linear(8, 10), "embed": nn.Embedding(10, 8), "body": nn.Linear(8, 8)})
    model["head"].weight = model["embed"].weight
    sparsifier = rigl(model)
    assert sparsifier.dense_layers == {"head.weight": "tied to embed.weight, which is not sparsified"}


def test_density_above_one_is_listed() -> None:
    assert rigl(Plain(), sparsity=0.3).dense_layers == {
        "conv1.weight": "erdos_renyi_kernel gives it density 1",
        "conv3.weight": "erdos_renyi_kernel gives it density 1",
        "fc.weight": "erdos_renyi_kernel gives it density 1",
    }


def test_wrappers_do_not_change_names() -> None:
    model = nn.DataParallel(seeded(Plain))
    assert "conv1.weight" in rigl(model).layers


@pytest.mark.parametrize("module", [nn.ConvTranspose2d(6, 8, 3, groups=2), nn.Conv1d(6, 8, 3), nn.Conv3d(6, 8, 1)])
def test_layers_of_every_type(module: nn.Module) -> None:
    sparsifier = rigl(nn.Sequential(module), sparsity=0.5)
    assert sparsifier.nonzeros == sparsifier.size // 2
    sparsifier.masks().check(nn.Sequential(module))


def test_masks_carry_how_they_were_made() -> None:
    model = seeded(Plain)
    sparsifier = rigl(model, seed=7, dense=["fc"])
    train(model, sparsifier, 5)
    masks = sparsifier.masks()
    assert (masks.method, masks.step) == ("RigL", 5)
    assert masks.settings == {
        "sparsity": 0.9,
        "total_steps": 20,
        "distribution": "erdos_renyi_kernel",
        "include": ["*"],
        "exclude": [],
        "dense": ["fc"],
        "seed": 7,
        "drop_fraction": 0.3,
        "update_interval": 4,
        "stop": 0.75,
    }
    assert masks.structure("fc.weight").kind == "dense"
    assert masks == MaskSet.from_zeros(model, names=list(masks))
    masks.check(model)


@pytest.mark.parametrize("make", [sgd, adam])
@pytest.mark.parametrize("moment", [3, 4, 9])
def test_resuming_is_bit_identical(make: Any, moment: int) -> None:
    model = seeded(Plain)
    sparsifier = rigl(model, make(model))
    train(model, sparsifier, moment)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "sparsifier": sparsifier.state_dict()}, file)
    train(model, sparsifier, 11, first=moment)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = seeded(Plain, seed=1)
    again = rigl(resumed, make(resumed), seed=5)
    resumed.load_state_dict(saved["model"])
    again.load_state_dict(saved["sparsifier"])
    assert torch.equal(again.generator.get_state(), sparsifier.generator.get_state())
    train(resumed, again, 11, first=moment)
    assert again.masks() == sparsifier.masks()
    assert again.history == sparsifier.history and len(again.history) > 1
    assert again.step_count == sparsifier.step_count
    assert same(resumed.state_dict(), model.state_dict())
    assert same(again.state_dict(), sparsifier.state_dict())


def test_a_loaded_state_is_not_changed_by_training_on() -> None:
    model = seeded(Plain)
    sparsifier = rigl(model)
    train(model, sparsifier, 3)
    saved = copy.deepcopy(sparsifier.state_dict())
    kept = copy.deepcopy(saved["sparsifier"])
    sparsifier.load_state_dict(saved)
    train(model, sparsifier, 6)
    assert same(saved["sparsifier"], kept)


def test_states_that_do_not_belong_here() -> None:
    model = seeded(Plain)
    sparsifier = rigl(model)
    with pytest.raises(MaskError, match="this is no state of RigL: it has no entry 'sparsifier'"):
        sparsifier.load_state_dict(sgd(model).state_dict())
    state = sparsifier.state_dict()
    with pytest.raises(MaskError, match="this is the state of Chase; load it into Chase, not into RigL"):
        sparsifier.load_state_dict({**state, "sparsifier": {**state["sparsifier"], "method": "Chase"}})
    wider = seeded(lambda: Plain(16))
    with pytest.raises(MaskError, match=r"conv1.weight has shape \(16, 3, 3, 3\), the layer here \(8, 3, 3, 3\)"):
        sparsifier.load_state_dict(rigl(wider).state_dict())
    with pytest.raises(MaskError, match=r"fc.weight has shape None, the layer here \(5, 16\)"):
        sparsifier.load_state_dict(rigl(model, exclude="fc").state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 1.0}, r"sparsity must be in \[0, 1\), found 1.0"),
        ({"total_steps": 0}, "total_steps must be positive, found 0"),
        ({"distribution": "er"}, "unknown distribution 'er'; known are erdos_renyi_kernel, uniform"),
        ({"drop_fraction": 0.0}, r"drop_fraction must be in \(0, 1\]"),
        ({"update_interval": 0}, "update_interval must be positive"),
        ({"stop": 1.5}, r"stop must be in \(0, 1\], found 1.5"),
        ({"dense": ["*"], "include": ["fc"]}, "nothing to sparsify in Plain"),
        ({"dense": ["conv*"]}, r"the layers kept dense \(conv1.weight, conv2.weight, conv3.weight\) hold"),
        ({"exclude": ["conv9"]}, r"exclude pattern 'conv9' matches no layer \(did you mean conv"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SparsefxError, match=message):
        rigl(Plain(), **options)


def test_models_that_cannot_be_sparsified() -> None:
    with pytest.raises(MaskError, match="nothing to sparsify in BatchNorm2d: it has no weights"):
        rigl(nn.BatchNorm2d(3))
    pruned = Plain()
    prune.random_unstructured(pruned.conv2, "weight", 0.5)  # type: ignore[no-untyped-call]
    with pytest.raises(MaskError, match=r"conv2 is masked by torch.nn.utils.prune already; call prune.remove"):
        rigl(pruned)
    lazy = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 3))
    with pytest.raises(MaskError, match=r"0.weight has no shape yet; run the lazy model once"):
        rigl(lazy, torch.optim.SGD(lazy[1].parameters(), lr=0.1))


def test_a_new_method_is_two_functions() -> None:
    from sparsefx.training.settings import Settings
    from sparsefx.training.sparsifier import Proposal

    class Shrink(Sparsifier):
        def is_update(self, step: int) -> bool:
            return step == 2

        def propose(self, step: int) -> Proposal:
            return Proposal({layer.name: torch.zeros_like(layer.mask) for layer in self.explored}, 1.0)

    model = seeded(Plain)
    sparsifier = Shrink(model, sgd(model), Settings(sparsity=0.5, total_steps=3))
    train(model, sparsifier, 3)
    assert sparsifier.sparsity == 1
    assert sparsifier.masks().method == "Shrink"
    with pytest.raises(TypeError, match="abstract"):
        Sparsifier(model, sgd(model), Settings(sparsity=0.5, total_steps=3))  # type: ignore[abstract]
