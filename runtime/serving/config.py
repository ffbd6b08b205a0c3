"""The configuration of one model for NVIDIA Triton Inference Server (config.pbtxt), from its signature.

Fields are those of the server's model_config.proto; it is served in batches where (1) every tensor's first axis is the
one dynamic batch, and (2) no other axis depends on it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...passes.errors import TargetError
from ...passes.signature import Signature, TensorSpec
from ..inputs import dynamic_sizes
from .datatypes import config_type
from .options import ServingOptions
from .pbtxt import Symbol, entries, to_pbtxt

_HEADER = "# Written by sparsefx serve-export: model_config.proto of NVIDIA Triton Inference Server, in text form.\n"


@dataclass(frozen=True)
class Backend:
    """How the server runs a target: its backend, on what, and what accelerates an ONNX file on a GPU."""

    name: str
    on_gpu: bool = False
    accelerator: str | None = None


@dataclass(frozen=True)
class Served:
    """A model as it is served: how it is called, what runs it, and which files that needs beside the model itself.

    `plans` are TensorRT engines by compute capability ("8.0"); `libraries` are paths of custom operators as the server
    sees them.
    """

    name: str
    signature: Signature
    backend: Backend
    largest_batch: int | None = None  # of the engine itself
    threads: int | None = None
    plans: Mapping[str, str] = field(default_factory=dict)
    libraries: Sequence[str] = ()


def batch_size_name(signature: Signature) -> str | None:
    """The dynamic size that the server may batch over; None where there is none."""
    specs = [*signature.inputs, *signature.outputs]
    first = {spec.shape[0] if spec.shape else None for spec in specs}
    name = first.pop() if len(first) == 1 else None
    if not isinstance(name, str) or not name.isidentifier():
        return None
    elsewhere = [size for spec in specs for size in spec.shape[1:] if isinstance(size, str)]
    return None if any(name in re.findall(r"\w+", size) for size in elsewhere) else name


def max_batch_size(served: Served, options: ServingOptions) -> int:
    """How many requests are run as one at most; 0 where the server does not batch.

    Raises TargetError where batches are asked for that the model or its engine cannot take.
    """
    if batch_size_name(served.signature) is None:
        if options.max_batch_size:
            specs = [*served.signature.inputs, *served.signature.outputs]
            raise TargetError(
                f"{served.name} cannot be batched by the server: the first axes of {', '.join(map(str, specs))} are "
                "not one dynamic size that no other axis depends on; export it with max_batch_size 0, or compile it "
                "with a dynamic batch"
            )
        return 0
    most = served.largest_batch
    if most is not None and options.max_batch_size is not None and options.max_batch_size > most:
        raise TargetError(
            f"{served.name} was built for batches of up to {most}, asked for is max_batch_size {options.max_batch_size}"
        )
    return options.largest_batch if most is None else min(options.largest_batch, most)


def model_config(served: Served, options: ServingOptions) -> tuple[dict[str, Any], list[str]]:
    """The configuration as a message by field names, and notes on what it leaves out.

    Raises TargetError for a tensor that the server cannot carry.
    """
    largest = max_batch_size(served, options)
    for what, specs in (("input", served.signature.inputs), ("output", served.signature.outputs)):
        if not specs:
            raise TargetError(f"{served.name} has no {what}, and the server wants one at least")
    config: dict[str, Any] = {
        "name": served.name,
        "backend": served.backend.name,
        "max_batch_size": largest,
        "input": [_tensor(spec, largest > 0) for spec in served.signature.inputs],
        "output": [_tensor(spec, largest > 0) for spec in served.signature.outputs],
        "version_policy": options.version_policy(),
        "instance_group": _instances(served.backend, options),
    }
    preferred = [size for size in options.preferred_batch_sizes if size <= largest]
    if largest > 0:
        delay = options.max_queue_delay_us
        config["dynamic_batching"] = {"preferred_batch_size": preferred, "max_queue_delay_microseconds": delay}
    if served.plans:
        config["cc_model_filenames"] = entries(served.plans)
    if served.libraries:
        config["model_operations"] = {"op_library_filename": list(served.libraries)}
    if served.backend.accelerator is not None:
        accelerators = {"gpu_execution_accelerator": [{"name": served.backend.accelerator}]}
        config["optimization"] = {"execution_accelerators": accelerators}
    if served.backend.name == "onnxruntime":
        config["parameters"] = _parameters(served, options)
    config["model_warmup"], notes = _warm_up(served, options, largest)
    if left_out := [size for size in options.preferred_batch_sizes if size not in preferred]:
        limit = f"takes batches of up to {largest}" if largest else "is not batched by the server"
        notes.append(f"preferred batch sizes {left_out} are left out: {served.name} {limit}")
    return config, notes


def config_text(config: Mapping[str, Any]) -> str:
    """config.pbtxt."""
    return _HEADER + to_pbtxt(config)


def _tensor(spec: TensorSpec, batched: bool) -> dict[str, Any]:
    dims, scalar = _dims(spec, batched)
    tensor = {"name": spec.name, "data_type": Symbol(config_type(spec.dtype, spec.name)), "dims": dims}
    return tensor | ({"reshape": {}} if scalar and batched else {})


def _dims(spec: TensorSpec, batched: bool) -> tuple[list[int], bool]:
    """Sizes as the server counts them, -1 for dynamic ones; for a scalar, which it does not know, a single 1."""
    shape = spec.shape[1:] if batched else spec.shape
    if 0 in shape:
        raise TargetError(f"tensor {spec} is empty, which the server does not carry")
    return [size if isinstance(size, int) else -1 for size in shape] or [1], not shape


def _instances(backend: Backend, options: ServingOptions) -> dict[str, Any]:
    if not backend.on_gpu:
        if options.gpus:
            raise TargetError(f"gpus {list(options.gpus)} are given for a model that was built for the CPU")
        return {"count": options.instances, "kind": Symbol("KIND_CPU")}
    return {"count": options.instances, "kind": Symbol("KIND_GPU"), "gpus": list(options.gpus)}


def _parameters(served: Served, options: ServingOptions) -> list[dict[str, Any]]:
    """Options of the session: operators one after the other, so many threads inside each."""
    threads = options.threads or served.threads
    texts = {"execution_mode": "0", "inter_op_thread_count": "1"}
    if threads is not None:
        texts["intra_op_thread_count"] = str(threads)
    return entries({name: {"string_value": text} for name, text in texts.items()})


def _warm_up(served: Served, options: ServingOptions, largest: int) -> tuple[list[dict[str, Any]], list[str]]:
    """A request of one sample and one of a full batch, so that no user waits for what an engine does at first."""
    if not options.warm_up:
        return [], []
    batch = batch_size_name(served.signature) if largest > 0 else None
    missing = [name for name in dynamic_sizes(served.signature) if name != batch and name not in options.sizes]
    if missing:
        note = f"{served.name} is not warmed up: say what size {missing[0]} has (sizes, as {missing[0]}=224)"
        return [], [note]
    inputs = entries({spec.name: _warm_up_input(spec, options, largest > 0) for spec in served.signature.inputs})
    batches = dict.fromkeys([1, largest] if largest > 0 else [1])
    return [{"name": f"batch of {size}", "batch_size": size, "inputs": inputs} for size in batches], []


def _warm_up_input(spec: TensorSpec, options: ServingOptions, batched: bool) -> dict[str, Any]:
    """Random numbers, but zeros for integers: they may be indices."""
    sized = TensorSpec(spec.name, spec.dtype, tuple(options.sizes.get(str(size), size) for size in spec.shape))
    kind = "random_data" if "float" in spec.dtype else "zero_data"
    dims, _ = _dims(sized, batched)
    return {"data_type": Symbol(config_type(spec.dtype, spec.name)), "dims": dims, kind: True}
