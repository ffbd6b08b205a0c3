"""`sparsefx inspect`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from sparsefx.cli.exit_codes import OK
from sparsefx.cli.output import show
from sparsefx.passes.errors import BundleError


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("path", help="a bundle, or a file of masks")


def run(arguments: Namespace) -> int:
    path = Path(arguments.path)
    if not path.exists():
        raise BundleError(f"there is nothing at {path}; expected a bundle or a file of masks")
    data, text = _bundle(path) if path.is_dir() else _masks(path)
    show(arguments.json, data, text)
    return OK


def _bundle(path: Path) -> tuple[dict[str, Any], str]:
    from sparsefx.compiler.bundle import read_manifest, read_report
    from sparsefx.compiler.report_text import report_text
    from sparsefx.passes.signature import Signature

    report, manifest = read_report(path), read_manifest(path)
    signature = Signature.from_json(manifest["signature"])
    settings, versions = manifest["settings"], manifest["versions"]
    size = sum(file["bytes"] for file in manifest["files"].values())
    lines = [
        f"{path}: bundle for {settings['target']} ({settings['precision']}), {size / 2**20:.1f} MiB, files intact",
        f"made {manifest['created']} with " + ", ".join(f"{name} {v}" for name, v in versions.items()),
        *(f"input  {spec}" for spec in signature.inputs),
        *(f"output {spec}" for spec in signature.outputs),
        "",
        report_text(report),
    ]
    return {"manifest": manifest, "report": report}, "\n".join(lines)


def _masks(path: Path) -> tuple[dict[str, Any], str]:
    from sparsefx.compiler.report_text import shape_text
    from sparsefx.training.masks import MaskSet

    masks = MaskSet.load(path)
    rows: list[dict[str, Any]] = [
        {
            "name": n,
            "shape": list(masks.shape(n)),
            "density": masks.density(n),
            "structure": masks.structure(n).to_dict(),
        }
        for n in masks
    ]
    made = {"method": masks.method, "step": masks.step, "settings": masks.settings, "versions": masks.versions}
    lines = [f"{path}: {len(masks)} masks, density {masks.density():.4f}, method {masks.method}, step {masks.step}"]
    width = max((len(name) for name in masks), default=0)
    lines += [
        f"  {row['name']:{width}s}  {shape_text(row['shape']):>16s}  {row['density']:7.2%}  {row['structure']['kind']}"
        for row in rows
    ]
    return {**made, "density": masks.density(), "masks": rows}, "\n".join(lines)
