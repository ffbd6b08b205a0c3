"""A small client of the KServe v2 protocol over HTTP, which NVIDIA Triton Inference Server and others speak.

    client = Client("localhost:8000")
    outputs = client.infer("resnet50", {"x": images})  # NumPy in, NumPy out, by the signature's names
    outputs["output"]

A minimal example, to copy and change: it needs NumPy alone. Tensors travel as raw bytes behind a JSON header (the
binary tensor data extension), or as JSON with `binary=False`. The server's own `tritonclient` has more: gRPC,
streams, shared memory.
"""

from __future__ import annotations

import http.client
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
from numpy.typing import NDArray

from ...passes.errors import TargetError
from .datatypes import PROTOCOL

_HEADER_LENGTH = "Inference-Header-Content-Length"
_DTYPES = {protocol: name for name, protocol in PROTOCOL.items() if name != "bfloat16"}  # NumPy has no bfloat16
_BINARY_ONLY = ("FP16", "BF16")  # by the protocol


class Client:
    """One server, by `host:port` or an http address; `timeout` is in seconds. A connection is made for every call."""

    def __init__(self, address: str, *, timeout: float = 30.0) -> None:
        parts = urlsplit(address if "//" in address else f"//{address}")
        if parts.scheme not in ("", "http") or parts.hostname is None:
            raise TargetError(f"expected the address of a server as host:port or http://host:port, found {address!r}")
        self._host, self._port = parts.hostname, parts.port or 8000
        self._prefix, self._timeout = parts.path.rstrip("/"), timeout

    def ready(self, model: str | None = None, version: int | None = None) -> bool:
        """Whether the server, or a model of it, takes requests. Raises TargetError where there is no server."""
        path = "/v2/health/ready" if model is None else f"{_model_path(model, version)}/ready"
        return self._send("GET", path)[0] == 200

    def metadata(self, model: str, version: int | None = None) -> dict[str, Any]:
        """The model's inputs and outputs with their types and shapes, as the server tells them."""
        return self._json(*self._send("GET", _model_path(model, version)))

    def infer(
        self,
        model: str,
        inputs: Mapping[str, NDArray[Any]],
        *,
        outputs: Sequence[str] = (),
        version: int | None = None,
        binary: bool = True,
    ) -> dict[str, NDArray[Any]]:
        """The model's outputs by name, or those asked for, for inputs by name.

        A batched model takes and returns its tensors with the batch as their first axis. Raises TargetError with the
        server's words where it refuses, and where its answer does not hold together.
        """
        body, headers = _request(inputs, outputs, binary)
        status, answer_headers, answer = self._send("POST", f"{_model_path(model, version)}/infer", body, headers)
        length = answer_headers.get(_HEADER_LENGTH.lower())
        header = answer if length is None else answer[: int(length)]
        found = self._json(status, answer_headers, header)
        return _read_outputs(found.get("outputs", []), b"" if length is None else answer[int(length) :])

    def _send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        try:
            connection.request(method, self._prefix + path, body, dict(headers or {}))
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.headers.items()}, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise TargetError(
                f"no answer from http://{self._host}:{self._port}{self._prefix}{path}: {error}"
            ) from error
        finally:
            connection.close()

    def _json(self, status: int, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
        try:
            data = json.loads(body)
        except ValueError:
            data = body.decode(errors="replace")
        if status != 200 or not isinstance(data, dict):
            reason = data.get("error", data) if isinstance(data, dict) else data
            raise TargetError(f"the server at {self._host}:{self._port} answers {status}: {reason}")
        return data


def _model_path(model: str, version: int | None) -> str:
    return f"/v2/models/{quote(model, safe='')}" + ("" if version is None else f"/versions/{version}")


def _request(inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str], binary: bool) -> tuple[bytes, dict[str, str]]:
    """Body and headers of an inference request."""
    described, raw = [], []
    for name, array in inputs.items():
        kind = PROTOCOL.get(array.dtype.name)
        if kind is None or (not binary and kind in _BINARY_ONLY):
            raise TargetError(f"input {name} of type {array.dtype} cannot be sent {'at all' if binary else 'as JSON'}")
        tensor: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": kind}
        if binary:
            raw.append(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
            tensor["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            tensor["data"] = array.reshape(-1).tolist()
        described.append(tensor)
    message: dict[str, Any] = {"inputs": described, "parameters": {"binary_data_output": binary}}
    if outputs:
        message["outputs"] = [{"name": name, "parameters": {"binary_data": binary}} for name in outputs]
    header = json.dumps(message).encode()
    if not binary:
        return header, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", _HEADER_LENGTH: str(len(header))}
    return header + b"".join(raw), headers


def _read_outputs(described: Sequence[Mapping[str, Any]], raw: bytes) -> dict[str, NDArray[Any]]:
    """Arrays out of what the answer's header says of them, and the bytes behind it."""
    outputs, place = {}, 0
    for tensor in described:
        name, shape = tensor["name"], tensor["shape"]
        if tensor["datatype"] not in _DTYPES:
            raise TargetError(f"output {name} has type {tensor['datatype']}, which NumPy does not have")
        dtype = np.dtype(_DTYPES[tensor["datatype"]])
        size = tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            array = np.asarray(tensor["data"], dtype).reshape(-1)
        else:
            if place + size > len(raw) or size % dtype.itemsize:
                raise TargetError(
                    f"the answer ends within output {name}: {size} bytes announced at {place}, {len(raw)} there"
                )
            array = np.frombuffer(raw[place : place + size], dtype.newbyteorder("<")).astype(dtype)
            place += size
        if array.size != math.prod(shape):
            raise TargetError(f"output {name} of shape {shape} came with {array.size} numbers")
        outputs[name] = array.reshape(shape)
    return outputs
