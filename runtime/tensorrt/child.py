"""The builder's process: parse a model, build its engines, tell what happened. Run as a module.

    python -m sparsefx.runtime.tensorrt.child JOB.json OUTCOME.json

The outcome is written anew at every stage, so that whoever waits knows where a process died. The log goes to stderr.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from ...passes.errors import TargetError
from .drivers import Driver, find_driver
from .job import Built, Job, Outcome, Plan

_MEMORY = {  # what the builder's log says at level INFO
    "scratch": re.compile(r"Max Scratch Memory: (\d+) bytes"),
    "activations": re.compile(r"Total Activation Memory: (\d+) bytes"),
    "weights": re.compile(r"Total Weights Memory: (\d+) bytes"),
}
_MOST_MESSAGES = 3


class _Teller:
    """Writes the outcome, whole or not at all."""

    def __init__(self, file: Path) -> None:
        self._file, self.outcome = file, Outcome("import")

    def tell(self, **changes: Any) -> None:
        self.outcome = dataclasses.replace(self.outcome, **changes)
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps(self.outcome.to_dict()))
        os.replace(partial, self._file)


def run(job: Job, teller: _Teller) -> None:
    """Do a job, telling at each stage. Raises TargetError where something is missing or refused."""
    teller.tell()
    driver = find_driver(job.backend)
    teller.tell(version=driver.version)
    log = _make_log(driver.trt)
    builder = driver.trt.Builder(log)
    if not builder:
        raise TargetError(f"{driver.version} cannot start: {driver.needs_to_build}")
    if job.plugins is not None:
        driver.register_plugins(job.plugins)
    network = driver.create_network(builder)
    teller.tell(stage="parse")
    start = time.perf_counter()
    parser = driver.trt.OnnxParser(network, log)  # lives as long as the network, which refers to its weights
    _parse(driver, parser, Path(job.model))
    teller.tell(parse_seconds=time.perf_counter() - start, layers=_layers(network), stage="build")
    engines: list[Built] = []
    for plan in job.plans:
        engines.append(_build(driver, builder, network, log, job, plan))
        teller.tell(engines=tuple(engines))
    teller.tell(stage="done")


def _make_log(trt: Any) -> Any:
    """A logger that passes on what it hears, and remembers what the builder says of memory."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.memory: dict[str, int] = {}

        def log(self, severity: Any, message: str) -> None:
            for name, pattern in _MEMORY.items():
                found = pattern.search(message)
                if found:
                    self.memory[name] = int(found[1])
            if int(severity) <= int(trt.ILogger.Severity.ERROR):
                print(message, file=sys.stderr, flush=True)

    return Log()


def _parse(driver: Driver, parser: Any, model: Path) -> None:
    if not parser.parse_from_file(str(model)):
        problems = [_complaint(parser.get_error(i)) for i in range(min(parser.num_errors, _MOST_MESSAGES))]
        raise TargetError(f"{driver.version} cannot take this model: {'; '.join(problems) or 'its log says why'}")


def _complaint(error: Any) -> str:
    node = f" (node {error.node_name()})" if error.node_name() else ""
    operator = f"operator {error.node_operator()}{node}: " if error.node_operator() else ""
    return operator + " ".join(str(error.desc()).split())


def _layers(network: Any) -> tuple[tuple[str, str, str], ...]:
    layers = []
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        types = {layer.get_output(j).dtype.name for j in range(layer.num_outputs)}
        layers.append((str(layer.name), str(layer.type.name), ", ".join(sorted(types))))
    return tuple(layers)


def _build(driver: Driver, builder: Any, network: Any, log: Any, job: Job, plan: Plan) -> Built:
    trt = driver.trt
    config = builder.create_builder_config()
    driver.choose_processors(config, plan.processors)
    if not job.reduced:
        config.clear_flag(trt.BuilderFlag.TF32)
    if job.detailed:
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if job.sparse:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if job.shapes:
        profile = builder.create_optimization_profile()
        for name, shapes in job.shapes.items():
            profile.set_shape(name, *(tuple(shape) for shape in shapes))
        if config.add_optimization_profile(profile) < 0:
            raise TargetError(f"{driver.version} refuses these sizes: {dict(job.shapes)}")
    cache = _timing_cache(driver, config, job)
    log.memory.clear()
    start = time.perf_counter()
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise TargetError(f"{driver.version} cannot build this model for {'+'.join(plan.processors)}")
    seconds = time.perf_counter() - start
    _write(Path(plan.file), engine)
    if cache is not None and job.timing_cache is not None:
        _write(Path(job.timing_cache), config.get_timing_cache().serialize())
    return Built(plan.processors, seconds, int(engine.nbytes), dict(log.memory))


def _timing_cache(driver: Driver, config: Any, job: Job) -> Any:
    """Timings of earlier builds; those of another GPU or version are refused, and as good as none."""
    if not driver.has_timing_cache or job.timing_cache is None:
        return None
    file = Path(job.timing_cache)
    cache = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
    config.set_timing_cache(cache, False)
    return cache


def _write(file: Path, data: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}-{os.getpid()}")
    partial.write_bytes(data)
    os.replace(partial, file)


def main(job: str, outcome: str) -> int:
    teller = _Teller(Path(outcome))
    try:
        run(Job.read(Path(job)), teller)
    except TargetError as error:
        teller.tell(problem=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
