"""`sparsefx compile`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from sparsefx.cli.exit_codes import OK
from sparsefx.cli.flags import model_flags, threads_flag
from sparsefx.cli.output import to_json
from sparsefx.cli.progress import stages
from sparsefx.passes.errors import EvaluationError, TargetError


def add_arguments(parser: ArgumentParser) -> None:
    model_flags(parser)
    parser.add_argument("-o", "--output", required=True, metavar="BUNDLE", help="folder to write, usually NAME.sfx")
    parser.add_argument(
        "--target",
        default="onnxruntime:cpu",
        help="engine to build: onnxruntime:cpu, tensorrt:sm90, tensorrt-rtx:sm89, torch ... (onnxruntime:cpu)",
    )
    parser.add_argument(
        "--precision",
        default="fp32",
        help="fp32; bf16 on the CPU for the weights of condensed linear layers; fp16 or bf16 for TensorRT (fp32)",
    )
    parser.add_argument("--max-batch", type=int, help="largest batch that TensorRT builds for (32)")
    parser.add_argument(
        "--representation",
        default="measured",
        help="how sparse layers run: measured (the faster of dense and condensed, the default), dense or condensed",
    )
    parser.add_argument(
        "--widths",
        default="exact",
        help="exact, or measured: keep removable channels where they fill the engine's blocks and it is faster (exact)",
    )
    parser.add_argument(
        "--latency-table",
        metavar="FILE",
        help="of `sparsefx profile`: keep removable channels where a wider layer is faster",
    )
    parser.add_argument("--compare", action="store_true", help="time the engine beside the dense one, for the report")
    parser.add_argument(
        "--evaluate",
        metavar="FUNCTION",
        help="module:function from a model to a number or a dict of them: of the dense, masked and compiled model",
    )
    parser.add_argument("--embed-kernels", action="store_true", help="put the compiled kernels into the bundle")
    parser.add_argument("--static-batch", action="store_true", help="fix the batch to the one in --input")
    parser.add_argument("--no-verify", action="store_true", help="do not compare the engine with the masked model")
    threads_flag(parser)


def run(arguments: Namespace) -> int:
    from sparsefx.cli.load_function import load_function
    from sparsefx.cli.model_arguments import example_inputs, load_model
    from sparsefx.cli.summary import print_summary, saved_as
    from sparsefx.compiler.bundle import check_place
    from sparsefx.compiler.compile import compile
    from sparsefx.runtime.targets import TORCH

    if arguments.target == TORCH.name:
        raise TargetError(
            f"target {TORCH.name} stops at the graph, and there is no file of it; in Python, "
            'sparsefx.compile(..., target="torch").graph_module is it'
        )
    check_place(Path(arguments.output))
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
                on_progress=announce.share,
            )
        except EvaluationError as error:
            if error.compiled is None:
                raise
            error.compiled.save(arguments.output, embed_kernels=arguments.embed_kernels)
            raise EvaluationError(f"{error}; all else is saved as {arguments.output}") from error
        announce("save")
        compiled.save(arguments.output, embed_kernels=arguments.embed_kernels)
    report = compiled.report.to_dict()
    if arguments.json:
        print(to_json(report))
    else:
        print_summary(report, compiled.settings, saved_as(arguments.output, model))
    return OK
