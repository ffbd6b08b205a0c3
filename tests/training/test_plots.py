"""Pictures of a history: what they show, that nothing in them overlaps, and that files are whole."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib")

import matplotlib as mpl
from matplotlib.figure import Figure

from sparsefx.passes.errors import SparsefxError
from sparsefx.training import MaskUpdate, RigL, Sparsifier
from sparsefx.training.plots import PANELS, _density_panel, _draw, plot_history

from .helpers import Residual, chase, seeded, sgd, train
from .methods import BY_NAME


def update(step: int, **changes: Any) -> MaskUpdate:
    figures = {
        "drop_fraction": 0.3,
        "dropped": 10,
        "grown": 8,
        "survived": 0.5,
        "iou": 0.8,
        "nonzeros": 100,
        "amenable": 0.2,
        "sparser": 0.1,
        "active_channels": 40,
    }
    return MaskUpdate(step=step, **{**figures, **changes})


def trained(method: str) -> Sparsifier:
    model = seeded(Residual)
    if method == "RigL":
        sparsifier: Sparsifier = RigL(model, sgd(model), total_steps=80, update_interval=2)
    else:
        sparsifier = chase(model, total_steps=80)
    train(model, sparsifier, 80)
    return sparsifier


def drawn(history: Sequence[MaskUpdate], size: int | None = None, title: str | None = None) -> Figure:
    figure = _draw(history, (_density_panel(size), *PANELS), title)
    figure.draw_without_rendering()
    return figure


@pytest.mark.parametrize("method", ["RigL", "Chase"])
@pytest.mark.parametrize("suffix", [".png", ".svg", ".PNG"])
def test_a_training_becomes_a_picture(method: str, suffix: str, tmp_path: Path) -> None:
    sparsifier = trained(method)
    file = tmp_path / f"history{suffix}"
    plot_history(sparsifier.history, file, size=sparsifier.size, title=method)
    data = file.read_bytes()
    if suffix == ".svg":
        assert ElementTree.fromstring(data).tag.endswith("svg")
    else:
        assert data.startswith(b"\x89PNG") and len(data) > 20_000
    assert list(tmp_path.iterdir()) == [file], "nothing temporary is left behind"


def test_panels_show_what_the_history_says() -> None:
    history = [update(10, survived=None), update(20, nonzeros=80, removed_channels=3, active_channels=37)]
    figure = drawn(history, size=400)
    assert {tuple(line.get_xdata()) for axes in figure.axes for line in axes.lines} == {(10, 20)}
    sparsity, overlap, survival, exchange, amenable, channels = map(values, figure.axes)
    assert sparsity == [[0.75, 0.8]] and overlap == [[0.8, 0.8]]
    assert str(survival) == "[[nan, 0.5]]"
    assert exchange == [[0.3, 0.3], [0.08, 0.1]]
    assert amenable == [[0.2, 0.2], [0.1, 0.1]]
    assert channels == [[40, 37], [0, 3]]
    assert values(drawn(history).axes[0]) == [[100, 80]]
    assert drawn(history).axes[0].get_title(loc="left") == "Non-zeros"


def values(axes: Any) -> list[list[float]]:
    """What each line of a panel shows."""
    return [line.get_ydata().tolist() for line in axes.lines]


HISTORIES = {
    "one update": [update(20, survived=None)],
    "a long training": [update(step, nonzeros=25_000_000 - step) for step in range(1000, 2_000_000, 1000)],
    "only pruning": [update(step, survived=None, grown=0, drop_fraction=0.0) for step in range(5, 100, 5)],
    "nothing left": [update(step, nonzeros=0, grown=0, iou=1.0, active_channels=0) for step in (1, 2)],
}


@pytest.mark.parametrize("name", HISTORIES)
def test_nothing_overlaps_and_every_axis_is_labelled(name: str) -> None:
    figure = drawn(HISTORIES[name], size=26_000_000, title="A training")
    texts = [figure._suptitle]
    for number, axes in enumerate(figure.axes):
        assert axes.get_ylabel() and (number < 3 or axes.get_xlabel() == "step")
        titles = [child for child in axes.get_children() if getattr(child, "get_text", str)() == axes.get_title("left")]
        shown = [label for label in axes.get_yticklabels() if visible(label, axes)]
        texts += [*titles, axes.yaxis.label, *shown, *(legend.get_texts() if (legend := axes.get_legend()) else [])]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    for (first, a), (second, b) in combinations(boxes, 2):
        assert not a.overlaps(b), (first, second)
    whole = figure.bbox
    for text, box in boxes:
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1, text


def visible(label: Any, axes: Any) -> bool:
    low, high = axes.get_ylim()
    return bool(low <= label.get_position()[1] <= high)


@pytest.mark.parametrize("name", HISTORIES)
def test_axes_stay_near_what_is_possible(name: str) -> None:
    for axes, panel in zip(drawn(HISTORIES[name], size=26_000_000).axes, (_density_panel(1), *PANELS), strict=True):
        low, high = axes.get_ylim()
        ticks = [tick for tick in axes.get_yticks() if low <= tick <= high]
        assert all(tick >= 0 for tick in ticks)
        assert not panel.is_share or all(tick < 1 + 1e-9 for tick in ticks)


def test_what_has_not_happened_is_said() -> None:
    axes = drawn(HISTORIES["only pruning"]).axes[2]
    assert [text.get_text() for text in axes.texts] == ["nothing has grown yet"]


def test_a_history_that_was_saved_and_loaded(tmp_path: Path) -> None:
    model = seeded(Residual)
    sparsifier = BY_NAME["Campfire, combined"](model)
    train(model, sparsifier, 30)
    again = BY_NAME["Campfire, combined"](seeded(Residual))
    again.load_state_dict(sparsifier.state_dict())
    plot_history(again.history, str(tmp_path / "a.png"))


def test_what_cannot_be_plotted(tmp_path: Path) -> None:
    with pytest.raises(SparsefxError, match=r"history.pdf: pictures are written as .png or .svg, not as '.pdf'"):
        plot_history([update(1)], tmp_path / "history.pdf")
    with pytest.raises(SparsefxError, match=r"pictures are written as .png or .svg, not without a suffix"):
        plot_history([update(1)], tmp_path / "history")
    with pytest.raises(SparsefxError, match="there is nothing to plot: the history has no mask update yet"):
        plot_history([], tmp_path / "history.png")
    with pytest.raises(SparsefxError, match="size must be the number of all sparsified weights, found 99 for 100"):
        plot_history([update(1)], tmp_path / "history.png", size=99)
    assert not list(tmp_path.iterdir())


def test_a_picture_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "history.png"
    file.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fail)
        with pytest.raises(SparsefxError, match=r"cannot write .*history.png: no space left; nothing was changed"):
            plot_history([update(1)], file)
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]
    plot_history([update(1)], file)
    assert file.read_bytes() != b"old"


def test_without_matplotlib_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SparsefxError, match=r"plots need matplotlib.*pip install 'sparsefx\[plots\]'"):
        plot_history([update(1)], tmp_path / "history.png")


def test_global_settings_of_matplotlib_are_left_alone(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    plot_history([update(1)], tmp_path / "history.svg")
    assert dict(mpl.rcParams) == before


def test_matplotlib_is_imported_only_to_draw_and_without_pyplot(tmp_path: Path) -> None:
    code = (
        "import sys, sparsefx.training.plots as plots; from sparsefx.training import MaskUpdate; "
        "assert 'matplotlib' not in sys.modules; "
        f"plots.plot_history([MaskUpdate(1, 0.3, 1, 1, None, 1.0, 1, 0.0, 0.0, 1)], {str(tmp_path / 'a.png')!r}); "
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
