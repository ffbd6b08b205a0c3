"""`sparsefx slim`."""

from __future__ import annotations

import json
from argparse import Namespace

from sparsefx.cli.model_arguments import example_inputs, load_model
from sparsefx.cli.progress import stages
from sparsefx.compiler.slim import slim
from sparsefx.compiler.slimming.config import config_of
from sparsefx.compiler.slimming.save import save_slim


def run(arguments: Namespace) -> int:
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
        print(json.dumps({**facts, "kept_for_forward": kept, "folder": arguments.output}, indent=1))
        return 0
    print(f"{config['model']}: {before:,} parameters, {after:,} after ({after / max(before, 1):.0%})")
    for reason in kept:
        print(f"channels kept: {reason}")
    print(f"Saved in {arguments.output}")
    return 0
