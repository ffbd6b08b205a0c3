"""The design: every layer sees all pairs of levels of its two widths, in few configurations."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sparsefx.runtime.latency.design import BLOCKS, LEVELS, MIDDLES, design, first_round
from sparsefx.runtime.latency.widths import WidthGroup


def chain(*full: int) -> list[WidthGroup]:
    names = [f"g{i}" for i in range(len(full))]
    return [WidthGroup(n, (n,), (f"g{i + 1}",), full[i], tuple(range(full[i]))) for i, n in enumerate(names)]


@pytest.mark.parametrize("levels", [LEVELS, MIDDLES, BLOCKS, (1.0, 0.75, 0.5, 0.375, 0.25)])
def test_neighbours_meet_at_all_pairs_of_levels(levels: tuple[float, ...]) -> None:
    groups = chain(256, 512, 128, 1024)
    runs = design(groups, levels)
    assert len(runs) <= len(levels) ** 2 + 1
    for before, after in pairwise(groups):
        assert len({(run[before.name], run[after.name]) for run in runs}) >= len(levels) ** 2


def test_the_full_network_comes_first_and_no_run_twice() -> None:
    runs = design(chain(64, 32, 16))
    assert runs[0] == {"g0": 64, "g1": 32, "g2": 16}
    assert len({tuple(sorted(run.items())) for run in runs}) == len(runs)


def test_widths_are_blocks_and_widths_just_beside_them() -> None:
    widths = {run["g0"] for run in design(chain(256, 256))}
    assert {w for w in widths if w % 16 == 0} >= {256} and len([w for w in widths if w % 16 == 0]) == 3
    assert 255 in widths, "just beneath a block"
    assert all(w % 4 for w in widths if w % 16) and all(1 <= w <= 256 for w in widths)


def test_tiny_groups_stay_within_what_they_have() -> None:
    assert all(1 <= run["g0"] <= 2 for run in design(chain(2, 300)))


def test_a_network_without_widths_is_measured_once() -> None:
    assert design([]) == [{}]


def test_a_first_round_has_networks_all_in_blocks() -> None:
    first = first_round(chain(256, 512, 128))
    assert first[0] == {"g0": 256, "g1": 512, "g2": 128}
    in_blocks = [run for run in first if all(width % 16 == 0 for width in run.values())]
    assert len(in_blocks) >= len(BLOCKS) ** 2
    assert len({tuple(run.values()) for run in first}) == len(first)


def test_the_narrowest_network_comes_second_so_that_few_networks_cover_all_between() -> None:
    first = first_round(chain(256, 512, 128, 16))
    assert first[1] == {"g0": 48, "g1": 96, "g2": 32, "g3": 4}


def test_groups_can_have_levels_of_their_own() -> None:
    runs = design(chain(100, 1000), {"g0": (0.9, 0.5, 0.4), "g1": (0.8, 0.7, 0.6)})[1:]
    assert len(runs) == 9 and {run["g0"] for run in runs}.isdisjoint({run["g1"] for run in runs})
    assert max(run["g0"] for run in runs) > 80 and min(run["g1"] for run in runs) > 580
