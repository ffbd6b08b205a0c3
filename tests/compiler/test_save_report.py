"""Reports of compiled models as files: `save_report`, `model_card`, and the same from a bundle."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import sparsefx
from sparsefx.compiler.bundle import save_bundle
from sparsefx.compiler.compiled import CompiledModel
from sparsefx.compiler.reporting.page import SECTIONS, report_page
from sparsefx.compiler.reporting.read import read_page
from sparsefx.runtime.latency.node import EngineNode
from sparsefx.runtime.latency.record import NodeTime, Record, Setting
from sparsefx.runtime.latency.table import LatencyTable
from sparsefx.training.history import MaskUpdate
from sparsefx.training.recipes.trained import EpochLog
from tests.browser import browser, shown
from tests.compiler.models import half_of_conv1, residual

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
UPDATES = [MaskUpdate(step, 0.3, 10, 8, None if step == 10 else 0.5, 0.8, 100, 0.2, 0.1, 40) for step in (10, 20, 30)]
EPOCHS = [EpochLog(epoch, 1 / epoch, 0.9 + epoch / 100, 0.9, 40) for epoch in (1, 2, 3)]


@pytest.fixture(scope="module")
def compiled() -> CompiledModel:
    model = residual()
    return sparsefx.compile(
        model, (X,), masks=half_of_conv1(model), threads=1, evaluate=lambda run: {"mean": float(run(X).mean())}
    )


@pytest.fixture(scope="module")
def bundle(compiled: CompiledModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "residual.sfx"
    compiled.save(path)
    return path


def table(name: str = "conv1") -> LatencyTable:
    """A table of one layer, 0.1 ms for every eight of its outputs that are begun."""
    records = []
    for outputs in range(1, 17):
        seconds = 1e-4 * -(-outputs // 8)
        node = EngineNode(name, "Conv", (8, outputs), name, (8, outputs))
        records.append(Record("Residual", {name: outputs}, (NodeTime(node, seconds, 0.0),), seconds, 0.01, 20, 1e-3))
    return LatencyTable(Setting("onnxruntime:cpu", "a processor", "onnxruntime 1", 1, 1), records)


def sections(file: Path) -> dict[str, str]:
    root = ElementTree.fromstring(file.read_text().removeprefix("<!DOCTYPE html>\n"))
    return {s.get("id"): " ".join(" ".join(s.itertext()).split()) for s in root.iter("section")}


def test_a_page_with_staircases_and_training(compiled: CompiledModel, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    compiled.save_report(file, name="My network", latency_table=table(), history=UPDATES, epochs=EPOCHS)
    assert list(tmp_path.iterdir()) == [file]
    found = sections(file)
    assert list(found) == list(SECTIONS)
    conv1 = next(layer for layer in compiled.report.layers if layer.name == "conv1")
    assert f"before: 16 after: {len(conv1.kept_outputs)}" in found["staircases"]
    for title in ("Accuracy on the test data", "Loss in training", "Overlap with the mask before", "Amenable channels"):
        assert title in found["training"]
    assert compiled.report.verification is not None
    assert f"{compiled.report.verification['outputs'][0]['max_error']:.1e}" in found["exactness"]
    with browser() as chromium:
        for width, scheme in ((360, "dark"), (1400, "light")):
            with shown(chromium, file, width=width, scheme=scheme) as page:
                assert page.overflow == 0 and page.complaints == [] and page.requests == []
                assert page.page.locator("figure.chart svg").count() == 1 + 2 + 6


def test_a_table_of_another_model_is_refused(compiled: CompiledModel, tmp_path: Path) -> None:
    with pytest.raises(
        sparsefx.TableError, match="the latency table has no layer of this model: it has other; profile"
    ):
        compiled.save_report(tmp_path / "report.html", latency_table=table("other"))
    assert not list(tmp_path.iterdir())


def test_the_staircase_is_that_of_the_table(compiled: CompiledModel, tmp_path: Path) -> None:
    table().save(tmp_path / "model.latency")
    compiled.save_report(tmp_path / "report.html", latency_table=tmp_path / "model.latency")
    text = sections(tmp_path / "report.html")["staircases"]
    costs = table().cost("conv1", 8, np.arange(1, 17))
    assert len(set(costs.round(4))) > 1
    for outputs in (1, 8, 16):
        assert f"{outputs} {costs[outputs - 1]:.4g}" in text


def test_the_page_of_a_bundle_says_what_the_compiled_model_says(compiled: CompiledModel, bundle: Path) -> None:
    page = read_page(bundle, "Residual")
    assert page.report == json.loads(compiled.report.to_json())
    assert page.file_bytes == (bundle / "model.onnx").stat().st_size
    mine, theirs = (
        ElementTree.fromstring(report_page(p).removeprefix("<!DOCTYPE html>\n")) for p in (page, compiled._page(None))
    )
    for key in set(SECTIONS) - {"summary"}:  # which has the date too
        path = f".//section[@id='{key}']"
        assert ElementTree.tostring(mine.find(path)) == ElementTree.tostring(theirs.find(path))


def test_a_bundle_is_drawn_without_torch(bundle: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'onnxscript', 'matplotlib', 'rich', 'sympy'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "from sparsefx.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    files = ["-o", str(tmp_path / "report.html"), "--card", str(tmp_path / "README.md")]
    more = ["--dense", str(bundle), "--seconds", "0", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", code, "report", str(bundle), *files, *more], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "conv1" in sections(tmp_path / "report.html")["latency"]
    assert (tmp_path / "README.md").read_text().startswith("---\n")


def test_the_card_has_the_figures_of_the_report(compiled: CompiledModel) -> None:
    yaml = pytest.importorskip("yaml", reason="metadata is read with PyYAML: not installed")
    found = yaml.safe_load(compiled.model_card("My model").split("---\n", 2)[1])["sparsefx"]
    totals = compiled.report.totals
    assert (found["macs_before"], found["macs_after"]) == (totals.macs_before, totals.macs_after)
    assert (found["parameters_before"], found["parameters_after"]) == (
        totals.parameters_before,
        totals.parameters_after,
    )
    assert compiled.report.evaluation is not None and compiled.report.verification is not None
    assert found["evaluation"] == compiled.report.evaluation.results
    assert found["exactness"][0]["max_error"] == compiled.report.verification["outputs"][0]["max_error"]
    assert found["file_bytes"] == sum(file.stat().st_size for file in compiled.build.files)


def test_a_page_is_replaced_whole_and_not_written_over_a_folder(
    compiled: CompiledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "report.html"
    file.write_text("before")

    def fail(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fail)
        with pytest.raises(sparsefx.SparsefxError, match="no space left"):
            compiled.save_report(file)
    assert file.read_text() == "before" and list(tmp_path.iterdir()) == [file]
    (tmp_path / "folder").mkdir()
    with pytest.raises(sparsefx.SparsefxError, match="folder"):
        compiled.save_report(tmp_path / "folder")


def test_a_report_of_an_earlier_version_is_named_as_such(compiled: CompiledModel, tmp_path: Path) -> None:
    report = compiled.report.to_dict()
    del report["groups"]
    save_bundle(tmp_path / "old.sfx", compiled.build, compiled.settings, report)
    with pytest.raises(sparsefx.BundleError, match=r"report.json is that of an earlier version: it lacks groups"):
        read_page(tmp_path / "old.sfx")


def test_a_target_without_an_engine_has_a_page_too(tmp_path: Path) -> None:
    model = residual()
    compiled = sparsefx.compile(model, (X,), masks=half_of_conv1(model), target="torch")
    compiled.save_report(tmp_path / "report.html")
    assert "the target torch stops at the graph" in sections(tmp_path / "report.html")["summary"]
    assert "sparsefx.load" not in compiled.model_card()


def test_a_copied_bundle_keeps_its_report(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy.sfx"))
    (copy / "report.json").write_text("{}")
    with pytest.raises(sparsefx.BundleError, match=r"report.json is damaged"):
        read_page(copy)
