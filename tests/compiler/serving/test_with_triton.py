"""Exported repositories in NVIDIA Triton Inference Server itself, on the CPU, unchanged.

The server comes in a package, without its ONNX Runtime backend; `stand_in_backend.py` stands in for that one as a
Python backend. What is checked is the server's: reading the configuration, warm-up, batching, its protocol. To run it:

    pip install --no-deps --target DIR nvidia-pytriton
    pip install --target DIR/site "numpy<2" onnxruntime      (that server's Python backend knows no NumPy 2)
    SPARSEFX_TRITON=DIR python -m pytest tests/compiler/serving/test_with_triton.py
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import sparsefx
from sparsefx.passes.errors import TargetError
from sparsefx.runtime.serving.client import Client
from sparsefx.runtime.serving.options import ServingOptions
from tests.runtime.kernels.needs import needs_compiler

from .test_export import assert_served, bundles, condensed

__all__ = ["bundles", "condensed"]  # fixtures

_FOLDER = Path(os.environ.get("SPARSEFX_TRITON", ""))
_STUBS = "pytriton/tritonserver/python_backend_stubs"
pytestmark = [
    pytest.mark.skipif("SPARSEFX_TRITON" not in os.environ, reason="SPARSEFX_TRITON names no folder with the server"),
    needs_compiler,
]


@contextmanager
def triton(repository: Path, folder: Path) -> Iterator[str]:
    """The address of a server that is ready; what it said otherwise."""
    server, version = _FOLDER / "pytriton/tritonserver", f"{sys.version_info[0]}.{sys.version_info[1]}"
    backends = folder / "backends"
    shutil.copytree(server / "backends/python", backends / "python")
    shutil.copy(_FOLDER / _STUBS / version / "triton_python_backend_stub", backends / "python")
    (backends / "onnxruntime").mkdir()
    shutil.copy(Path(__file__).with_name("stand_in_backend.py"), backends / "onnxruntime/model.py")
    for program in (server / "bin/tritonserver", backends / "python/triton_python_backend_stub"):
        program.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(server / "bin/tritonserver"), "--model-repository", str(repository), "--backend-directory", str(backends),
        "--http-address", "127.0.0.1", "--http-port", str(port), "--allow-grpc", "false", "--allow-metrics", "false",
    ]  # fmt: skip
    paths = {"LD_LIBRARY_PATH": str(_FOLDER / "nvidia_pytriton.libs"), "SPARSEFX_TRITON_SITE": str(_FOLDER / "site")}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | paths)
    try:
        _wait(process, Client(f"127.0.0.1:{port}"), folder / "log")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def _wait(process: subprocess.Popen[bytes], client: Client, log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            if client.ready():
                return
        except TargetError:
            pass
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def test_repositories_are_served_unchanged(bundles: Path, condensed: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    options = ServingOptions(preferred_batch_sizes=(4, 8), max_queue_delay_us=20_000, threads=1, instances=2)
    sparsefx.serve_export([bundles / "dynamic.sfx", condensed, bundles / "fixed.sfx"], models, options)
    sparsefx.serve_export([condensed], models, ServingOptions(version=2, served_versions="1,2"))
    with triton(models, tmp_path) as address:
        client = Client(address)
        assert client.metadata("sparse")["versions"] == ["1", "2"]
        for binary in (True, False):
            for batch in (1, 3, 8):
                assert_served(client, bundles / "dynamic.sfx", batch, binary=binary)
                assert_served(client, condensed, batch, binary=binary)
            assert_served(client, bundles / "fixed.sfx", 1, binary=binary)
        _assert_concurrent(client, condensed)
        x = np.ones((9, 64), np.float32)
        for inputs, message in (
            ({"input": x}, "400: .*batch-size must be <= 8"),
            ({"input": x[:1, :5]}, "400: .*unexpected shape"),
            ({"input": x[:1].astype(np.float64)}, "400: .*data-type is 'FP64'"),
            ({}, "400: .*expected 1 inputs but got 0"),
        ):
            with pytest.raises(TargetError, match=message):
                client.infer("sparse", inputs)
        with pytest.raises(TargetError, match=r"404: .*unknown model"):
            client.infer("nobody", {"input": x[:1]})


def _assert_concurrent(client: Client, bundle: Path) -> None:
    """Requests that the server puts into one batch get each their own answers."""
    engine, wrong = sparsefx.load(bundle), []
    samples = np.random.default_rng(0).standard_normal((16, 1, 64)).astype(np.float32)
    want = [engine(sample) for sample in samples]

    def ask(i: int) -> None:
        have = client.infer("sparse", {"input": samples[i]})["output"]
        if not np.allclose(have, want[i], rtol=0, atol=1e-5):
            wrong.append(i)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(samples))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
