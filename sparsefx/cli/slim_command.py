"""`sparsefx slim`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from sparsefx.cli.exit_codes import OK
from sparsefx.cli.flags import model_flags
from sparsefx.cli.output import to_json
from sparsefx.cli.progress import stages


def add_arguments(parser: ArgumentParser) -> None:
    model_flags(parser)
    parser.add_argument(
        "-o", "--output", required=True, metavar="FOLDER", help="where weights, configuration and masks go"
    )
    parser.add_argument(
        "--fixed-sizes", action="store_true", help="remove more, exact at the sizes in --input only (any batch)"
    )
    parser.add_argument("--static-batch", action="store_true", help="fix the batch to the one in --input")
    parser.add_argument("--no-verify", action="store_true", help="do not compare with the masked model")


def run(arguments: Namespace) -> int:
    from sparsefx.cli.model_arguments import example_inputs, load_model
    from sparsefx.compiler.slim import slim
    from sparsefx.compiler.slimming.config import config_of
    from sparsefx.compiler.slimming.save import save_slim

    with stages(arguments.quiet) as announce:
        announce("load")
        model, masks = load_model(arguments)
        announce("slim")
        small, slim_masks = slim(
            model,  # type: ignore[arg-type]  # an exported program is refused there
            example_inputs(arguments),
            masks,
            dynamic_batch=not arguments.static_batch,
            fixed_sizes=arguments.fixed_sizes,
            verify=not arguments.no_verify,
            tolerance=arguments.tolerance,
        )
        announce("save")
        save_slim(arguments.output, small, slim_masks)
    config = config_of(small)
    assert config is not None
    before, after, kept = config["parameters_before"], config["parameters_after"], config["kept_for_forward"]
    if arguments.json:
        facts = {"parameters_before": before, "parameters_after": after, "verified": not arguments.no_verify}
        print(to_json({**facts, "kept_for_forward": kept, "folder": arguments.output}))
        return OK
    print(f"{config['model']}: {before:,} parameters, {after:,} after ({after / max(before, 1):.0%})")
    for reason in kept:
        print(f"channels kept: {reason}")
    print(f"Saved in {arguments.output}")
    return OK
