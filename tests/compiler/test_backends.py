"""The tables of targets, of what builds them and of what loads them agree; states are kept apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import sparsefx
from sparsefx.compiler.backends import BACKENDS
from sparsefx.compiler.bundle import read_manifest
from sparsefx.compiler.loaders import LOADERS
from sparsefx.runtime.states import STATES, States
from sparsefx.runtime.targets import KINDS, TORCH


def test_every_target_has_a_row_everywhere() -> None:
    names = {kind.name for kind in KINDS}
    assert len(names) == len(KINDS)
    assert BACKENDS.keys() == names - {TORCH.name}
    assert LOADERS.keys() == {kind.name for kind in KINDS if kind.file}


def test_states_are_kept_apart_and_in_order() -> None:
    states = States()
    states.reach("built", "somewhere")
    states.miss("ran", "no device")
    found = states.to_dict()
    assert tuple(found) == STATES
    assert found["built"] == {"done": True, "detail": "somewhere"} and states["built"]
    assert found["ran"] == {"done": False, "detail": "no device"} and not states["parsed"]
    with pytest.raises(KeyError, match="flown"):
        states.reach("flown")


@pytest.mark.parametrize("verify", [True, False])
def test_an_engine_on_the_cpu_says_what_it_did(verify: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    compiled = sparsefx.compile(nn.Sequential(nn.Linear(4, 3)).eval(), (torch.randn(1, 4),), verify=verify)
    compiled.save(tmp_path / "net.sfx")
    states = read_manifest(tmp_path / "net.sfx")["states"]
    done = {state for state, found in states.items() if found["done"]}
    assert done == {"parsed", "built", "loaded"} | ({"ran", "numerics checked"} if verify else set())
    assert ("not done here: ran, numerics checked (not attempted)" in str(compiled.report)) is not verify
