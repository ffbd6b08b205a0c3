"""Times on a GPU by its own clock: events before and after the work, instead of the processor's time of starting it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .measure import Measurement, measure

_RUNS = 8  # between two events: longer than what starting them takes
_WARM_UP = 3  # runs before a graph is recorded: libraries choose their kernels then


def recorded(run: Callable[[], object]) -> Callable[[], object]:
    """The GPU work of one run as a CUDA graph, which starts it all at once; its results are overwritten every time."""
    import torch

    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def device_seconds(run: Callable[[], object]) -> float:
    """Seconds of one run on the current CUDA stream, from several in a row."""
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    for _ in range(_RUNS):
        run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / _RUNS


def measure_on_device(
    contenders: Mapping[str, Callable[[], object]], *, seconds: float = 5.0, least_runs: int = 20
) -> dict[str, Measurement]:
    """As `measure`, by the GPU's clock."""
    return measure(contenders, seconds=seconds, least_runs=least_runs, seconds_of=device_seconds)


def device_times(contenders: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each on the GPU, in a short interleaved run of CUDA graphs."""
    graphs = {name: recorded(run) for name, run in contenders.items()}
    return {name: result.median for name, result in measure_on_device(graphs, seconds=0.0, least_runs=5).items()}
