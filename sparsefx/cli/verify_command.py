"""`sparsefx verify`."""

from __future__ import annotations

import json
from argparse import Namespace

from sparsefx.cli.model_arguments import example_inputs, load_model
from sparsefx.cli.progress import stages
from sparsefx.compiler.bundle import load
from sparsefx.compiler.compile import verify_engine
from sparsefx.compiler.report_text import verification_lines

_ROUNDED = (
    "Note: this engine's linear layers have weights rounded to bfloat16, and the bound is that of float32. What the "
    "rounding alone does is in the bundle's report (report.json: verification); allow for it with --tolerance."
)


def run(arguments: Namespace) -> int:
    with stages(arguments.quiet) as announce:
        announce("load")
        engine = load(arguments.bundle, arguments.threads, trust_kernels=arguments.trust_kernels)
        model, masks = load_model(arguments)
        announce("verification")
        verification = verify_engine(
            engine, model, example_inputs(arguments), masks=masks, tolerance=arguments.tolerance
        )
    if arguments.json:
        print(json.dumps(verification.to_dict(), indent=1))
    else:
        print(
            "\n".join([*verification_lines(verification.to_dict()), *(f"Note: {note}" for note in verification.notes)])
        )
        if not verification.passed and engine.session.settings()["precision"] == "bfloat16":
            print(_ROUNDED)
        print("passed" if verification.passed else "FAILED")
    return 0 if verification.passed else 1
