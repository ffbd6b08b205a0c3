"""The file: what is written is read, a damaged last line is dropped, other damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparsefx.passes.errors import TableError
from sparsefx.runtime.latency import table_file
from sparsefx.runtime.latency.table import LatencyTable
from tests.runtime.latency.helpers import SETTING, record, table


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "table"
    table().save(path)
    found = LatencyTable.load(path)
    assert found.records == table().records and found.setting == SETTING
    assert sorted(p.name for p in path.parent.iterdir()) == ["table"]


@pytest.mark.parametrize("lost", [1, 40, 200])
def test_a_damaged_last_line_is_dropped_with_a_warning_and_cut_off(lost: int, tmp_path: Path) -> None:
    path = tmp_path / "table"
    table_file.write(path, {"setting": dict(SETTING.__dict__)}, [record(16, 16), record(32, 32)])
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.warns(UserWarning, match="the last measurement is damaged and left out"):
        _, records = table_file.repair(path)
    assert records == [record(16, 16)]
    table_file.append(path, record(48, 48))
    assert LatencyTable.load(path).records == (record(16, 16), record(48, 48))


def test_damage_in_front_of_the_last_line_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "table"
    table().save(path)
    lines = path.read_text().splitlines(keepends=True)
    lines[3] = lines[3][:50] + "\n"
    path.write_text("".join(lines))
    with pytest.raises(TableError, match="line 4 is damaged"):
        LatencyTable.load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no latency table"),
        ("{}\n", "is no latency table"),
        ("\x80\x04pickle", "line 1 is damaged"),
        (json.dumps({"format": table_file.FORMAT, "version": 99}) + "\n", "has version 99 of the format, .* reads 1"),
        (json.dumps({"format": table_file.FORMAT, "version": 1}) + "\n", "setting is damaged"),
    ],
)
def test_other_files_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_text(text)
    with pytest.raises(TableError, match=message):
        LatencyTable.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="cannot be read: No such file"):
        LatencyTable.load(tmp_path / "nothing")


@pytest.mark.parametrize("change", [{"whole": "fast"}, {"nodes": [[1]]}, {"widths": 3}, {"nodes": None}])
def test_a_record_with_other_types_is_named(change: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "table"
    table_file.write(path, {"setting": dict(SETTING.__dict__)}, [])
    with path.open("a") as file:
        file.write(json.dumps(record(16, 16).to_json() | change) + "\n")
    with pytest.raises(TableError, match="a record of the latency table is damaged"):
        LatencyTable.load(path)
