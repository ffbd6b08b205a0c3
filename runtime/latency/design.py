"""Which widths to measure: few configurations that still show every layer with all pairs of its two widths.

Levels of the widths are laid out as an orthogonal array of strength two (Bose 1938): with a prime number L of levels,
run (a, b) gives column c the level a + c * b mod L, and any two columns have all L * L pairs of levels in as many runs.
Only groups that meet in a layer need different columns, so that a colouring of the network needs few of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product, zip_longest

from .widths import WidthGroup

Widths = dict[str, int]
Levels = Mapping[str, Sequence[float]]

LEVELS = (1.0, 0.99, 0.7, 0.5, 0.4, 0.2, 0.18)  # of the full width; a prime number of them
MIDDLES = (0.85, 0.9, 0.6, 0.65, 0.3, 0.35, 0.25)  # between those, where no measurement says better
BLOCKS = (1.0, 0.75, 0.5, 0.35, 0.2)  # all of them rounded to blocks: what fits into blocks everywhere fuses more
_EVEN = (0, 3, 5)  # places of other levels that are rounded to blocks; those between fall out of an engine's blocks
_BLOCK, _SMALL_BLOCK, _STEP = 16, 4, 4
_NEARLY = 0.98
_WIDE = 32  # channels from which groups are cut by whole blocks


def design(groups: Sequence[WidthGroup], levels: Sequence[float] | Levels = LEVELS) -> list[Widths]:
    """The full network, and then an orthogonal array over the levels, spread so that early runs cover much.

    `levels` are of all groups, or as many for each of them by name.
    """
    full = {g.name: g.full for g in groups}
    if not groups:
        return [full]
    of = levels if isinstance(levels, Mapping) else dict.fromkeys(full, levels)
    count, columns = len(of[groups[0].name]), _columns(groups)
    runs = []
    for a, b in sorted(product(range(count), repeat=2), key=lambda run: (5 * run[0] + 3 * run[1]) % count):
        chosen = {}
        for number, group in enumerate(groups):
            column = columns[group.name]
            level = b if column == count else (a + column * b) % count
            chosen[group.name] = _width(group.full, of[group.name], (level + number) % count)
        runs.append(chosen)
    return _unique([full, *runs])


def first_round(groups: Sequence[WidthGroup]) -> list[Widths]:
    """The full and the narrowest network, between which a table cut short can tell; then networks in blocks everywhere
    and networks with widths in blocks and beside them, in turn."""
    beside, blocks = design(groups, LEVELS), design(groups, BLOCKS)
    narrowest = {g.name: _width(g.full, BLOCKS, BLOCKS.index(min(BLOCKS))) for g in groups}
    turns = [run for turn in zip_longest(beside[::2], beside[1::2], blocks) for run in turn if run is not None]
    return _unique([turns[0], narrowest, *turns])


def _unique(runs: Sequence[Widths]) -> list[Widths]:
    return list({tuple(sorted(run.items())): run for run in runs}.values())


def _width(full: int, levels: Sequence[float], place: int) -> int:
    """A level as a width: some at the blocks that engines work in, the others just not."""
    wanted = max(2, round(full * levels[place]))
    if levels[place] == 1.0:
        return full
    if place in _EVEN or tuple(levels) == BLOCKS:
        return _in_blocks(full, wanted)
    if levels[place] > _NEARLY:
        return max(1, full - 1)  # just beneath the full width, which is mostly a block's
    if full >= _WIDE:
        wanted = max(wanted, _BLOCK + _STEP // 2)  # less than a block has kernels of its own
    return max(1, wanted - _STEP // 2) if wanted % _STEP == 0 else wanted


def _in_blocks(full: int, wanted: int) -> int:
    block = _BLOCK if full >= _WIDE else _SMALL_BLOCK
    return min(full, max(block, round(wanted / block) * block))


def _columns(groups: Sequence[WidthGroup]) -> dict[str, int]:
    """A colour for every group, different for groups that meet in a layer, as few as a greedy pass needs."""
    meeting: dict[str, set[str]] = {}
    for group in groups:
        for layer in (*group.producers, *group.consumers):
            meeting.setdefault(layer, set()).add(group.name)
    colours: dict[str, int] = {}
    for group in groups:
        around = {n for layer in (*group.producers, *group.consumers) for n in meeting[layer]}
        taken = {colours[n] for n in around if n in colours}
        colours[group.name] = next(c for c in range(len(groups) + 1) if c not in taken)
    return {name: colour % (len(LEVELS) + 1) for name, colour in colours.items()}
