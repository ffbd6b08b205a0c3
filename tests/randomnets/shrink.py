"""Make a failing random net small: `python -m tests.randomnets.shrink SEED [words of the failure]`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator

import torch

from sparsefx.passes.capture import capture

from .check import check_net
from .draw import Draw
from .net import build

_TRIES = 400


def shrink(choices: list[int], fails: Callable[[Draw], bool], tries: int = _TRIES) -> list[int]:
    """The shortest and smallest choices found, within some tries, for which `fails` is still true."""
    best, span = choices, 64
    while span and tries > 0:
        progress, start = False, 0
        while start < len(best) and tries > 0:
            for candidate in _simpler(best, start, span):
                tries -= 1
                draw = Draw.replayed(candidate)
                if fails(draw) and (len(draw.record), draw.record) < (len(best), best):
                    best, progress = draw.record, True
                    break
            else:
                start += span
        span = span if progress and span < 8 else span // 2
    return best


def _simpler(choices: list[int], start: int, span: int) -> Iterator[list[int]]:
    """Without a span of choices, and with that span made as simple as can be."""
    yield choices[:start] + choices[start + span :]
    zeros = choices[:start] + [0] * len(choices[start : start + span]) + choices[start + span :]
    if zeros != choices:
        yield zeros


def _main(seed: int, words: str) -> None:
    def fails(draw: Draw) -> bool:
        try:
            return any(words in failure for failure in check_net(draw, "net").failures)
        except Exception:  # choices that build no net are of no use
            return False

    first = Draw.seeded(seed)
    print(*check_net(first, f"seed {seed}").failures, sep="\n")
    choices = shrink(first.record, fails)
    print("choices:", choices)
    print(*check_net(Draw.replayed(choices), "shrunk").failures, sep="\n")
    built = build(Draw.replayed(choices))
    print(built.net, capture(built.net, built.make_inputs(2)).code, sep="\n")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    _main(int(sys.argv[1]), " ".join(sys.argv[2:]))
