"""`sparsefx table`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from sparsefx.cli.exit_codes import OK
from sparsefx.cli.output import show
from sparsefx.passes.errors import TableError

if TYPE_CHECKING:
    from sparsefx.runtime.latency.table import LatencyTable

_PICTURE = "staircase.png"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("tables", nargs="+", metavar="table", help="latency tables, as sparsefx profile writes them")
    parser.add_argument("--merge", metavar="TABLE", help="write all measurements of the tables to one file")
    parser.add_argument("--diff", action="store_true", help="compare two tables, by kind of operator")
    parser.add_argument("--plot", metavar="LAYER", help="draw a layer's staircase (matplotlib)")
    parser.add_argument("-o", "--output", metavar="FILE", help="picture that --plot draws, png or svg (staircase.png)")


def run(arguments: Namespace) -> int:
    from sparsefx.runtime.latency.table import LatencyTable

    if arguments.output is not None and arguments.plot is None:
        raise TableError(f"-o {arguments.output} is the picture of --plot; say of which layer: --plot LAYER")
    tables = [LatencyTable.load(path) for path in arguments.tables]
    if arguments.diff:
        return _diff(arguments, tables)
    table = tables[0].merge(*tables[1:])
    written = []
    if arguments.merge is not None:
        table.save(arguments.merge)
        written.append(arguments.merge)
    if arguments.plot is not None:
        from sparsefx.runtime.latency.plots import plot_staircase

        picture = arguments.output or _PICTURE
        plot_staircase(table, arguments.plot, picture)
        written.append(picture)
    show(arguments.json, summary(table), "\n".join([summary_text(table), *(f"Wrote {file}" for file in written)]))
    return OK


def summary(table: LatencyTable) -> dict[str, Any]:
    """What a table holds, as JSON."""
    import numpy as np

    spreads = [record.spread for record in table.records]
    return {
        "setting": dict(table.setting.__dict__),
        "date": table.header.get("date"),
        "networks": len(table.records),
        "operators": len(table.keys),
        "layers": {layer: table.channel_range(layer) for layer in table.layers},
        "spread": float(np.median(spreads)) if spreads else None,
        "sum over whole": [float(x) for x in np.percentile(table.accuracy(), [0, 50, 100])] if spreads else None,
    }


def summary_text(table: LatencyTable) -> str:
    """The same for people."""
    data = summary(table)
    setting = ", ".join(f"{name} {value}" for name, value in data["setting"].items())
    lines = [f"latency table of {data['date']}: {setting}"]
    lines.append(f"{data['networks']} networks, {data['operators']} kinds of operators, {len(data['layers'])} layers")
    if data["spread"] is not None:
        low, middle, high = data["sum over whole"]
        lines.append(
            f"medians certain within {data['spread']:.1%}; the sum of the operators is {middle:.3f} of the engine "
            f"({low:.3f} to {high:.3f})"
        )
    return "\n".join(lines)


def _diff(arguments: Namespace, tables: list[LatencyTable]) -> int:
    if len(tables) != 2:
        raise TableError(f"--diff compares two tables, found {len(tables)}")
    ratios = tables[0].diff(tables[1])
    changed = tables[0].setting.differences(tables[1].setting)
    rows = sorted(ratios.items(), key=lambda item: item[1])
    text = "\n".join([*(f"setting: {line}" for line in changed), *(f"{ratio:6.2f}x  {key}" for key, ratio in rows)])
    show(arguments.json, {"settings": changed, "time": ratios}, text)
    return OK
