"""`sparsefx compile`."""

from __future__ import annotations

from argparse import Namespace

from sparsefx.cli.load_function import load_function
from sparsefx.cli.model_arguments import example_inputs, load_model
from sparsefx.cli.progress import stages
from sparsefx.compiler.compile import compile
from sparsefx.passes.errors import EvaluationError


def run(arguments: Namespace) -> int:
    with stages(arguments.quiet) as announce:
        announce("load")
        model, masks = load_model(arguments)
        try:
            compiled = compile(
                model,
                example_inputs(arguments),
                masks=masks,
                target=arguments.target,
                precision=arguments.precision,
                representation=arguments.representation,
                widths=arguments.widths,
                threads=arguments.threads,
                max_batch=arguments.max_batch,
                dynamic_batch=not arguments.static_batch,
                latency_table=arguments.latency_table,
                verify=not arguments.no_verify,
                tolerance=arguments.tolerance,
                compare=arguments.compare,
                evaluate=arguments.evaluate and load_function("--evaluate", arguments.evaluate),
                on_stage=announce,
            )
        except EvaluationError as error:
            if error.compiled is None:
                raise
            error.compiled.save(arguments.output, embed_kernels=arguments.embed_kernels)
            raise EvaluationError(f"{error}; all else is saved as {arguments.output}") from error
        announce("save")
        compiled.save(arguments.output, embed_kernels=arguments.embed_kernels)
    print(compiled.report.to_json() if arguments.json else f"{compiled.report}\nSaved as {arguments.output}")
    return 0
