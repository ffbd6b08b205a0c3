"""Every Triton kernel becomes PTX and machine code with the parameters that it is called with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sparsefx.passes.errors import TargetError
from sparsefx.runtime.kernels.cuda import compile_triton
from sparsefx.runtime.kernels.cuda.__main__ import main
from sparsefx.runtime.kernels.cuda.compile_nvcc import declared_parameters
from sparsefx.runtime.kernels.cuda.compile_triton import ARCHITECTURES, Variant, compile_all, compile_variant, variants

from .needs import needs_nvcc, needs_triton

pytestmark = needs_triton


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_kernel_in_each_type(architecture: int) -> None:
    made = compile_all([architecture])
    assert {(c.variant.kernel, c.variant.type) for c in made} == {
        (kernel, kind)
        for kernel in ("rows_kernel", "columns_kernel", "transpose_kernel")
        for kind in ("fp32", "fp16", "bf16")
    }
    for compiled in made:
        assert f".target sm_{architecture}" in compiled.ptx
        assert compiled.cubin[:4] == b"\x7fELF"


@pytest.mark.long
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_everything_that_can_be_launched(architecture: int) -> None:
    everything = variants(everything=True)
    assert len(everything) == len(set(everything)) == 3 * 2 * 12 * (4 + 2) + 3
    for variant in everything:
        assert compile_variant(variant, architecture).cubin[:4] == b"\x7fELF"


def test_sizes_of_one_are_constants_when_a_kernel_is_launched() -> None:
    """Triton makes them so; every size that may be one has to work as a constant too."""
    ones = {
        "rows_kernel": ("samples", "inputs", "outputs"),
        "columns_kernel": (
            *("outputs", "points", "column_step", "image_points", "row_points"),
            *("image_step", "row_step", "point_step", "image_place", "neuron_place", "point_place", "chunks"),
        ),
        "transpose_kernel": ("rows", "columns"),
    }
    for variant in variants(everything=False):
        if variant.type == "fp32":
            sizes = ones[variant.kernel]
            lone = [(size,) for size in sizes] if variant.kernel != "columns_kernel" else [("column_step", "chunks")]
            for chosen in (sizes, *lone):
                constants = (*variant.constants, *((size, 1) for size in chosen))
                assert compile_variant(dataclasses.replace(variant, constants=constants), 90).cubin[:4] == b"\x7fELF"


def test_another_parameter_list_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    variant: Variant = variants(everything=False)[0]
    monkeypatch.setattr(compile_triton, "_SCRATCH", ("u64",))
    with pytest.raises(TargetError, match=r"compiled rows_kernel fp32 .* with parameters .*, expected"):
        compile_variant(variant, 80)


@needs_nvcc
def test_the_command_writes_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--architectures", "80", "-o", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"sm_80: {len(declared_parameters())} kernels of the plugins" in said
    assert f"sm_80: {len(variants(everything=False))} variants of Triton's kernels" in said
    assert (
        len(list(tmp_path.glob("*.ptx"))) == len(list(tmp_path.glob("*.cubin"))) == 1 + len(variants(everything=False))
    )


def test_the_command_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CUDACXX", "nvcc-of-1999")
    assert main(["--architectures", "80"]) == 1
    assert "install the CUDA toolkit" in capsys.readouterr().err
