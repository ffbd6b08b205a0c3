"""Pictures of staircases."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsefx.passes.errors import SparsefxError, TableError
from sparsefx.runtime.latency.plots import plot_staircase
from tests.runtime.latency.helpers import table

pytest.importorskip("matplotlib")


@pytest.mark.parametrize(("name", "start"), [("stairs.png", b"\x89PNG"), ("stairs.svg", b"<?xml")])
def test_a_staircase_is_drawn(name: str, start: bytes, tmp_path: Path) -> None:
    plot_staircase(table(), "conv", tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_what_cannot_be_drawn_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="layer 'other' is not in the latency table; it has conv"):
        plot_staircase(table(), "other", tmp_path / "a.png")
    with pytest.raises(SparsefxError, match=r"pictures are written as \.png or \.svg"):
        plot_staircase(table(), "conv", tmp_path / "a.pdf")
