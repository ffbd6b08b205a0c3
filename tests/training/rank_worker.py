"""What every rank of test_ranks.py runs: all methods one after another; rank 0 writes down what happened."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from sparsefx.training import Sparsifier
from sparsefx.training.layers import bare_model
from sparsefx.training.ranks import average_gradients, from_first_rank, mean_over_ranks

from .helpers import adam, batch, sgd, smooth
from .methods import CASES, STEPS, Case

EVERY_CASE = [*CASES, Case("SRigL, global", "SRigL", {"update_interval": 3, "distribution": "global"})]
BY_GRADIENT = [case for case in EVERY_CASE if case.method in ("RigL", "SRigL", "GraNet", "Chase")]
SAVED_AT = 17  # in the middle of an exploration of every IEE case
BATCH = 8


@dataclass(frozen=True)
class Rank:
    """Which part of every batch this process trains on."""

    number: int = 0
    world: int = 1
    device: str = "cpu"

    def data(self, step: int) -> tuple[Tensor, Tensor]:
        images, labels = batch(step, size=BATCH)
        part = slice(self.number, None, self.world)
        return images[part].double().to(self.device), labels[part].to(self.device)


ALONE = Rank()


@dataclass
class Record:
    """Flat masks after every step from step 0 on, weights at the end, and whether all ranks had the same."""

    masks: list[Tensor] = field(default_factory=list)
    weights: Tensor = field(default_factory=lambda: torch.zeros(0))
    masks_agreed: list[bool] = field(default_factory=list)
    weights_agreed: list[bool] = field(default_factory=list)

    def note(self, sparsifier: Sparsifier, model: nn.Module) -> None:
        masks, self.weights = flat_masks(sparsifier), flat_weights(model)
        self.masks.append(masks.cpu())
        if dist.is_initialized():
            self.masks_agreed.append(agreed(masks.to(torch.uint8)))
            self.weights_agreed.append(agreed(self.weights))
        self.weights = self.weights.cpu()


def flat_masks(sparsifier: Sparsifier) -> Tensor:
    return torch.cat([layer.mask.reshape(-1) for layer in sparsifier.layers.values()])


def flat_weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def agreed(value: Tensor) -> bool:
    """Whether a tensor is the same on all ranks."""
    first = value.clone()
    dist.broadcast(first, src=0)
    same = torch.tensor(int(torch.equal(first, value)), device=value.device)
    dist.all_reduce(same, op=dist.ReduceOp.MIN)
    return bool(same)


def sparsify(case: Case, model: nn.Module, rank: Rank, **options: Any) -> Sparsifier:
    """The case with this rank's data, and a seed that only rank 0 is meant to get its way with."""
    images, labels = rank.data(0)
    if "example_inputs" in case.options:
        options["example_inputs"] = (images,)
    if "loss_fn" in case.options:
        options["loss_fn"] = lambda logits: F.cross_entropy(logits, labels)
    optimizer = options.pop("optimizer", None) or (sgd, adam)[EVERY_CASE.index(case) % 2](model)
    return case(model, optimizer, seed=rank.number, **options)


def train(
    model: nn.Module,
    sparsifier: Sparsifier,
    rank: Rank,
    first: int = 0,
    last: int = STEPS,
    record: Record | None = None,
) -> Record:
    """Steps from `first` to before `last`, all put into the record."""
    record = Record() if record is None else record
    if not record.masks:
        record.note(sparsifier, model)
    for step in range(first, last):
        images, labels = rank.data(step)
        sparsifier.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        sparsifier.step()
        record.note(sparsifier, model)
    return record


def with_ddp(case: Case, rank: Rank, weights_seed: int) -> tuple[nn.Module, Sparsifier]:
    """Weights differ until DistributedDataParallel wraps the model, mostly after the sparsifier has been built."""
    model: nn.Module = smooth(weights_seed + rank.number).to(rank.device)
    view = EVERY_CASE.index(case) % 3 == 0
    if case.method in ("SNIP", "GraSP", "SynFlow"):  # they score the weights that training starts with
        model = DistributedDataParallel(model, gradient_as_bucket_view=view)
        return model, sparsify(case, model, rank)
    sparsifier = sparsify(case, model, rank)
    return DistributedDataParallel(model, gradient_as_bucket_view=view), sparsifier


def run_ddp(case: Case, rank: Rank, folder: Path) -> dict[str, Any]:
    """Train, save on the way, then resume from what was saved in a new model."""
    model, sparsifier = with_ddp(case, rank, weights_seed=0)
    record = train(model, sparsifier, rank, last=SAVED_AT)
    saved_seed_agreed = agreed(sparsifier.generator.get_state().to(rank.device))
    if rank.number == 0:
        state = {"model": bare_model(model).state_dict(), "sparsifier": sparsifier.state_dict()}
        torch.save(state, folder / f"{case.name}.state")
    dist.barrier()
    train(model, sparsifier, rank, first=SAVED_AT, record=record)

    model, sparsifier = with_ddp(case, rank, weights_seed=7)
    load(folder / f"{case.name}.state", bare_model(model), sparsifier)
    resumed = train(model, sparsifier, rank, first=SAVED_AT)
    return {"trained": vars(record), "resumed": vars(resumed), "generators_agreed": saved_seed_agreed}


def load(file: Path, model: nn.Module, sparsifier: Sparsifier) -> None:
    saved = torch.load(file, weights_only=True, map_location="cpu")
    model.load_state_dict(saved["model"])
    sparsifier.load_state_dict(saved["sparsifier"])


def run_without_ddp(case: Case, rank: Rank, folder: Path) -> dict[str, Any]:
    """Weights of their own on every rank; then the same that stand still, so that gradients alone decide."""
    model = smooth(rank.number)
    result = {"apart": vars(train(model, sparsify(case, model, rank), rank))}
    if case in BY_GRADIENT:
        result["still"] = vars(train_still(case, rank))
    return result


def train_still(case: Case, rank: Rank) -> Record:
    model = smooth()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    return train(model, sparsify(case, model, rank, optimizer=optimizer), rank)


def run_helpers(rank: Rank) -> dict[str, Any]:
    """The functions of ranks.py, where ranks differ in what they have."""
    here, nowhere = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    if rank.number == 0:
        here.grad = torch.tensor([1.0, 2.0, 3.0])
    average_gradients([nowhere, here])
    images = torch.arange(24.0).reshape(1, 2, 3, 4) + 24 * rank.number
    strided = images.contiguous(memory_format=torch.channels_last) if rank.number else images
    return {
        "here": here.grad,
        "nowhere": nowhere.grad,
        "mean": mean_over_ranks(strided),
        "first": from_first_rank(strided),
    }


RUNS = {"ddp": run_ddp, "without_ddp": run_without_ddp}


def results(run: str, rank: Rank, folder: Path) -> Iterator[tuple[str, Any]]:
    for case in EVERY_CASE:
        yield case.name, RUNS[run](case, rank, folder)
    if run == "without_ddp":
        yield f"helpers of rank {rank.number}", run_helpers(rank)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", choices=RUNS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backend", default="gloo")
    parser.add_argument("--file", help="two ranks meet in this file; without it, torchrun says where")
    parser.add_argument("--rank", type=int, default=-1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    meeting = {} if arguments.file is None else {"init_method": f"file://{arguments.file}", "world_size": 2}
    dist.init_process_group(arguments.backend, rank=arguments.rank, timeout=timedelta(seconds=60), **meeting)
    number = dist.get_rank()
    device = "cpu" if arguments.backend == "gloo" else f"cuda:{number}"
    if device != "cpu":
        torch.cuda.set_device(device)
    done = dict(results(arguments.run, Rank(number, dist.get_world_size(), device), arguments.folder))
    torch.save(done, arguments.folder / f"{arguments.run}.{number}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
