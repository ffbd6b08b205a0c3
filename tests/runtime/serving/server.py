"""A small server of the KServe v2 protocol that really runs the models of a repository, with ONNX Runtime.

It reads config.pbtxt by the documented schema and nothing else of ours, checks requests by it as NVIDIA's server does
(same statuses, shorter words), registers custom operators, and runs the warm-up requests before it is ready.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from .schema import parse, type_name

_DTYPES = {
    "TYPE_BOOL": "?", "TYPE_UINT8": "u1", "TYPE_INT8": "i1", "TYPE_INT32": "<i4", "TYPE_INT64": "<i8",
    "TYPE_FP16": "<f2", "TYPE_FP32": "<f4", "TYPE_FP64": "<f8",
}  # fmt: skip
_LENGTH = "Inference-Header-Content-Length"


class RefusedError(Exception):
    """An error of the protocol: a status and what to say."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Model:
    """One version of one model."""

    def __init__(self, folder: Path, version: str) -> None:
        self.config = parse((folder / "config.pbtxt").read_text())
        assert self.config.name == folder.name and self.config.backend == "onnxruntime"
        options = onnxruntime.SessionOptions()
        threads = self.config.parameters["intra_op_thread_count"].string_value
        options.intra_op_num_threads = int(threads or 0)
        for library in self.config.model_operations.op_library_filename:
            options.register_custom_ops_library(library)
        path = str(folder / version / "model.onnx")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.warmed_up = [self._warm_up(request) for request in self.config.model_warmup]

    def infer(self, tensors: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        known = {tensor.name: tensor for tensor in self.config.input}
        if tensors.keys() != known.keys():
            raise RefusedError(400, f"expected {len(known)} inputs but got {len(tensors)} inputs")
        feeds = {name: self._into(known[name], array) for name, array in tensors.items()}
        names = [tensor.name for tensor in self.config.output]
        found = dict(zip(names, self.session.run(names, feeds), strict=True))
        return {tensor.name: self._out_of(tensor, found[tensor.name]) for tensor in self.config.output}

    def _into(self, tensor: Any, array: NDArray[Any]) -> NDArray[Any]:
        batched = self.config.max_batch_size > 0
        expected = ([-1] if batched else []) + list(tensor.dims)
        wanted = np.dtype(_DTYPES[type_name(tensor.data_type)])
        if array.dtype != wanted:
            raise RefusedError(400, f"input {tensor.name} has another data-type than {type_name(tensor.data_type)}")
        fits = len(expected) == array.ndim and all(e in (-1, s) for e, s in zip(expected, array.shape, strict=False))
        if not fits:
            raise RefusedError(400, f"unexpected shape for input {tensor.name}: {expected} not {list(array.shape)}")
        if batched and len(array) > self.config.max_batch_size:
            raise RefusedError(400, f"inference request batch-size must be <= {self.config.max_batch_size}")
        return array.reshape(len(array), *tensor.reshape.shape) if tensor.HasField("reshape") else array

    def _out_of(self, tensor: Any, array: NDArray[Any]) -> NDArray[Any]:
        leading = list(array.shape[:1]) if self.config.max_batch_size > 0 else []
        assert array.dtype == np.dtype(_DTYPES[type_name(tensor.data_type)])
        array = array.reshape(*leading, *tensor.dims) if tensor.HasField("reshape") or not array.ndim else array
        expected = leading + list(tensor.dims)
        assert all(e in (-1, s) for e, s in zip(expected, array.shape, strict=True)), (expected, array.shape)
        return array

    def _warm_up(self, request: Any) -> str:
        tensors = {}
        for name, described in request.inputs.items():
            leading = [request.batch_size] if self.config.max_batch_size > 0 else []
            shape = leading + list(described.dims)
            dtype = np.dtype(_DTYPES[type_name(described.data_type)])
            random = described.WhichOneof("input_data_type") == "random_data"
            tensors[name] = (np.random.default_rng(0).random(shape) if random else np.zeros(shape)).astype(dtype)
        self.infer(tensors)
        return str(request.name)

    def metadata(self) -> dict[str, Any]:
        def describe(tensor: Any) -> dict[str, Any]:
            leading = [-1] if self.config.max_batch_size > 0 else []
            kind = type_name(tensor.data_type).removeprefix("TYPE_")
            return {"name": tensor.name, "datatype": kind, "shape": leading + list(tensor.dims)}

        inputs, outputs = ([describe(t) for t in tensors] for tensors in (self.config.input, self.config.output))
        return {"name": self.config.name, "versions": ["1"], "inputs": inputs, "outputs": outputs}


class Handler(BaseHTTPRequestHandler):
    models: dict[tuple[str, str], Model]

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        self._answer(lambda: self._get())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(lambda: self._infer(body))

    def _get(self) -> tuple[bytes, int | None]:
        if self.path == "/v2/health/ready":
            return b"", None
        if self.path.endswith("/ready"):
            self._model(self.path.removesuffix("/ready"))
            return b"", None
        return json.dumps(self._model(self.path).metadata()).encode(), None

    def _model(self, path: str) -> Model:
        match = re.fullmatch(r"/v2/models/([^/]+)(?:/versions/(\d+))?", path)
        model = self.models.get((match[1], match[2] or "1")) if match else None
        if model is None:
            raise RefusedError(404, f"Request for unknown model: '{match[1] if match else path}' is not found")
        return model

    def _infer(self, body: bytes) -> tuple[bytes, int | None]:
        model = self._model(self.path.removesuffix("/infer"))
        length = int(self.headers.get(_LENGTH, len(body)))
        request, raw, place = json.loads(body[:length]), body[length:], 0
        tensors = {}
        for tensor in request["inputs"]:
            dtype = np.dtype(_DTYPES[f"TYPE_{tensor['datatype']}"])
            size = tensor.get("parameters", {}).get("binary_data_size")
            if size is None:
                tensors[tensor["name"]] = np.array(tensor["data"], dtype).reshape(tensor["shape"])
            else:
                tensors[tensor["name"]] = np.frombuffer(raw[place : place + size], dtype).reshape(tensor["shape"])
                place += size
        found = model.infer(tensors)
        wanted = {t["name"]: t.get("parameters", {}).get("binary_data") for t in request.get("outputs", [])}
        if unknown := wanted.keys() - found.keys():
            raise RefusedError(400, f"unexpected inference output '{unknown.pop()}'")
        default = request.get("parameters", {}).get("binary_data_output", False)
        return self._outputs({name: found[name] for name in (wanted or found)}, default)

    def _outputs(self, found: dict[str, NDArray[Any]], binary: bool) -> tuple[bytes, int | None]:
        described, behind = [], []
        for name, array in found.items():
            kind = next(k for k, v in _DTYPES.items() if np.dtype(v) == array.dtype).removeprefix("TYPE_")
            tensor: dict[str, Any] = {"name": name, "datatype": kind, "shape": list(array.shape)}
            if binary:
                behind.append(array.tobytes())
                tensor["parameters"] = {"binary_data_size": len(behind[-1])}
            else:
                tensor["data"] = array.ravel().tolist()
            described.append(tensor)
        header = json.dumps({"model_name": "", "outputs": described}).encode()
        return header + b"".join(behind), len(header) if binary else None

    def _answer(self, work: Any) -> None:
        try:
            (body, length), status = work(), 200
        except RefusedError as error:
            body, length, status = json.dumps({"error": str(error)}).encode(), None, error.status
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if length is not None:
            self.send_header(_LENGTH, str(length))
        self.end_headers()
        self.wfile.write(body)


def load(repository: Path) -> dict[tuple[str, str], Model]:
    """Every version of every model; folders of other names are no models, as for the server."""
    folders = [entry for entry in repository.iterdir() if entry.is_dir()]
    return {(f.name, v.name): Model(f, v.name) for f in folders for v in f.iterdir() if v.name.isdigit()}


@contextmanager
def serving(repository: Path) -> Iterator[str]:
    """The address of a server of this repository."""
    handler = type("Models", (Handler,), {"models": load(repository)})
    with answering(handler) as address:
        yield address


@contextmanager
def answering(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
