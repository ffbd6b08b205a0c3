"""Two processes with different data and different seeds must agree on every mask."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from sparsefx.training.ranks import from_first_rank, mean_over_ranks

SCRIPT = """
import sys
import torch
from torch import distributed, nn
from sparsefx.training import Chase, RigL

rank, store = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
for method in (RigL, Chase):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 2))
    inputs = {"example_inputs": (torch.zeros(2, 3, 8, 8),), "prune_first": True} if method is Chase else {}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = method(model, optimizer, sparsity=0.8, total_steps=12, update_interval=2, seed=rank, **inputs)
    torch.manual_seed(rank)
    for _ in range(12):
        sparsifier.zero_grad()
        model(torch.randn(4, 3, 8, 8)).square().mean().backward()
        sparsifier.step()
    sparsifier.masks().save(f"{store}.{method.__name__}.{rank}")
    assert len(sparsifier.history) > 3
distributed.destroy_process_group()
"""


def test_masks_agree_on_every_rank(tmp_path: Path) -> None:
    from sparsefx.training import MaskSet

    store = str(tmp_path / "store")
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(rank), store], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    for process in ranks:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    for method in ("RigL", "Chase"):
        first, second = (MaskSet.load(f"{store}.{method}.{rank}") for rank in (0, 1))
        assert first == second


def test_alone_nothing_is_sent() -> None:
    gradient, mask = torch.randn(3), torch.tensor([True, False])
    assert mean_over_ranks(gradient) is gradient
    assert from_first_rank(mask) is mask
