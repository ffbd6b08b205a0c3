"""Every family of timm and every architecture of transformers in tests/zoo/foreign.py, with `pytest -m long`.

`python -m benchmarks.interoperation` runs the same cases and keeps their figures.
"""

from __future__ import annotations

import pytest

from sparsefx.passes.errors import VerificationError
from tests.zoo.foreign import all_names, find_model
from tests.zoo.foreign_case import run_case

GRAPH_TOLERANCE = 1e-9
_FLOAT32 = {"transformers: DebertaV2": 1e-6}  # its scale is a constant of float32, folded as such
_UNSTEADY = "differs by .* between its own precision"  # with random weights
_NOTHING_GOES = {
    "timm: convnextv2_atto",  # its response normalisation reads every channel of the MLP
    "timm: gmlp_s16_224",  # one factor of every gate comes from a LayerNorm
    "transformers: GPT2",  # its layers are transformers' Conv1D, which the masks pass by
}
_REFUSED = {"timm: cait_xxs24_224": _UNSTEADY, "timm: coat_tiny": _UNSTEADY, "timm: starnet_s1": _UNSTEADY}


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", all_names())
def test_foreign_models_are_exact(name: str) -> None:
    pytest.importorskip(name.partition(":")[0], reason=f"needs {name.partition(':')[0]}")
    model = find_model(name)
    if model is None:
        pytest.skip(f"the installed library has no {name}")
    if name in _REFUSED:
        with pytest.raises(VerificationError, match=_REFUSED[name]):
            run_case(model)
        return
    result = run_case(model)
    assert result.graph_error <= _FLOAT32.get(name, GRAPH_TOLERANCE)
    assert result.engine_error <= result.engine_bound
    assert (result.channels_kept == result.channels) is (name in _NOTHING_GOES)
