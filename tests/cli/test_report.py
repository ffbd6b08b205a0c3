"""`sparsefx report`, and what `sparsefx compile` measures and evaluates for it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import pytest

import sparsefx
from sparsefx.__main__ import main
from sparsefx.cli.exit_codes import USER
from tests.compiler.models import half_of_conv1, residual
from tests.compiler.test_save_report import EPOCHS, UPDATES, sections, table

FACTORY = """
import torch
def network():
    from tests.compiler.models import residual
    return residual()
def largest(model):
    return float(model(torch.ones(2, 3, 8, 8)).max())
calls = []
def fails_in_the_end(model):
    calls.append(model)
    if len(calls) == 3:
        raise ValueError("no more data")
    return 1.0
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a bundle that was compared and evaluated, a latency table, and what a training leaves."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "report_factory.py").write_text(FACTORY)
    half_of_conv1(residual()).save(folder / "masks.safetensors")
    table().save(folder / "model.latency")
    (folder / "run").mkdir()
    (folder / "run" / "history.json").write_text(json.dumps([asdict(update) for update in UPDATES]))
    (folder / "run" / "epochs.json").write_text(json.dumps([asdict(epoch) for epoch in EPOCHS]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sparsefx.compiler.compare_build._SECONDS", 0.0)
        with redirect_stdout(StringIO()) as out:
            flags = ["--compare", "--evaluate", "report_factory:largest", "--threads", "1"]
            assert compiled("-o", "model.sfx", *flags) == 0
        (folder / "compile.txt").write_text(out.getvalue())
        yield folder
    sys.modules.pop("report_factory", None)


def compiled(*more: str) -> int:
    model = ["report_factory:network", "--masks", "masks.safetensors", "--input", "2x3x8x8", "--quiet"]
    return main(["compile", *model, *more])


def test_what_compile_measured_and_evaluated_is_told(workplace: Path) -> None:
    said = " ".join((workplace / "compile.txt").read_text().split())
    assert "measured Latency of the dense engine: median" in said
    assert "Latency of the compiled engine: median" in said
    assert "evaluated Evaluation, largest: dense" in said
    assert "sparsefx report model.sfx -o report.html" in said


def test_one_page_with_all_there_is(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--latency-table", "model.latency", "--training", "run", "--name", "A name", "--quiet"]
    assert main(["report", "model.sfx", "-o", "report.html", "--card", "README.md", *flags]) == 0
    out, err = capsys.readouterr()
    assert out == "Wrote report.html, README.md\n" and err == ""
    found = sections(workplace / "report.html")
    assert "largest" in found["evaluation"] and "conv1" in found["latency"]
    assert "before: 16" in found["staircases"] and "Accuracy on the test data" in found["training"]
    assert "# A name" in (workplace / "README.md").read_text()


def test_a_dense_bundle_is_timed_beside(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sparsefx.compile(residual(), example(), threads=1).save(workplace / "dense.sfx")
    flags = ["--dense", "dense.sfx", "--seconds", "0", "--threads", "1", "--sizes", "batch=4"]
    assert main(["report", "model.sfx", "-o", "timed.html", "--json", *flags]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["written"] == ["timed.html"] and found["figures"]["latency"]["sizes"] == {"batch": 4}
    assert "batch 4" in sections(workplace / "timed.html")["latency"]
    assert [line.split(":")[0] for line in err.splitlines()] == ["read", "time beside the dense engine"]


def example() -> tuple[object, ...]:
    import torch

    return (torch.zeros(2, 3, 8, 8),)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["model.sfx"], "say what to write: -o report.html, --card README.md, or both"),
        (["nothing.sfx", "-o", "x.html"], "is no bundle"),
        (["model.sfx", "-o", "x.html", "--training", "."], "neither history.json nor epochs.json"),
        (["model.sfx", "-o", "x.html", "--training", "odd"], "is not that of `sparsefx train`"),
        (["model.sfx", "-o", "x.html", "--training", "broken"], "history.json cannot be read"),
        (["model.sfx", "-o", "x.html", "--latency-table", "nothing.latency"], "nothing.latency"),
        (["model.sfx", "-o", "x.html", "--dense", "nothing.sfx"], "is no bundle"),
        (["model.sfx", "-o", "x.html", "--dense", "model.sfx", "--sizes", "bach=4"], "there is no dynamic size bach"),
        (["model.sfx", "-o", "run"], "run"),
        (["model.sfx", "-o", "x.html", "--card", "MINE.md"], "MINE.md exists and is no model card of sparsefx"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str], text: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in (("odd", '[{"step": 1}]'), ("broken", "[")):
        (workplace / name).mkdir(exist_ok=True)
        (workplace / name / "history.json").write_text(content)
    (workplace / "MINE.md").write_text("# Notes")
    assert main(["report", *arguments, "--quiet"]) == USER
    out, err = capsys.readouterr()
    assert text in err and "Traceback" not in err and out == ""
    assert not (workplace / "x.html").exists() and (workplace / "MINE.md").read_text() == "# Notes"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("largest", "--evaluate takes module:function, found 'largest'"),
        ("report_factory:nothing", "cannot get nothing from module report_factory"),
        ("report_factory:calls", "must be a function, found list"),
    ],
)
def test_an_evaluation_that_is_none_is_named(
    name: str, text: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compiled("-o", "none.sfx", "--evaluate", name) == USER
    assert text in capsys.readouterr().err and not (workplace / "none.sfx").exists()


def test_a_bundle_is_saved_although_the_evaluation_failed(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compiled("-o", "kept.sfx", "--evaluate", "report_factory:fails_in_the_end", "--threads", "1") == USER
    text = "evaluate failed on the compiled model: ValueError: no more data; all else is saved as kept.sfx"
    assert text in capsys.readouterr().err
    assert sparsefx.load(workplace / "kept.sfx") is not None
