"""How models are to be served: what a repository says of them beyond their signatures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...passes.errors import TargetError

_DEFAULT_BATCH = 8


@dataclass(frozen=True)
class ServingOptions:
    """Scheduling, instances and warm-up of a served model.

    At most `max_batch_size` requests are run as one batch (None: 8 where the model's batch is dynamic; 0: the server
    does not batch). A batch of a preferred size runs at once; others wait for up to `max_queue_delay_us` microseconds
    for more requests. `instances` run side by side: on the CPU, each on `threads` inside an operator (None: what the
    bundle was built for, else all processors); on a GPU, on each of `gpus` (empty: all of them). `sizes` are dynamic
    sizes of the warm-up requests other than the batch. `version` is the number that the model is exported as;
    `served_versions` are "latest:N", "all", or numbers as "1,3".

    Raises TargetError where a value is out of range.
    """

    max_batch_size: int | None = None
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = 0
    instances: int = 1
    threads: int | None = None
    gpus: tuple[int, ...] = ()
    warm_up: bool = True
    sizes: Mapping[str, int] = field(default_factory=dict)
    version: int = 1
    served_versions: str = "latest:1"

    def __post_init__(self) -> None:
        least = {"max_batch_size": 0, "max_queue_delay_us": 0, "instances": 1, "threads": 1, "version": 1}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise TargetError(f"{name} must be at least {smallest}, found {value}")
        largest = self.largest_batch
        wrong = [size for size in self.preferred_batch_sizes if not 1 <= size <= largest]
        if wrong:
            raise TargetError(
                f"preferred batch sizes must lie between 1 and max_batch_size {largest}, found {wrong[0]}"
            )
        if any(gpu < 0 for gpu in self.gpus):
            raise TargetError(f"gpus are numbers of devices from 0 on, found {list(self.gpus)}")
        self.version_policy()

    @property
    def largest_batch(self) -> int:
        """The largest batch of a model that can be batched."""
        return _DEFAULT_BATCH if self.max_batch_size is None else self.max_batch_size

    def version_policy(self) -> dict[str, object]:
        """Which versions are served, as a message of the server's configuration."""
        kind, _, count = self.served_versions.partition(":")
        if self.served_versions == "all":
            return {"all": {}}
        if kind == "latest" and count.isdigit() and int(count) > 0:
            return {"latest": {"num_versions": int(count)}}
        numbers = self.served_versions.split(",")
        if all(number.isdigit() and int(number) > 0 for number in numbers):
            return {"specific": {"versions": [int(number) for number in numbers]}}
        raise TargetError(f"served versions are latest:N, all, or numbers as 1,3; found {self.served_versions!r}")
