"""Bundles as a model repository: served by a server that reads nothing but the repository, and numerics at the end."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import sparsefx
from sparsefx.__main__ import main
from sparsefx.compiler.serving import model_files, repository
from sparsefx.passes.errors import BundleError, TargetError
from sparsefx.runtime import custom_op_library
from sparsefx.runtime.serving.client import Client
from sparsefx.runtime.serving.options import ServingOptions
from tests.runtime.kernels.needs import needs_compiler
from tests.runtime.serving.schema import needs_schema, parse
from tests.runtime.serving.server import load, serving


class Detector(nn.Module):
    """Outputs in a dict with a list inside, one number for a sample among them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 12, 3), nn.Linear(12, 4)
        with torch.no_grad():
            self.conv.weight[::3] = 0

    def forward(self, images: Tensor, scale: Tensor) -> dict[str, Any]:
        features = self.conv(images).relu().mean((2, 3))
        return {"logits": self.head(features), "score": features.sum(1) * scale[:, 0], "features": [features]}


def example(batch: int = 1) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 3, 8, 8), torch.randint(1, 5, (batch, 2))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dynamic.sfx, fixed.sfx and other.sfx."""
    folder = tmp_path_factory.mktemp("bundles")
    torch.manual_seed(0)
    model = Detector().eval()
    sparsefx.compile(model, example(), threads=1).save(folder / "dynamic.sfx")
    sparsefx.compile(model, example(), threads=1, dynamic_batch=False).save(folder / "fixed.sfx")
    sparsefx.compile(nn.Linear(6, 5).eval(), (torch.randn(1, 6),)).save(folder / "other.sfx")
    return folder


@pytest.fixture(scope="module")
def condensed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("condensed") / "sparse.sfx"
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 48), nn.ReLU()).eval()
    with torch.no_grad():
        model[0].weight.mul_(torch.rand(48, 64) < 0.1)
    compiled = sparsefx.compile(model, (torch.randn(1, 64),), representation="condensed", threads=2)
    compiled.save(path, embed_kernels=True)
    return path


def assert_served(client: Client, bundle: Path, batch: int, *, binary: bool = True, atol: float = 1e-5) -> None:
    """The server's outputs are the engine's, by the signature's names."""
    engine = sparsefx.load(bundle)
    generator = np.random.default_rng(batch)
    inputs = {
        spec.name: (generator.standard_normal((batch, *spec.shape[1:])) * 3).astype(spec.dtype)
        for spec in engine.signature.inputs
    }
    want = engine.run_flat(list(inputs.values()))
    have = client.infer(bundle.stem, inputs, binary=binary)
    assert list(have) == [spec.name for spec in engine.signature.outputs]
    for array, expected in zip(have.values(), want, strict=True):
        assert array.dtype == expected.dtype
        np.testing.assert_allclose(array.reshape(expected.shape), expected, rtol=0, atol=atol)


@needs_schema
def test_models_are_served(bundles: Path, tmp_path: Path) -> None:
    batched = [bundles / "dynamic.sfx", bundles / "other.sfx"]
    options = ServingOptions(max_batch_size=4, preferred_batch_sizes=(2,), max_queue_delay_us=100, threads=1)
    done = sparsefx.serve_export(batched, tmp_path / "models", options)
    done += sparsefx.serve_export([bundles / "fixed.sfx"], tmp_path / "models")
    assert [(e.name, e.backend, e.max_batch_size, e.versions) for e in done] == [
        ("dynamic", "onnxruntime", 4, (1,)), ("other", "onnxruntime", 4, (1,)), ("fixed", "onnxruntime", 0, (1,)),
    ]  # fmt: skip
    assert sorted(os.listdir(tmp_path)) == ["models"]  # nothing temporary is left
    for exported in done:
        assert sorted(exported.files) == ["1/model.onnx", "config.pbtxt", "sparsefx.json"]
    with serving(tmp_path / "models") as address:
        client = Client(address)
        assert client.ready() and client.ready("fixed") and not client.ready("nobody")
        tensors = [(t["name"], t["shape"]) for t in client.metadata("dynamic")["outputs"]]
        assert tensors == [("logits", [-1, 4]), ("score", [-1, 1]), ("features_0", [-1, 12])]
        for binary in (True, False):
            for batch in (1, 3, 4):
                assert_served(client, bundles / "dynamic.sfx", batch, binary=binary)
            assert_served(client, bundles / "fixed.sfx", 1, binary=binary)
            assert_served(client, bundles / "other.sfx", 2, binary=binary)
        x = {"input": np.ones((1, 6), np.float32)}
        only = client.infer(
            "dynamic", {"images": example()[0].numpy(), "scale": np.ones((1, 2), np.int64)}, outputs=["score"]
        )
        assert list(only) == ["score"]
        assert client.infer("other", x, version=1)["output"].shape == (1, 5)


@needs_schema
def test_what_the_server_refuses_comes_back_in_its_words(bundles: Path, tmp_path: Path) -> None:
    sparsefx.serve_export([bundles / "other.sfx"], tmp_path / "models", ServingOptions(max_batch_size=4))
    right = np.ones((1, 6), np.float32)
    with serving(tmp_path / "models") as address:
        client = Client(address)
        wrong: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
            ("nobody", {"input": right}, {}, "404: Request for unknown model: 'nobody'"),
            ("other", {"input": right}, {"version": 2}, "404: Request for unknown model"),
            ("other", {"input": np.ones((5, 6), np.float32)}, {}, "400: inference request batch-size must be <= 4"),
            ("other", {"input": np.ones((1, 7), np.float32)}, {}, "400: unexpected shape for input input"),
            ("other", {"input": right.astype(np.float64)}, {}, "400: input input has another data-type"),
            ("other", {}, {}, "400: expected 1 inputs but got 0"),
            ("other", {"input": right}, {"outputs": ["z"]}, "400: unexpected inference output 'z'"),
        ]
        for model, inputs, more, message in wrong:
            with pytest.raises(TargetError, match=message):
                client.infer(model, inputs, **more)


@needs_schema
@needs_compiler
def test_condensed_layers_with_their_kernels(condensed: Path, tmp_path: Path) -> None:
    (done,) = sparsefx.serve_export([condensed], tmp_path / "models")
    library = next(name for name in done.files if name.endswith(".so"))
    assert library == f"1/{custom_op_library().name}"
    config = parse((done.folder / "config.pbtxt").read_text())
    assert list(config.model_operations.op_library_filename) == [str(done.folder / library)]
    assert config.parameters["intra_op_thread_count"].string_value == "2"
    node = next(n for n in onnx.load(str(done.folder / "1/model.onnx")).graph.node if n.domain == "sparsefx")
    assert {a.name: a.i for a in node.attribute if a.name != "shape"} == {"threads": 2, "bfloat16": 0}
    with serving(tmp_path / "models") as address:
        assert_served(Client(address), condensed, 5)


@needs_schema
@needs_compiler
def test_where_kernels_come_from(condensed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(name: str, **settings: Any) -> Any:
        (done,) = sparsefx.serve_export([condensed], tmp_path / name, ServingOptions(threads=3), **settings)
        return done, parse((done.folder / "config.pbtxt").read_text())

    given = shutil.copyfile(custom_op_library(), tmp_path / "own.so")
    done, config = export("given", kernels=given, mounted_at="/models/")
    assert "1/own.so" in done.files
    assert list(config.model_operations.op_library_filename) == ["/models/sparse/1/own.so"]
    done, config = export("none", use_kernels=False)
    assert not config.HasField("model_operations")
    assert done.notes == ("the condensed layers of sparse run as dense ones: it is exported without kernels",)
    assert all({a.name for a in n.attribute} == {"shape"} for n in _condensed_nodes(done))

    def no_compiler() -> Path:
        raise TargetError("no C++17 compiler")

    monkeypatch.setattr(model_files, "custom_op_library", no_compiler)
    with pytest.raises(
        TargetError, match=r"the server needs: no C.* compiler; trust those in the bundle, give a library"
    ):
        export("compiled")
    assert not (tmp_path / "compiled").exists()
    done, _ = export("trusted", trust_kernels=True)
    assert any(name.endswith(".so") for name in done.files)
    with pytest.raises(TargetError, match="there is no library of kernels at"):
        export("missing", kernels=tmp_path / "nowhere.so")


def _condensed_nodes(done: Any) -> list[Any]:
    return [n for n in onnx.load(str(done.folder / "1/model.onnx")).graph.node if n.domain == "sparsefx"]


@needs_schema
@needs_compiler
def test_older_versions_keep_their_kernels(condensed: Path, tmp_path: Path) -> None:
    sparsefx.serve_export([condensed], tmp_path / "models")
    options = ServingOptions(version=2, served_versions="1,2")
    (done,) = sparsefx.serve_export([condensed], tmp_path / "models", options, use_kernels=False)
    config = parse((done.folder / "config.pbtxt").read_text())
    (library,) = config.model_operations.op_library_filename
    assert Path(library).parent == done.folder / "1" and Path(library).is_file()
    with serving(tmp_path / "models") as address:
        assert_served(Client(address), condensed, 2)


@needs_schema
@needs_compiler
def test_bfloat16_weights_stay_bfloat16_at_the_server(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 48)).eval()
    with torch.no_grad():
        model[0].weight.mul_(torch.rand(48, 64) < 0.1)
    x = (torch.randn(1, 64),)
    compiled = sparsefx.compile(model, x, representation="condensed", threads=1, precision="bf16")
    compiled.save(tmp_path / "rounded.sfx")
    sparsefx.serve_export([tmp_path / "rounded.sfx"], tmp_path / "models")
    with serving(tmp_path / "models") as address:
        client = Client(address)
        assert_served(client, tmp_path / "rounded.sfx", 2)
        have = client.infer("rounded", {"input": x[0].numpy()})["output"]
    exact = model.double()(x[0].double()).detach().numpy()
    assert np.abs(have - exact).max() > 1e-4  # float32 weights would be within 1e-5


@needs_schema
def test_large_weights_come_along(bundles: Path, tmp_path: Path) -> None:
    """A bundle whose weights are in a file of their own."""
    shutil.copytree(bundles / "other.sfx", tmp_path / "large.sfx")
    model = onnx.load(str(tmp_path / "large.sfx/model.onnx"))
    (tmp_path / "large.sfx/model.onnx").unlink()
    onnx.save(
        model,
        str(tmp_path / "large.sfx/model.onnx"),
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=0,
    )
    _sign(tmp_path / "large.sfx")
    sparsefx.serve_export([tmp_path / "large.sfx"], tmp_path / "models")
    with serving(tmp_path / "models") as address:
        x = np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32)
        want = sparsefx.load(bundles / "other.sfx")(x)
        np.testing.assert_allclose(Client(address).infer("large", {"input": x})["output"], want, rtol=0, atol=1e-6)


def _sign(folder: Path, **settings: Any) -> None:
    """Write checksums of what is in a bundle now, and change settings."""
    from sparsefx.compiler.bundle import _fingerprint

    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {f.name: _fingerprint(f) for f in folder.iterdir() if f.name != "manifest.json"}
    manifest["settings"] |= settings
    (folder / "manifest.json").write_text(json.dumps(manifest))


def foreign(bundles: Path, folder: Path, target: str, content: bytes = b"plan") -> Path:
    """A bundle as another target's would be: an engine file beside the manifest."""
    shutil.copytree(bundles / "other.sfx", folder)
    (folder / "model.engine").write_bytes(content)
    _sign(folder, target=target)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["engine"] = {"builder": "TensorRT 10.16", "sizes": {"batch": {"least": 1, "typical": 1, "most": 4}}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@needs_schema
def test_tensorrt_engines_of_several_gpus_are_one_model(bundles: Path, tmp_path: Path) -> None:
    paths = [foreign(bundles, tmp_path / f"{a}.sfx", f"tensorrt:{a}", a.encode()) for a in ("sm80", "sm120")]
    (done,) = sparsefx.serve_export({"net": paths}, tmp_path / "models")
    config = parse((done.folder / "config.pbtxt").read_text())
    assert dict(config.cc_model_filenames) == {"8.0": "model_sm80.plan", "12.0": "model_sm120.plan"}
    assert (done.folder / "1/model_sm120.plan").read_bytes() == b"sm120" and done.backend == "tensorrt"
    assert not list(done.folder.rglob("*.onnx")) and done.max_batch_size == 4
    assert done.notes == ("the engines of net load in the TensorRT that built them: TensorRT 10.16",)
    with pytest.raises(TargetError, match="net was built for batches of up to 4, asked for is max_batch_size 16"):
        sparsefx.serve_export({"net": paths}, tmp_path / "large", ServingOptions(max_batch_size=16))
    (done,) = sparsefx.serve_export({"net": paths[0]}, tmp_path / "one")
    assert sorted(done.files) == ["1/model_sm80.plan", "config.pbtxt", "sparsefx.json"]
    with pytest.raises(BundleError, match="net has a version 1 with other tensors or for another backend"):
        sparsefx.serve_export({"net": paths}, tmp_path / "one", ServingOptions(version=2))
    with pytest.raises(BundleError, match=r"net has two TensorRT engines for compute capability 8\.0"):
        sparsefx.serve_export({"net": [paths[0], paths[0]]}, tmp_path / "twice")
    with pytest.raises(BundleError, match=r"cannot be one model net: only TensorRT engines for different GPUs can"):
        sparsefx.serve_export({"net": [bundles / "other.sfx", bundles / "fixed.sfx"]}, tmp_path / "twice")


@pytest.mark.parametrize("target", ["tensorrt-rtx:sm89", "torch:cuda", "abacus:wood"])
def test_what_the_server_cannot_run(bundles: Path, tmp_path: Path, target: str) -> None:
    path = foreign(bundles, tmp_path / "net.sfx", target)
    with pytest.raises(
        TargetError, match=rf"was compiled for {target}, which NVIDIA Triton .* does not run: .*; compile for"
    ):
        sparsefx.serve_export([path], tmp_path / "models")
    assert sorted(os.listdir(tmp_path)) == ["net.sfx"]


def test_names(bundles: Path, tmp_path: Path) -> None:
    shutil.copytree(bundles / "other.sfx", tmp_path / "other.sfx")
    with pytest.raises(BundleError, match="two bundles are called other; give them names"):
        sparsefx.serve_export([bundles / "other.sfx", tmp_path / "other.sfx"], tmp_path / "models")
    with pytest.raises(BundleError, match=r"'\.\./up' is no name of a served model"):
        sparsefx.serve_export({"../up": bundles / "other.sfx"}, tmp_path / "models")
    with pytest.raises(BundleError, match="no bundles to export"):
        sparsefx.serve_export([], tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_repository_is_added_to(bundles: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    sparsefx.serve_export({"net": bundles / "other.sfx"}, models)
    sparsefx.serve_export({"second": bundles / "fixed.sfx"}, models)
    assert sorted(os.listdir(models)) == ["net", "second"]
    options = ServingOptions(version=3, served_versions="1,3")
    (done,) = sparsefx.serve_export({"net": bundles / "other.sfx"}, models, options)
    assert done.versions == (1, 3) and (models / "net/1/model.onnx").is_file()
    assert set(json.loads((models / "net/sparsefx.json").read_text())["versions"]) == {"1", "3"}
    (done,) = sparsefx.serve_export({"net": bundles / "other.sfx"}, models)
    assert done.versions == (1, 3)
    with pytest.raises(BundleError, match="has a version 3 with other tensors or for another backend"):
        sparsefx.serve_export({"net": bundles / "fixed.sfx"}, models)
    assert sorted(os.listdir(tmp_path)) == ["models"]


def test_what_others_put_into_a_model_stays(bundles: Path, tmp_path: Path) -> None:
    model = tmp_path / "models" / "other"
    sparsefx.serve_export([bundles / "other.sfx"], tmp_path / "models")
    (model / "labels.txt").write_text("cat")
    (model / "warmup").mkdir()
    (model / "warmup/sample").write_bytes(b"12")
    (done,) = sparsefx.serve_export([bundles / "other.sfx"], tmp_path / "models")
    assert (model / "labels.txt").read_text() == "cat" and (model / "warmup/sample").read_bytes() == b"12"
    assert "labels.txt" in done.files
    (model / "7").mkdir()
    with pytest.raises(BundleError, match="other/7 was not written by serve-export"):
        sparsefx.serve_export([bundles / "other.sfx"], tmp_path / "models")


@needs_schema
def test_all_versions_are_served(bundles: Path, tmp_path: Path) -> None:
    for version in (1, 2):
        options = ServingOptions(version=version, served_versions="all")
        sparsefx.serve_export({"other": bundles / "other.sfx"}, tmp_path / "models", options)
    assert set(load(tmp_path / "models")) == {("other", "1"), ("other", "2")}


def test_other_folders_are_not_touched(bundles: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(BundleError, match=r"photos is no model repository: cat\.jpg is no model"):
        sparsefx.serve_export([bundles / "other.sfx"], folder)
    with pytest.raises(BundleError, match=r"cat\.jpg is a file"):
        sparsefx.serve_export([bundles / "other.sfx"], folder / "cat.jpg")
    assert os.listdir(folder) == ["cat.jpg"]
    theirs = tmp_path / "models" / "other"
    theirs.mkdir(parents=True)
    (theirs / "config.pbtxt").write_text('name: "other"')
    with pytest.raises(BundleError, match="other was not written by this version of serve-export"):
        sparsefx.serve_export([bundles / "other.sfx"], tmp_path / "models")
    assert (theirs / "config.pbtxt").read_text() == 'name: "other"'


def test_a_damaged_bundle_leaves_nothing(bundles: Path, tmp_path: Path) -> None:
    shutil.copytree(bundles / "other.sfx", tmp_path / "other.sfx")
    (tmp_path / "other.sfx/model.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match=r"model\.onnx is damaged"):
        sparsefx.serve_export([bundles / "fixed.sfx", tmp_path / "other.sfx"], tmp_path / "models")
    assert sorted(os.listdir(tmp_path)) == ["other.sfx"]


def test_a_failure_while_moving_brings_the_old_models_back(
    bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    paths = [bundles / "fixed.sfx", bundles / "other.sfx"]
    sparsefx.serve_export(paths, models, ServingOptions(max_queue_delay_us=1))
    before = {p: p.read_bytes() for p in models.rglob("*") if p.is_file()}
    rename = Path.rename

    def full(path: Path, target: Path) -> Path:
        if path.name == "other" and path.parent.name == "models" and target == models / "other":
            raise OSError("no space left")
        return rename(path, target)

    monkeypatch.setattr(repository.Path, "rename", full)
    with pytest.raises(BundleError, match="no space left; nothing was changed"):
        sparsefx.serve_export(paths, models, ServingOptions(max_queue_delay_us=2))
    assert {p: p.read_bytes() for p in models.rglob("*") if p.is_file()} == before
    assert sorted(os.listdir(tmp_path)) == ["models"]


def test_from_the_command_line(bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = str(tmp_path / "models")
    command = ["serve-export", str(bundles / "dynamic.sfx"), "-o", models, "--quiet"]
    assert (
        main([*command, "--max-batch-size", "16", "--preferred-batch-sizes", "8,16", "--max-queue-delay", "500"]) == 0
    )
    text = capsys.readouterr().out
    assert "batches of up to 16, version 1 of [1]" in text and f"Next: tritonserver --model-repository {models}" in text
    assert main([*command, "--name", "net", "--json", "--threads", "2", "--instances", "2"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["name"], found["max_batch_size"]) == ("net", 8)
    assert main([*command, "--sizes", "hight=64"]) == 2
    assert "there is no dynamic size hight; dynamic sizes are batch" in capsys.readouterr().err
    assert main([*command, "--preferred-batch-sizes", "four"]) == 2
    assert "--preferred-batch-sizes takes numbers as 4,8; found 'four'" in capsys.readouterr().err
