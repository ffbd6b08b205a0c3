from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sparsefx.passes.errors import MaskError, SparsefxError
from sparsefx.training import Chase, MaskSet
from sparsefx.training.criteria import CHANNEL_CRITERIA

from .helpers import EXAMPLE, Plain, Residual, adam, assert_masked, backward, chase, seeded, sgd, train


def live_channels(masks: MaskSet, name: str) -> int:
    return int(masks[name].flatten(1).any(1).sum())


def test_defaults_are_the_papers_with_intervals_scaled_to_short_runs() -> None:
    model = Plain()
    settings = Chase(model, sgd(model), total_steps=62_560, example_inputs=EXAMPLE).settings
    assert (settings.sparsity, settings.channel_sparsity, settings.minimum_width) == (0.9, 0.5, 0.2)
    assert (settings.update_interval, settings.channel_interval) == (1000, 1000)
    assert (settings.criterion, settings.exploration, settings.distribution) == (
        "umm",
        (0.05, 0.005),
        "erdos_renyi_kernel",
    )
    assert (settings.prune_skip, settings.prune_first) == (False, False)
    short = Chase(model, sgd(model), total_steps=230, example_inputs=EXAMPLE).settings
    assert (short.update_interval, short.channel_interval, short.last_removal, short.last_update) == (10, 10, 180, 220)


def test_only_internal_channels_are_candidates_and_never_the_first_layers() -> None:
    channels = chase(seeded(Residual)).channels
    assert sorted(channels.widths()) == ["branch1.0.weight", "branch2.0.weight"]
    assert channels.kept == {
        "the first layer": 8,
        "several layers produce it (prune_skip=True takes it)": 16,
        "an output of the model": 5,
    }
    with_first = chase(seeded(Residual), prune_first=True).channels
    assert sorted(with_first.widths()) == ["branch1.0.weight", "branch2.0.weight", "stem.weight"]
    with_skip = chase(seeded(Residual), prune_skip=True).channels
    assert len(with_skip.candidates) == 8 + 8 + 16
    assert with_skip.widths() == {
        "project.weight": 16,
        "branch1.0.weight": 8,
        "branch1.2.weight": 16,
        "branch2.0.weight": 8,
        "branch2.2.weight": 16,
    }


def test_removal_masks_filters_and_the_columns_that_read_them() -> None:
    model = seeded(Plain)
    sparsifier = chase(model, prune_first=True)
    channels = sparsifier.channels
    assert len(channels.candidates) == 8 + 16 + 16
    removed = torch.zeros(40, dtype=torch.bool)
    removed[[2, 8 + 5, 24 + 7]] = True  # conv1, conv2, conv3
    channels.restore(removed)
    allowed = channels.allowed()
    expected = {name: torch.ones_like(mask) for name, mask in allowed.items()}
    expected["conv1.weight"][2] = expected["conv2.weight"][:, 2] = False
    expected["conv2.weight"][5] = expected["conv3.weight"][:, 5] = False
    expected["conv3.weight"][7] = expected["fc.weight"][:, 7] = False
    assert all(torch.equal(allowed[name], mask) for name, mask in expected.items())
    assert channels.widths() == {"conv1.weight": 7, "conv2.weight": 15, "conv3.weight": 15}


def test_a_coupled_channel_goes_in_all_layers_at_once() -> None:
    model = seeded(Residual)
    sparsifier = chase(model, prune_skip=True, channel_sparsity=0.6)
    train(model, sparsifier, 30)
    masks = sparsifier.masks()
    allowed = sparsifier.channels.allowed()
    producing, reading = ("project", "branch1.2", "branch2.2"), ("branch1.0", "branch2.0", "fc")
    producers = [allowed[f"{name}.weight"].flatten(1).any(1) for name in producing]
    readers = [allowed[f"{name}.weight"].transpose(0, 1).flatten(1).any(1) for name in reading]
    assert 0 < int(producers[0].sum()) < 16
    assert all(torch.equal(kept, producers[0]) for kept in (*producers, *readers))
    assert all(not masks[name][~mask].any() for name, mask in allowed.items())


@given(
    seed=st.integers(0, 1000),
    sparsity=st.floats(0.3, 0.95),
    channel_sparsity=st.sampled_from([0.0, 0.3, 0.5, 0.8]),
    minimum_width=st.sampled_from([0.0, 0.2, 0.5, 1.0]),
    intervals=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    criterion=st.sampled_from(["umm", "ws", "mmm"]),
    prune_skip=st.booleans(),
    make=st.sampled_from([sgd, adam]),
)
@settings(max_examples=12, deadline=None)
def test_invariants_after_every_step(
    seed: int,
    sparsity: float,
    channel_sparsity: float,
    minimum_width: float,
    intervals: tuple[int, int],
    criterion: str,
    prune_skip: bool,
    make: Any,
) -> None:
    model = seeded(Residual, seed)
    sparsifier = chase(
        model,
        make(model),
        total_steps=20,
        sparsity=sparsity,
        channel_sparsity=channel_sparsity,
        minimum_width=minimum_width,
        update_interval=intervals[0],
        channel_interval=intervals[1],
        criterion=criterion,
        prune_skip=prune_skip,
        seed=seed,
    )
    assert sparsifier.nonzeros == round((1 - sparsity) * sparsifier.size)
    check = invariants(sparsifier)
    train(model, sparsifier, 20, after=lambda step: next(check))
    channels = sparsifier.channels
    assert int(channels.removed.sum()) == round(channel_sparsity * len(channels.candidates)), "S_c is reached"
    room = sum(int(mask.sum()) for mask in channels.allowed().values())
    assert sparsifier.nonzeros == min(round((1 - sparsity) * sparsifier.size), room), "the target is met at the end"


def invariants(sparsifier: Chase) -> Iterator[None]:
    """What must hold after every step, against the step before."""
    channels, settings = sparsifier.channels, sparsifier.settings
    minimum = {
        name: max(1, int(channels.full_width(name) * (1 - settings.channel_sparsity) * settings.minimum_width))
        for name in channels.widths()
    }
    removed = channels.removed
    previous = {name: layer.mask for name, layer in sparsifier.layers.items()}
    while True:
        assert sparsifier.nonzeros == sparsifier.target_nonzeros, "on target to one weight"
        assert_masked(sparsifier)
        assert not (removed & ~channels.removed).any(), "removed channels do not come back"
        assert all(channels.widths()[name] >= width for name, width in minimum.items())
        allowed = channels.allowed()
        for name, layer in sparsifier.layers.items():
            assert not layer.mask[~allowed[name]].any()
            grown = layer.mask & ~previous[name]
            assert not layer.weight[grown].any()
            for value in sparsifier.state.get(layer.parameter, {}).values():
                assert not (isinstance(value, Tensor) and value.shape == grown.shape and value[grown].any())
            previous[name] = layer.mask
        removed = channels.removed
        yield


def test_the_schedule_is_equation_3_and_the_soft_memory_bound() -> None:
    model = seeded(Plain)
    sparsifier = chase(model, total_steps=40, update_interval=4, channel_interval=4)
    train(model, sparsifier, 40)
    steps = [update.step for update in sparsifier.history]
    assert steps == [4, 8, 12, 16, 20, 24, 28, 32, 36]
    candidates = len(sparsifier.channels.candidates)
    for update in sparsifier.history:
        share = 0.5 + (0 - 0.5) * (1 - min(update.step, 32) / 32) ** 3
        assert update.removed_channels == round(share * candidates)
    above = [update.nonzeros - round(0.2 * sparsifier.size) for update in sparsifier.history]
    assert above[0] == round(sparsifier.settings.exploration_schedule(4) * sparsifier.size)
    assert above == sorted(above, reverse=True)
    assert above[-2] == round(0.005 * sparsifier.size)
    assert above[-1] == 0 and sparsifier.history[-1].grown == 0, "the last update only prunes"


def test_exploration_is_global() -> None:
    """The sparsity of layers moves, that of the whole does not."""
    model = seeded(Plain)
    sparsifier = chase(model, channel_sparsity=0, total_steps=12, update_interval=3)
    before = sparsifier.masks()
    train(model, sparsifier, 12)
    after = sparsifier.masks()
    assert before.density() == after.density()
    assert all(after.density(name) != before.density(name) for name in ("conv1.weight", "conv2.weight"))


def test_pruning_takes_the_smallest_magnitudes_and_growth_the_largest_gradients_of_the_network() -> None:
    model = seeded(Plain)
    sparsifier = chase(model, channel_sparsity=0, total_steps=20, update_interval=3)
    train(model, sparsifier, 5)
    sparsifier.zero_grad()
    backward(model, 5)
    old = {n: layer.mask for n, layer in sparsifier.layers.items()}
    weight = torch.cat([layer.weight[old[n]].abs() for n, layer in sparsifier.layers.items()])
    target = round(0.2 * sparsifier.size)
    threshold = weight.sort(descending=True).values[target - 1]
    kept = {n: old[n] & (layer.weight.abs() >= threshold) for n, layer in sparsifier.layers.items()}
    gradients = {n: layer.parameter.grad for n, layer in sparsifier.layers.items()}
    scores = torch.cat([g.abs()[~kept[n]] for n, g in gradients.items() if g is not None])
    grow = sparsifier._extra(6)
    least = scores.sort(descending=True).values[grow - 1]
    expected = {n: kept[n] | (g.abs() >= least) for n, g in gradients.items() if g is not None}
    sparsifier.step()
    assert sparsifier.masks() == MaskSet(expected)


@pytest.mark.parametrize("criterion", ["umm", "ws", "mmm"])
def test_the_least_salient_channels_go_first(criterion: str) -> None:
    """conv2 has channels of three kinds; which go first tells the criteria apart."""
    model = seeded(Plain)
    sparsifier = chase(
        model,
        criterion=criterion,
        channel_sparsity=0.125,
        minimum_width=0.0,
        update_interval=20,
        channel_interval=10,
        channel_stop=0.5,
        total_steps=20,
    )
    many_small, few_large, rest = (slice(0, 2), slice(2, 4), slice(4, 16))
    layer = sparsifier.layers["conv2.weight"]
    with torch.no_grad():
        for name in ("conv2.weight", "conv3.weight"):
            sparsifier.layers[name].mask.fill_(True)
            sparsifier.layers[name].parameter.fill_(1.0)
        layer.parameter[many_small] = 0.02  # UMM 0.02, MMM 0.02, WS 0
        layer.mask[few_large, 1:] = False
        layer.parameter[few_large, 1:] = 0.0
        layer.parameter[few_large, 0] = 0.4  # UMM 0.05, MMM 0.4, WS 7/8
    masks = {name: layer.mask for name, layer in sparsifier.layers.items()}
    saliency = sparsifier.channels.saliency(CHANNEL_CRITERIA[criterion], masks)
    sparsifier.channels.remove(saliency, 2, dict.fromkeys(sparsifier.channels.widths(), 1))
    gone = sparsifier.channels.removed[:16]
    assert gone[few_large if criterion == "ws" else many_small].all()
    assert int(sparsifier.channels.removed.sum()) == 2
    assert not gone[rest].any()


def test_minimum_widths_send_the_removal_elsewhere() -> None:
    model = seeded(Plain)
    sparsifier = chase(model, channel_sparsity=0.5, minimum_width=0.8)
    with torch.no_grad():
        model.get_parameter("conv2.weight").mul_(1e-3)  # all of conv2 looks worthless
    train(model, sparsifier, 30)
    assert sparsifier.channels.widths() == {"conv2.weight": int(16 * 0.5 * 0.8), "conv3.weight": 10}
    assert sparsifier.removed_channels == 16
    masks = sparsifier.masks()
    assert live_channels(masks, "conv2.weight") <= 6


def test_a_layer_never_loses_its_last_channel() -> None:
    model = seeded(lambda: Plain(2))
    sparsifier = chase(model, channel_sparsity=0.9, minimum_width=0.0, sparsity=0.5)
    train(model, sparsifier, 30)
    assert min(sparsifier.channels.widths().values()) == 1


def test_layers_kept_dense_lose_columns_but_are_not_explored() -> None:
    model = seeded(Plain)
    sparsifier = chase(model, dense=["fc"], sparsity=0.8)
    check = invariants(sparsifier)
    train(model, sparsifier, 30, after=lambda step: next(check))
    masks = sparsifier.masks()
    assert masks.structure("fc.weight").kind == "channel"
    assert masks.density("fc.weight") == sparsifier.channels.widths()["conv3.weight"] / 16
    assert sparsifier.nonzeros == round(0.2 * sparsifier.size), "what the columns free grows elsewhere"


def test_channels_of_layers_that_are_not_sparsified_stay() -> None:
    channels = chase(seeded(Plain), exclude=["conv3"], prune_first=True).channels
    assert list(channels.widths()) == ["conv1.weight"]
    assert channels.kept["a layer of it is not sparsified"] == 32


def test_grouped_convolutions_stay_and_depthwise_ones_follow() -> None:
    body = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Conv2d(8, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )
    channels = chase(body, prune_first=True).channels
    assert channels.widths() == {"3.weight": 4}
    assert channels.kept["a grouped convolution needs equal groups"] == 16
    layers = list(body)
    free = nn.Sequential(*layers[:2], *layers[3:])
    assert chase(free, prune_first=True).channels.widths() == {"0.weight": 8, "2.weight": 4}
    sparsifier = chase(free, prune_first=True, channel_sparsity=0.5, sparsity=0.5)
    train(free, sparsifier, 30)
    allowed = sparsifier.channels.allowed()
    assert torch.equal(allowed["0.weight"].flatten(1).any(1), allowed["1.weight"].flatten(1).any(1))


class Twice(nn.Module):
    """One convolution that runs at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.shared = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.shared(torch.relu(self.shared(torch.relu(self.stem(x))))))
        logits: Tensor = self.fc(torch.relu(self.last(x)).mean((2, 3)))
        return logits


class Tied(Twice):
    """The same, as two modules with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(8, 8, 3, padding=1)
        self.other.weight = self.shared.weight

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.other(torch.relu(self.shared(torch.relu(self.stem(x))))))
        logits: Tensor = self.fc(torch.relu(self.last(x)).mean((2, 3)))
        return logits


@pytest.mark.parametrize("build", [Twice, Tied])
def test_a_weight_that_is_used_twice_keeps_its_channels(build: type[nn.Module]) -> None:
    channels = chase(build(), prune_first=True).channels
    assert list(channels.widths()) == ["last.weight"]
    assert channels.kept["a layer of it runs more than once"] > 0


def test_removed_channels_do_nothing() -> None:
    """Whatever a removed channel computes, the output is the same: its readers are masked."""
    model = seeded(Plain)
    sparsifier = chase(model)
    train(model, sparsifier, 30)
    model.eval()
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    before = model(images)
    gone = ~sparsifier.channels.allowed()["conv2.weight"].flatten(1).any(1)
    assert gone.any()
    with torch.no_grad():
        model.get_parameter("bn2.bias")[gone] += 100.0
    assert torch.equal(model(images), before)


@pytest.mark.parametrize("moment", [4, 7, 16])
def test_resuming_is_bit_identical(moment: int) -> None:
    model = seeded(Residual)
    sparsifier = chase(model, adam(model), prune_skip=True)
    train(model, sparsifier, moment)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "sparsifier": sparsifier.state_dict()}, file)
    train(model, sparsifier, 30 - moment, first=moment)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = seeded(Residual, seed=1)
    again = chase(resumed, adam(resumed), prune_skip=True)
    resumed.load_state_dict(saved["model"])
    again.load_state_dict(saved["sparsifier"])
    train(resumed, again, 30 - moment, first=moment)
    assert again.masks() == sparsifier.masks()
    assert torch.equal(again.channels.removed, sparsifier.channels.removed)
    assert again.history == sparsifier.history
    for a, b in zip(resumed.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_state_with_other_candidates_is_refused() -> None:
    model = seeded(Residual)
    state = chase(model, prune_skip=True).state_dict()
    with pytest.raises(MaskError, match="the state has 32 removable channel groups, this network 16"):
        chase(model).load_state_dict(state)


def test_without_channels_it_is_unstructured_and_needs_no_inputs() -> None:
    model = seeded(Plain)
    sparsifier = Chase(model, sgd(model), total_steps=20, update_interval=2, channel_sparsity=0, sparsity=0.8)
    train(model, sparsifier, 20)
    assert sparsifier.nonzeros == round(0.2 * sparsifier.size)
    assert sparsifier.removed_channels == 0 and len(sparsifier.history) == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channel_sparsity": 1.0}, r"channel_sparsity must be in \[0, 1\), found 1.0"),
        ({"criterion": "bn"}, "unknown criterion 'bn'; known are umm, ws, mmm"),
        ({"minimum_width": 2.0}, r"minimum_width must be in \[0, 1\]"),
        ({"exploration": (1.5, 0.0)}, "exploration must be densities"),
        ({"update_interval": 0, "channel_interval": 5}, "update_interval must be positive"),
        ({"channel_interval": 30}, "channels must be removed at least once: channel_interval 30 of 24 steps"),
        ({"example_inputs": None}, r"Chase needs example_inputs=\(tensor, ...\) .*channel_sparsity=0"),
        ({"include": ["fc"]}, "no channel of Plain can be removed: {'a layer of it is not sparsified': 40"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SparsefxError, match=message):
        chase(Plain(), **options)
