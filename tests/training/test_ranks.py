"""Two ranks with different data, weights and seeds must agree on every mask, and decide as one process would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsefx.training import Campfire
from sparsefx.training.exploring import ExploringSparsifier
from sparsefx.training.ranks import average_gradients, from_first_rank, mean_over_ranks, number_from_first_rank

from .helpers import smooth
from .methods import STEPS, Case
from .rank_worker import (
    ALONE,
    BY_GRADIENT,
    EVERY_CASE,
    SAVED_AT,
    flat_masks,
    load,
    sparsify,
    train,
    train_still,
)

ROOT = Path(__file__).parents[2]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
WORKER = ("-m", "tests.training.rank_worker")
ENVIRONMENT = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}

every_case = pytest.mark.parametrize("case", EVERY_CASE, ids=lambda case: case.name)


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(*processes: subprocess.Popen[str]) -> None:
    """Wait for all, or end those that still run."""
    try:
        for process in processes:
            output, _ = process.communicate(timeout=180)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def ddp(folder: Path) -> dict[str, Any]:
    """Every method under DistributedDataParallel, started by torchrun."""
    finish(start(*TORCHRUN, *WORKER, "ddp", folder))
    results: dict[str, Any] = torch.load(folder / "ddp.0", weights_only=True)
    return results


@pytest.fixture(scope="module")
def without_ddp(folder: Path) -> dict[str, Any]:
    """Every method on two ranks that exchange masks only; they meet in a file."""
    finish(*(start(*WORKER, "without_ddp", folder, "--rank", n, "--file", folder / "meeting") for n in (0, 1)))
    first, second = (torch.load(folder / f"without_ddp.{number}", weights_only=True) for number in (0, 1))
    return {**second, **first}


@pytest.mark.ci
@every_case
def test_masks_and_weights_agree_on_every_rank_after_every_step(case: Case, ddp: dict[str, Any]) -> None:
    for record, steps in ((ddp[case.name]["trained"], STEPS), (ddp[case.name]["resumed"], STEPS - SAVED_AT)):
        assert record["masks_agreed"] == [True] * (steps + 1)
        assert record["weights_agreed"][1:] == [True] * steps
    assert ddp[case.name]["generators_agreed"], "a state saved on any rank is the same"


@pytest.mark.ci
@every_case
def test_two_ranks_train_like_one_process_with_the_whole_batch(case: Case, ddp: dict[str, Any]) -> None:
    model = smooth()
    alone = train(model, sparsify(case, model, ALONE), ALONE)
    trained = ddp[case.name]["trained"]
    for step, (one, two) in enumerate(zip(alone.masks, trained["masks"], strict=True)):
        assert torch.equal(one, two), f"after step {step}"
    torch.testing.assert_close(alone.weights, trained["weights"])


@pytest.mark.ci
@every_case
def test_two_ranks_resume_from_their_state(case: Case, ddp: dict[str, Any]) -> None:
    trained, resumed = ddp[case.name]["trained"], ddp[case.name]["resumed"]
    for step, mask in enumerate(resumed["masks"], start=SAVED_AT):
        assert torch.equal(mask, trained["masks"][step]), f"after step {step}"
    assert torch.equal(resumed["weights"], trained["weights"])


@pytest.mark.ci
@every_case
def test_one_process_resumes_from_the_state_of_two_ranks(case: Case, ddp: dict[str, Any], folder: Path) -> None:
    model = smooth(seed=5)
    sparsifier = sparsify(case, model, ALONE)
    load(folder / f"{case.name}.state", model, sparsifier)
    trained = ddp[case.name]["trained"]
    assert sparsifier.step_count == SAVED_AT
    assert torch.equal(flat_masks(sparsifier), trained["masks"][SAVED_AT])
    assert not isinstance(sparsifier, ExploringSparsifier) or sparsifier.exploring, (
        "saved in the middle of an exploration"
    )
    alone = train(model, sparsifier, ALONE, first=SAVED_AT)
    assert torch.equal(alone.masks[-1], trained["masks"][-1])
    torch.testing.assert_close(alone.weights, trained["weights"])
    if not isinstance(sparsifier, Campfire):  # its patterns count whole kernels
        assert sparsifier.nonzeros == sparsifier.target_nonzeros


@pytest.mark.ci
@every_case
def test_masks_agree_where_weights_do_not(case: Case, without_ddp: dict[str, Any]) -> None:
    record = without_ddp[case.name]["apart"]
    assert record["masks_agreed"] == [True] * (STEPS + 1)
    assert not any(record["weights_agreed"])


@pytest.mark.ci
@pytest.mark.parametrize("case", BY_GRADIENT, ids=lambda case: case.name)
def test_growth_goes_by_the_mean_gradient_without_ddp(case: Case, without_ddp: dict[str, Any]) -> None:
    alone, record = train_still(case, ALONE), without_ddp[case.name]["still"]
    assert any(not torch.equal(mask, alone.masks[0]) for mask in alone.masks)
    for step, (one, two) in enumerate(zip(alone.masks, record["masks"], strict=True)):
        assert torch.equal(one, two), f"after step {step}"


@pytest.mark.ci
def test_a_rank_without_gradient_counts_as_zeros(without_ddp: dict[str, Any]) -> None:
    for rank in (0, 1):
        helpers = without_ddp[f"helpers of rank {rank}"]
        assert helpers["here"].tolist() == [0.5, 1.0, 1.5]
        assert helpers["nowhere"] is None


@pytest.mark.ci
def test_what_is_sent_does_not_depend_on_the_order_in_memory(without_ddp: dict[str, Any]) -> None:
    first = torch.arange(24.0).reshape(1, 2, 3, 4)
    for rank in (0, 1):
        helpers = without_ddp[f"helpers of rank {rank}"]
        assert torch.equal(helpers["first"], first)
        assert torch.equal(helpers["mean"], first + 12)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="NCCL needs a CUDA device for each of two ranks")
def test_masks_agree_under_nccl(tmp_path: Path) -> None:
    finish(start(*TORCHRUN, *WORKER, "ddp", tmp_path, "--backend", "nccl"))
    for name, result in torch.load(tmp_path / "ddp.0", weights_only=True).items():
        assert all(result["trained"]["masks_agreed"] + result["resumed"]["masks_agreed"]), name


def test_alone_nothing_is_sent() -> None:
    gradient, mask = torch.randn(3), torch.tensor([True, False])
    assert mean_over_ranks(gradient) is gradient
    assert from_first_rank(mask) is mask
    assert number_from_first_rank(2**63 + 1, torch.device("cpu")) == 2**63 + 1
    parameter = torch.nn.Parameter(torch.zeros(3))
    parameter.grad = gradient
    average_gradients([parameter])
    assert parameter.grad is gradient
