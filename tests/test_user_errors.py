"""Mistakes of users, each told by its cause and by the next step, from Python."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparsefx
from sparsefx import BundleError, CaptureError, MaskError, MaskSet, SparsefxError, TableError, TargetError
from sparsefx import VerificationError as Deviation
from sparsefx.passes.channels.rules import POINTWISE
from sparsefx.training import ChannelIEE, SRigL
from sparsefx.training.importers import read_checkpoint
from sparsefx.training.recipes.config import TrainConfig
from sparsefx.training.recipes.nets import build_net
from sparsefx.training.recipes.presets import preset_config

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


class Branching(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if y.sum() > 0:
            return y
        return -y


class Slicing(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[: int(x.sum().item())]


class Dropping(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), 0.5)  # in every mode


class Rotating(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(x).real


class Decomposing(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svd(super().forward(x).reshape(-1, 2, 2))[1]


def poisoned(value: float, layer: int = 0) -> nn.Module:
    model = mlp()
    model[layer].weight.data[3, 3] = value
    return model


def overflowing() -> nn.Module:
    model = mlp()
    model[0].weight.data.fill_(torch.inf)
    return nn.Sequential(model, nn.Softmax(1))


def compiled(model: Any, *inputs: Any, **options: Any) -> sparsefx.CompiledModel:
    """Down to the graph only, unless a target is given."""
    return sparsefx.compile(model, inputs or (X,), **{"target": "torch", **options})


def sparsifier(model: Any = None, optimizer: Any = None, **options: Any) -> SRigL:
    model = mlp() if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), 0.1) if optimizer is None else optimizer
    return SRigL(model, optimizer, **options)


@dataclass(frozen=True)
class Mistake:
    """What a user does, the error's class, and words of it: those of the cause, then those of the next step."""

    name: str
    make: Callable[[], Any]
    error: type[SparsefxError]
    cause: tuple[str, ...]
    step: tuple[str, ...]

    def __str__(self) -> str:
        return self.name


ENGINE = "onnxruntime:cpu"
OTHER = torch.optim.SGD(mlp().parameters(), 0.1)

COMPILING = [
    Mistake(
        "example of a wrong shape",
        lambda: compiled(mlp(), torch.randn(2, 9)),
        CaptureError,
        ("Sequential itself fails", "2x9 and 8x16", "float32[2, 9]"),
        ("give a tuple of what its forward takes",),
    ),
    Mistake(
        "two examples for one input",
        lambda: compiled(mlp(), X, X),
        CaptureError,
        ("too many positional arguments", "float32[2, 8], float32[2, 8]"),
        ("give a tuple of what its forward takes",),
    ),
    Mistake(
        "an example without a tuple",
        lambda: sparsefx.compile(mlp(), X),  # type: ignore[arg-type]
        CaptureError,
        ("example_inputs must be a tuple", "found Tensor"),
        ("write (x,)",),
    ),
    Mistake(
        "integers for a float model",
        lambda: compiled(mlp(), torch.ones(2, 8, dtype=torch.int64)),
        CaptureError,
        ("Sequential itself fails", "same dtype", "int64[2, 8]"),
        ("in the dtype of its weights",),
    ),
    Mistake(
        "a half-precision model with float inputs",
        lambda: compiled(mlp().half()),
        CaptureError,
        ("same dtype", "float32[2, 8]"),
        ("in the dtype of its weights",),
    ),
    Mistake(
        "a function for a model",
        lambda: compiled(lambda x: x),
        CaptureError,
        ("must be a torch.nn.Module", "found function"),
        ("wrap a function in a module",),
    ),
    Mistake(
        "a state dict for a model",
        lambda: compiled(mlp().state_dict()),
        CaptureError,
        ("must be a torch.nn.Module", "found OrderedDict"),
        ("load a state dict into the model",),
    ),
    Mistake(
        "a branch on data",
        lambda: compiled(Branching(8, 4)),
        CaptureError,
        ("Branching could not be captured", "test_user_errors.py", "if y.sum() > 0"),
        ("replace branches on tensor values by torch.where or torch.cond",),
    ),
    Mistake(
        "a size from data",
        lambda: compiled(Slicing(8, 4)),
        CaptureError,
        ("Slicing could not be captured", "x.sum().item()", "data-dependent"),
        ("avoid .item()",),
    ),
    Mistake(
        "bfloat16 on the CPU",
        lambda: compiled(mlp().bfloat16(), X.bfloat16(), target=ENGINE),
        TargetError,
        ("cannot load model.onnx", "bfloat16 weights"),
        ("compile model.float()",),
    ),
    Mistake(
        "complex numbers",
        lambda: compiled(Rotating(), target=ENGINE),
        TargetError,
        ("complex64", "ONNX has hardly any operator"),
        ("real and imaginary parts", 'target="torch"'),
    ),
    Mistake(
        "an operator that ONNX lacks",
        lambda: compiled(Decomposing(8, 4), target=ENGINE),
        TargetError,
        ("no ONNX form", "_linalg_svd"),
        ("replace it in the model", 'target="torch"'),
    ),
    Mistake(
        "a model on the meta device",
        lambda: compiled(mlp().to("meta")),
        CaptureError,
        ("0.weight of Sequential is on the meta device", "no values"),
        ("to_empty", "load its weights"),
    ),
    Mistake(
        "a lazy module",
        lambda: compiled(nn.Sequential(nn.LazyLinear(4))),
        CaptureError,
        ("0.weight of Sequential has no shape yet", "lazy"),
        ("call the model once",),
    ),
    Mistake(
        "weights that are not a number",
        lambda: compiled(poisoned(torch.nan)),
        CaptureError,
        ("1 of 128 values of 0.weight are not a number", "diverged"),
        ("take an earlier checkpoint",),
    ),
    Mistake(
        "infinite weights",
        lambda: compiled(overflowing()),
        Deviation,
        ("no finite entry", "NaN or infinite"),
        ("look for weights that are too large",),
    ),
    Mistake(
        "a random model",
        lambda: compiled(Dropping(8, 4)),
        Deviation,
        ("differs by", "it is random"),
        ("make it deterministic", "verify=False"),
    ),
    Mistake(
        "BatchNorm without statistics, one sample",
        lambda: compiled(nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4, track_running_stats=False))),
        CaptureError,
        ("Expected more than 1 value per channel", "float32[1, 8]"),
        ("dynamic_batch=False",),
    ),
    Mistake(
        "a target with a slip",
        lambda: compiled(mlp(), target="onnxruntime:cpo"),
        TargetError,
        ("unknown target 'onnxruntime:cpo'",),
        ("did you mean onnxruntime:cpu?", "tensorrt-rtx:smXX"),
    ),
    Mistake(
        "a precision that the target lacks",
        lambda: compiled(mlp(), target=ENGINE, precision="int8"),
        TargetError,
        ("found precision 'int8'",),
        ("fp32, bf16 only",),
    ),
    Mistake(
        "a representation with a slip",
        lambda: compiled(mlp(), representation="condenced"),
        TargetError,
        ("unknown representation 'condenced'",),
        ("did you mean condensed?",),
    ),
    Mistake(
        "no threads",
        lambda: compiled(mlp(), target=ENGINE, threads=0),
        TargetError,
        ("found 0",),
        ("threads must be at least 1",),
    ),
    Mistake(
        "a tolerance that nothing meets",
        lambda: compiled(mlp(), tolerance=-1.0),
        SparsefxError,
        ("tolerance must be a positive number", "found -1.0"),
        ("leave it out", "verify=False"),
    ),
    Mistake(
        "inputs for the verification that do not fit",
        lambda: compiled(mlp(), verify_inputs=[(X,), (torch.randn(2, 9),)]),
        TargetError,
        ("verify_inputs[1]", "must have shape [batch, 8]", "found [2, 9]"),
        ("compile with dynamic_shapes",),
    ),
    Mistake(
        "a rule for an operator with a slip",
        lambda: compiled(mlp(), rules={"aten::rellu": POINTWISE}),
        CaptureError,
        ("a rule for aten::rellu", "no such operator"),
        ("did you mean aten::relu?",),
    ),
    Mistake(
        "a rule that is none",
        lambda: compiled(mlp(), rules={"aten::relu": lambda call: call}),  # type: ignore[dict-item]
        CaptureError,
        ("the rule of aten::relu", "found function"),
        ("must be an OperatorRule",),
    ),
    Mistake(
        "a latency table that is not there",
        lambda: compiled(mlp(), target=ENGINE, latency_table="none.latency"),
        TableError,
        ("none.latency cannot be read", "No such file"),
        ("sparsefx profile",),
    ),
    Mistake(
        "a grid that cannot be spread",
        lambda: sparsefx.profile(mlp(), (X,), grid=[1, 0.5, 0.4, 0.3]),
        TableError,
        ("found 4",),
        ("a prime number of levels",),
    ),
]

MASKS = [
    Mistake(
        "a mask of another shape",
        lambda: compiled(mlp(), masks=MaskSet({"0.weight": torch.ones(3, 3)})),
        MaskError,
        ("the mask of 0.weight has shape (3, 3)", "the parameter (16, 8)"),
        ("do not belong together",),
    ),
    Mistake(
        "a mask of a name with a slip",
        lambda: compiled(mlp(), masks=MaskSet({"0.wieght": torch.ones(16, 8)})),
        MaskError,
        ("no such parameter", "0.wieght"),
        ("did you mean 0.weight?",),
    ),
    Mistake(
        "a mask with NaN",
        lambda: MaskSet({"0.weight": torch.full((16, 8), torch.nan)}),
        MaskError,
        ("the mask of 0.weight", "contains nan"),
        ("holds only 0 and 1",),
    ),
    Mistake(
        "a mask of shares",
        lambda: MaskSet({"0.weight": torch.full((16, 8), 0.5)}),
        MaskError,
        ("contains 0.5",),
        ("Write `mask != 0`",),
    ),
    Mistake(
        "masks as a dict",
        lambda: compiled(mlp(), masks={"0.weight": torch.ones(16, 8)}),
        MaskError,
        ("masks must be a MaskSet or the path", "found dict"),
        ("MaskSet({name: mask})",),
    ),
]


def save(text: bytes, name: str) -> str:
    Path(name).write_bytes(text)
    return name


def saved_model(name: str) -> str:
    torch.save(mlp(), name)
    return name


FILES = [
    Mistake(
        "masks that are no safetensors",
        lambda: MaskSet.load(save(b"hello world, no safetensors", "masks")),
        MaskError,
        ("masks: not a readable safetensors file",),
        ("Save the masks again",),
    ),
    Mistake(
        "masks that are not there", lambda: MaskSet.load("none"), MaskError, ("none: no such file",), ("MaskSet.save",)
    ),
    Mistake("masks that are a folder", lambda: MaskSet.load("."), MaskError, (". is a folder",), ("MaskSet.save",)),
    Mistake(
        "a pickled model",
        lambda: read_checkpoint(saved_model("model.pt")),
        MaskError,
        ("a whole pickled model", "can run code"),
        ("save model.state_dict() alone",),
    ),
    Mistake(
        "a checkpoint of something else",
        lambda: read_checkpoint(save(b"GIF89a", "weights.pth")),
        MaskError,
        ("weights.pth: cannot be read safely", "GIF89a"),
        ("save model.state_dict() alone",),
    ),
]

TRAINING = [
    Mistake(
        "sparsity in percent",
        lambda: sparsifier(total_steps=10, sparsity=90),
        SparsefxError,
        ("sparsity must be in [0, 1)", "found 90"),
        ("for 90% write 0.9",),
    ),
    Mistake(
        "no total_steps",
        lambda: sparsifier(sparsity=0.9),
        SparsefxError,
        ("SRigL needs total_steps",),
        ("len(loader) * epochs",),
    ),
    Mistake(
        "an option with a slip",
        lambda: sparsifier(total_steps=10, drop_fracton=0.3),
        SparsefxError,
        ("SRigL has no option drop_fracton",),
        ("did you mean drop_fraction?",),
    ),
    Mistake(
        "an optimizer of other parameters",
        lambda: sparsifier(optimizer=OTHER, total_steps=10),
        MaskError,
        ("nothing to sparsify in Sequential", "0.weight and 1 more: not trained by the optimizer"),
        ("parameters() of this very model",),
    ),
    Mistake(
        "parameters for an optimizer",
        lambda: sparsifier(optimizer=[], total_steps=10),
        SparsefxError,
        ("must be a torch optimizer", "found list"),
        ("make it first",),
    ),
    Mistake(
        "a pattern that matches nothing",
        lambda: sparsifier(total_steps=10, include=["conv*"]),
        MaskError,
        ("include pattern 'conv*' matches no layer",),
        ("layers are 0, 2",),
    ),
    Mistake(
        "no examples for coupled channels",
        lambda: ChannelIEE(mlp(), OTHER, total_steps=10),  # type: ignore[call-arg]
        SparsefxError,
        ("ChannelIEE needs example_inputs",),
        ("a tuple of tensors",),
    ),
    Mistake(
        "a method with a slip",
        lambda: TrainConfig(method="SRigl"),
        SparsefxError,
        ("unknown method 'SRigl'",),
        ("did you mean SRigL?",),
    ),
    Mistake(
        "a preset with a slip",
        lambda: preset_config("digit-srigl", {}),
        SparsefxError,
        ("unknown preset 'digit-srigl'",),
        ("did you mean digits-srigl?",),
    ),
    Mistake(
        "a network with a slip",
        lambda: build_net("small_resnt", (1, 16, 16), 10),
        SparsefxError,
        ("unknown network 'small_resnt'",),
        ("did you mean small_resnet?", "module:function"),
    ),
]


@pytest.mark.parametrize("mistake", [*COMPILING, *MASKS, *FILES, *TRAINING], ids=str)
def test_a_mistake_is_told_with_its_cause_and_the_next_step(
    mistake: Mistake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _fails_as_told(mistake)
    assert capfd.readouterr() == ("", ""), "what torch or ONNX Runtime print is not for the user"


def _fails_as_told(mistake: Mistake) -> None:
    with pytest.raises(mistake.error) as caught:
        mistake.make()
    message = str(caught.value)
    assert type(caught.value) is mistake.error
    for words in (*mistake.cause, *mistake.step):
        assert words in message, f"{words!r} is not in: {message}"
    assert len(message) < 1200 and len(message.splitlines()) < 8


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "model.sfx"
    sparsefx.compile(mlp(), (X,), representation="dense").save(path)
    return path


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ((torch.randn(2, 9),), ("input input must have shape [batch, 8]", "found [2, 9]", "dynamic_shapes")),
        ((torch.randn(8),), ("must have shape [batch, 8]", "found [8]")),
        ((X, X), ("expected the arguments (input)", "found 2 positional", "as the model's forward")),
        ((), ("expected the arguments (input)", "['input'] missing")),
        ((X.double(),), ("must have dtype float32, found float64", "convert it before the call")),
        ((X.bfloat16(),), ("must have dtype float32, found bfloat16", "convert it before the call")),
        (([[1.0] * 8],), ("must be a NumPy array or a torch tensor, found list",)),
    ],
)
def test_an_engine_names_the_input(bundle: Path, inputs: tuple[Any, ...], words: tuple[str, ...]) -> None:
    with pytest.raises(TargetError) as caught:
        sparsefx.load(bundle)(*inputs)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def _edit(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


def _flip(folder: Path) -> None:
    data = bytearray((folder / "model.onnx").read_bytes())
    data[50] ^= 1
    (folder / "model.onnx").write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_flip, ("model.onnx is damaged", "another checksum", "copy it again")),
        (lambda f: (f / "model.onnx").write_bytes(b""), ("model.onnx is damaged: 0 bytes", "copy it again")),
        (lambda f: (f / "model.onnx").unlink(), ("model.onnx is missing", "copy the whole folder")),
        (lambda f: _edit(f, schema=9), ("bundle schema 9", "upgrade sparsefx")),
        (lambda f: _edit(f, signature=3), ("manifest.json is damaged", "save the bundle again")),
        (lambda f: _edit(f, files=[]), ("manifest.json is damaged", "save the bundle again")),
        (lambda f: (f / "manifest.json").write_text("{"), ("manifest.json cannot be read", "save the bundle again")),
        (lambda f: (f / "manifest.json").unlink(), ("is no bundle", "has no manifest.json")),
        (lambda f: _edit(f, settings={"target": "npu", "precision": "fp32", "threads": 1}), ("target npu", "loads")),
    ],
)
def test_a_bundle_that_cannot_be_loaded(
    bundle: Path, tmp_path: Path, damage: Callable[[Path], Any], words: tuple[str, ...]
) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "bad.sfx"))
    damage(folder)
    with pytest.raises(BundleError) as caught:
        sparsefx.load(folder)
    assert all(word in str(caught.value) for word in ("bad.sfx", *words)), str(caught.value)


def test_a_model_in_training_mode_is_compiled_in_evaluation_mode_and_told() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, 4)).train()
    (note,) = compiled(model).report.notes
    assert "in training mode and was captured in evaluation mode" in note and "BatchNorm1d, Dropout" in note
    assert all(module.training for module in model.modules())
    assert compiled(model.eval()).report.notes == []


def test_infinite_weights_that_leave_finite_outputs_are_noted() -> None:
    class Bounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.bound = nn.Linear(8, 4), nn.Parameter(torch.tensor([1.0, torch.inf, 2.0, 3.0]))

        def forward(self, x: Tensor) -> Tensor:
            return torch.minimum(self.layer(x), self.bound)

    assert compiled(Bounded()).report.notes == ["bound has infinite values"]
