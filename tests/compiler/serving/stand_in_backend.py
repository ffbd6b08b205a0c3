"""A Python backend that stands in for the server's ONNX Runtime backend; it runs inside the server."""

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, os.environ.get("SPARSEFX_TRITON_SITE", ""))


class TritonPythonModel:
    """What that backend does with a model: session options out of the configuration, custom operators, and runs."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        return config

    def initialize(self, arguments: dict[str, str]) -> None:
        import onnxruntime

        config = json.loads(arguments["model_config"])
        options = onnxruntime.SessionOptions()
        threads = config["parameters"].get("intra_op_thread_count", {}).get("string_value", "0")
        options.intra_op_num_threads = int(threads)
        for library in config.get("model_operations", {}).get("op_library_filename", []):
            options.register_custom_ops_library(library)
        path = Path(arguments["model_repository"]) / arguments["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        import triton_python_backend_utils as utils

        names = [value.name for value in self.session.get_inputs()]
        responses = []
        for request in requests:
            feeds = {name: utils.get_input_tensor_by_name(request, name).as_numpy() for name in names}
            found = zip(self.session.get_outputs(), self.session.run(None, feeds), strict=True)
            tensors = [utils.Tensor(value.name, array) for value, array in found]
            responses.append(utils.InferenceResponse(output_tensors=tensors))
        return responses
