"""The client against servers that do not answer as they should; that it works is tested with exported models."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import Any

import numpy as np
import pytest

from sparsefx.passes.errors import TargetError
from sparsefx.runtime.serving.client import Client

from .server import answering

X = {"x": np.ones((1, 2), np.float32)}


def answer(status: int, header: bytes, behind: bytes = b"", length: int | None = None) -> type[BaseHTTPRequestHandler]:
    """A server that always says this."""

    class Fixed(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(header) + len(behind)))
            if length is not None:
                self.send_header("inference-header-content-length", str(length))  # names are the same in any case
            self.end_headers()
            self.wfile.write(header + behind)

    return Fixed


def outputs(**tensor: Any) -> bytes:
    return json.dumps({"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], **tensor}]}).encode()


def refused(handler: type[BaseHTTPRequestHandler], message: str) -> None:
    with answering(handler) as address, pytest.raises(TargetError, match=message):
        Client(address).infer("net", X)


def test_an_answer_in_json_and_one_in_bytes() -> None:
    header = outputs(parameters={"binary_data_size": 8})
    for handler in (
        answer(200, outputs(data=[1, 2])),
        answer(200, header, np.array([1, 2], "<f4").tobytes(), len(header)),
    ):
        with answering(handler) as address:
            found = Client(f"http://{address}/").infer("net", X)["y"]
        assert found.dtype == np.float32 and found.tolist() == [[1, 2]]


def test_what_a_server_refuses() -> None:
    refused(answer(400, b'{"error": "unexpected shape"}'), "answers 400: unexpected shape")
    refused(answer(503, b"<html>overloaded"), "answers 503: <html>overloaded")


def test_answers_that_do_not_hold_together() -> None:
    header = outputs(parameters={"binary_data_size": 8})
    refused(
        answer(200, header, b"1234", len(header)), "the answer ends within output y: 8 bytes announced at 0, 4 there"
    )
    refused(answer(200, outputs(data=[1, 2, 3])), r"output y of shape \[1, 2\] came with 3 numbers")
    refused(answer(200, outputs(datatype="BF16", data=[1, 2])), "output y has type BF16, which NumPy does not have")
    refused(answer(200, b"no json"), "answers 200: no json")


def test_no_server() -> None:
    with answering(BaseHTTPRequestHandler) as address:
        pass
    with pytest.raises(TargetError, match=f"no answer from http://{address}/v2/health/ready"):
        Client(address, timeout=2).ready()


@pytest.mark.parametrize("address", ["https://localhost", "grpc://localhost:8001", ""])
def test_addresses(address: str) -> None:
    with pytest.raises(TargetError, match="expected the address of a server as host:port"):
        Client(address)


def test_types_that_cannot_be_sent() -> None:
    client = Client("localhost:1")
    with pytest.raises(TargetError, match="input x of type complex64 cannot be sent at all"):
        client.infer("net", {"x": np.ones(2, np.complex64)})
    with pytest.raises(TargetError, match="input x of type float16 cannot be sent as JSON"):
        client.infer("net", {"x": np.ones(2, np.float16)}, binary=False)
