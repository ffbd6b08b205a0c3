"""`sparsefx verify`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from sparsefx.cli.exit_codes import NEGATIVE, OK
from sparsefx.cli.flags import model_flags, threads_flag, trust_flag
from sparsefx.cli.output import show
from sparsefx.cli.progress import stages

_ROUNDED = (
    "Note: this engine's linear layers have weights rounded to bfloat16, and the bound is that of float32. What the "
    "rounding alone does is in the bundle's report (report.json: verification); allow for it with --tolerance."
)

_FAILED = (
    "FAILED: the engine is not this model with these weights and masks. See that all three are those it was compiled "
    "from; where they are, compile again"
)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("bundle", help="folder of a bundle")
    model_flags(parser)
    trust_flag(parser)
    threads_flag(parser)


def run(arguments: Namespace) -> int:
    from sparsefx.cli.model_arguments import example_inputs, load_model
    from sparsefx.compiler.bundle import load
    from sparsefx.compiler.compile import verify_engine
    from sparsefx.compiler.report_text import verification_lines

    with stages(arguments.quiet) as announce:
        announce("load")
        engine = load(arguments.bundle, arguments.threads, trust_kernels=arguments.trust_kernels)
        model, masks = load_model(arguments)
        announce("verification")
        verification = verify_engine(
            engine,
            model,
            example_inputs(arguments),
            masks=masks,
            tolerance=arguments.tolerance,
            on_progress=announce.share,
        )
    lines = verification_lines(verification.to_dict()) + [f"Note: {note}" for note in verification.notes]
    if verification.passed:
        lines.append("passed")
    elif engine.session.settings()["precision"] == "bfloat16":
        lines += [_ROUNDED, "FAILED"]
    else:
        lines.append(_FAILED)
    found = {**verification.to_dict(), "passed": verification.passed, "notes": verification.notes}
    show(arguments.json, found, "\n".join(lines))
    return OK if verification.passed else NEGATIVE
