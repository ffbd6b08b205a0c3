"""What commands print: summaries at 80 columns, nothing but JSON with --json, and no control characters in a pipe."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import sparsefx
from sparsefx.__main__ import main
from sparsefx.cli.output import print_text, to_json
from sparsefx.cli.progress import bar, stages
from sparsefx.cli.summary import Saved, print_summary
from sparsefx.compiler.report_text import count_text
from sparsefx.runtime.targets import BuildSettings
from tests.compiler.models import half_of_conv1, residual

SETTINGS = BuildSettings("onnxruntime:cpu", "fp32", 2)
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    model = residual(seed=1)
    compiled = sparsefx.compile(
        model, (torch.randn(1, 3, 8, 8),), masks=half_of_conv1(model), representation="dense", threads=2
    )
    return compiled.report.to_dict()


def summary(report: dict[str, Any]) -> None:
    print_summary(report, SETTINGS, Saved("bundles/residual.sfx", 2**20, 2**22))


def test_a_summary_has_what_there_is_to_know(report: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    summary(report)
    out = capsys.readouterr().out
    totals = report["totals"]
    before, after = totals["parameters_before"], totals["parameters_after"]
    assert re.search(rf"parameters +{count_text(before)} +{count_text(after)} +{after / before:.1%}\n", out), out
    for words in (
        "Compiled Residual into bundles/residual.sfx",
        "multiply-accumulates",
        "4.00 MiB   1.00 MiB   25.0%",
        "exactness   verified on 5 batches; largest error",
        "engine      onnxruntime:cpu, fp32, 2 threads",
        "parsed, built, loaded, ran, numerics checked here",
        "layers",
        "next        sparsefx bench bundles/residual.sfx",
        "sparsefx inspect bundles/residual.sfx",
    ):
        assert words in out, out


CHANGES: list[tuple[str, Callable[[dict[str, Any]], dict[str, Any]], tuple[str, ...]]] = [
    ("nothing was verified", lambda r: {"verification": None}, ("not verified: nothing is known about it",)),
    (
        "an engine that cannot run here",
        lambda r: {"states": {"built": {"done": True, "detail": ""}, "ran": {"done": False, "detail": "no GPU"}}},
        ("built here", "not ran: no GPU"),
    ),
    ("notes", lambda r: {"notes": ["first", "a second one " * 9]}, ("note        first", "\n            a second one")),
    (
        "an unknown operator",
        lambda r: {"unknown_operators": {"my::op": ["a", "b"]}},
        ("kept        all channels at my::op (2 calls), for which there is no rule",),
    ),
    (
        "condensed layers",
        lambda r: {
            "choice": {
                "layers": [{"representation": "condensed"}] * 2,
                "notes": ["why"],
                "dense_ms": 2.0,
                "chosen_ms": 1.0,
            }
        },
        (
            "of the sparse ones 2 condensed",
            "1.000 ms, without 2.000 ms (2.00x)",
            "output 'output' hardly depends",
            "why",
        ),
    ),
    (
        "wider layers that were not worth it",
        lambda r: {"widths": {"taken": False, "exact_ms": 1.0, "kept_ms": 1.25}},
        ("wider layers: 1.250 ms, without 1.000 ms (0.80x), so not taken",),
    ),
]


@pytest.mark.parametrize(("changes", "words"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_a_summary_tells_what_was_not_as_usual(
    report: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    changes: Callable[[dict[str, Any]], dict[str, Any]],
    words: tuple[str, ...],
) -> None:
    summary(report | changes(report))
    out = capsys.readouterr().out
    plain = " ".join(out.split())
    for part in words:
        assert part in out or part in plain, out
    assert max(map(len, out.splitlines())) <= 80 and not CONTROL.search(out)


def test_colours_are_for_terminals_that_want_them(report: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    colour = re.compile(r"\x1b\[[0-9;]*\b(3[0-7]|9[0-7]|38)\b[0-9;]*m")
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("COLORTERM", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for wanted in (True, False):
        if not wanted:
            monkeypatch.setenv("NO_COLOR", "1")
        out, err = Terminal(), Terminal()
        monkeypatch.setattr("sys.stdout", out)
        monkeypatch.setattr("sys.stderr", err)
        summary(report)
        with stages(quiet=False) as announce:
            announce("capture")
            announce("verification")
            announce.share(0.5)
        assert "capture" in err.getvalue() and "verification" in err.getvalue()
        assert "Compiled Residual" in out.getvalue()
        assert bool(colour.search(err.getvalue())) == wanted
        assert not colour.search(out.getvalue())


def test_progress_elsewhere_is_a_line_a_stage_and_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet, lines in ((False, 3), (True, 0)):
        with stages(quiet) as announce:
            announce("capture")
            announce.share(0.5)
            announce("verification")
        with bar("bench", quiet) as progress:
            progress.update(0.5)
            progress.say("a line that stays")
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == lines and not CONTROL.search(err)


def test_time_left_is_told_where_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("rich.console.monotonic", lambda: clock[0])
    err = Terminal()
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    with bar("bench", quiet=False) as progress:
        for share in (0.0, 0.1, 0.2, 0.3):
            clock[0] += 10.0
            progress.update(share)
    assert "left" in err.getvalue()


def test_json_is_valid_whatever_the_numbers(tmp_path: Path) -> None:
    text = to_json({"error": math.inf, "rows": [(1.0, math.nan)], "name": "x"})
    assert json.loads(text, parse_constant=pytest.fail) == {"error": None, "rows": [[1.0, None]], "name": "x"}


def test_sentences_are_wrapped_and_tables_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    sentence, table, command = "all the words " * 12, "name  " * 30, "Next: " + "word " * 30
    print_text("\n".join([sentence, "", table, "-" * 100, command]))
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(" ".join(lines[:3]).split()) == sentence.strip() and max(map(len, lines[:3])) <= 80
    assert lines[3:] == ["", table, "-" * 100, command]


@pytest.mark.filterwarnings("always:beware")
def test_with_json_what_a_factory_prints_is_on_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "talkative.py").write_text(
        "import warnings\nfrom torch import nn\nprint('importing')\n"
        "def model():\n    print('making')\n    warnings.warn('beware')\n    return nn.Linear(8, 4)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["compile", "talkative:model", "--input", "1x8", "-o", "x.sfx", "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["model"] == "Linear"
    assert [line for line in err.splitlines() if line] == ["importing", "making", "warning: beware"]
