"""The measurement core counts what it should; how fast anything is, no test can know."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sparsefx.runtime.latency.measure import Measurement, measure


def test_contenders_take_turns_in_alternating_order() -> None:
    order: list[str] = []
    shares: list[float] = []
    results = measure(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")},
        seconds=0.0,
        least_runs=4,
        warm_up=1,
        on_round=lambda rounds, share: shares.append(share),
    )
    assert "".join(order) == "ab" + "ab" + "ba" + "ab" + "ba"
    assert [len(m.seconds) for m in results.values()] == [4, 4]
    assert shares == [0.25, 0.5, 0.75, 1.0]


def test_a_burst_is_one_turn_of_many_runs() -> None:
    order: list[str] = []
    contenders = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    results = measure(contenders, seconds=0.0, least_runs=2, warm_up=0, burst=0.01)
    assert [len(m.seconds) for m in results.values()] == [2, 2]
    turns = "".join(order).replace("ab", "a b").replace("ba", "b a").split()
    assert [turn[0] for turn in turns] == ["a", "b", "a"] and min(map(len, turns)) > 10


def test_statistics() -> None:
    slow, fast = Measurement((4.0, 2.0, 6.0, 8.0)), Measurement((2.0, 2.0, 2.0, 2.0))
    assert slow.median == 5.0
    assert slow.spread == pytest.approx(3.0)
    assert slow.p99 == pytest.approx(7.94)
    assert slow.ratio_to(fast) == 2.5


def test_another_clock() -> None:
    ran: list[str] = []

    def seconds_of(run: Callable[[], object]) -> float:
        run()
        return float(len(ran))

    result = measure({"a": lambda: ran.append("a")}, seconds=0, least_runs=3, warm_up=1, seconds_of=seconds_of)["a"]
    assert result.seconds == (2.0, 3.0, 4.0)
