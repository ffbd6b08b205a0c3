"""Commands and their flags; imports nothing heavy, so that --help is instant."""

from __future__ import annotations

import argparse
from typing import Any

from sparsefx.cli.examples import EXAMPLES

_MODEL_HELP = "a factory as module:function (called without arguments), or a .pt2 file of torch.export"
_INPUT_HELP = (
    "shape of an input, as 1x3x224x224, 1x128:int64 or 1x128:int64:30522 (numbers below 30522); repeat per input"
)


def build_parser(version: str) -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="sparsefx",
        description="Compile sparse-trained PyTorch models into smaller engines that are exactly the same function.",
        epilog=EXAMPLES["main"],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sparsefx {version}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, (text, add_arguments) in _COMMANDS.items():
        add_arguments(_command(commands, name, text))
    return parser


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=EXAMPLES[name],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress on the terminal")
    return parser


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help=_MODEL_HELP)
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="safetensors file, or a checkpoint that loads without pickle",
    )
    parser.add_argument(
        "--masks",
        metavar="FILE",
        help="masks as MaskSet.save writes them; default: those in the weights file, or its zeros",
    )
    parser.add_argument("--input", metavar="SHAPE", action="append", required=True, help=_INPUT_HELP)
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, help="largest error in standard deviations of the output (1e-4)"
    )


def _threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, help="threads inside an operator (default: all available)")


def _trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust-kernels",
        action="store_true",
        help="run the kernels that a bundle holds: code from its author",
    )


def _quickstart(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        default="quickstart",
        metavar="FOLDER",
        help="where bundles, weights and masks go (quickstart)",
    )
    parser.add_argument("--method", choices=("srigl", "chase"), default="srigl", help="how to train (srigl)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training (0)")
    _threads(parser)


def _train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", metavar="FOLDER", help="where weights, masks and checkpoints go")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the folder")
    parser.add_argument("--preset", help="published hyper-parameters by name; other flags change them")
    parser.add_argument("--list-presets", action="store_true", help="list the presets with their source")
    parser.add_argument(
        "--method", help="SET, RigL, SRigL, GMP, GraNet, Chase, IEE, Campfire, SNIP, ..., or none (SRigL)"
    )
    parser.add_argument("--sparsity", type=float, help="share of zero weights (the method's default, mostly 0.9)")
    parser.add_argument("--set", action="append", metavar="NAME=VALUE", help="an option of the method; repeat")
    parser.add_argument("--data", help="digits, textures, cifar10, cifar100 or folders (digits)")
    parser.add_argument("--folder", help="where cifar10, cifar100 or folders of images are")
    parser.add_argument("--net", help="a network of the recipes or torchvision, or module:function (small_resnet)")
    parser.add_argument("--epochs", type=int, help="(10)")
    parser.add_argument("--batch-size", type=int, help="(64)")
    parser.add_argument("--learning-rate", type=float, help="(0.1)")
    parser.add_argument("--precision", help="float32, or bfloat16 for mixed precision (float32)")
    parser.add_argument("--seed", type=int, help="(0)")
    parser.add_argument("--checkpoint-steps", type=int, help="steps between checkpoints (100)")
    parser.add_argument("--plot", action="store_true", help="draw what mask updates did, as history.png (matplotlib)")
    parser.add_argument("--compile", action="store_true", help="compile and verify the result, as model.sfx")
    _threads(parser)


def _compile(parser: argparse.ArgumentParser) -> None:
    _model_arguments(parser)
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
    parser.add_argument("--embed-kernels", action="store_true", help="put the compiled kernels into the bundle")
    parser.add_argument("--static-batch", action="store_true", help="fix the batch to the one in --input")
    parser.add_argument("--no-verify", action="store_true", help="do not compare the engine with the masked model")
    _threads(parser)


def _verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", help="folder of a bundle")
    _model_arguments(parser)
    _trust(parser)
    _threads(parser)


def _bench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundles", nargs="+", metavar="bundle", help="bundles to time; ratios are to the first")
    parser.add_argument("--sizes", default="", help="dynamic sizes, as batch=8,height=224 (default: 1 each)")
    parser.add_argument("--seconds", type=float, default=5.0, help="time to measure for (5)")
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory in separate processes")
    _trust(parser)
    _threads(parser)


def _inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", help="a bundle, or a file of masks")


def _profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help=_MODEL_HELP)
    parser.add_argument("--weights", metavar="FILE", help="safetensors file, or a checkpoint that loads without pickle")
    parser.add_argument("--input", metavar="SHAPE", action="append", required=True, help=_INPUT_HELP)
    parser.add_argument(
        "-o", "--output", required=True, metavar="TABLE", help="the table's file; goes on if there is one"
    )
    parser.add_argument("--target", default="onnxruntime:cpu", help="engine to profile (onnxruntime:cpu)")
    parser.add_argument(
        "--precision", default="fp32", choices=["fp32", "fp16", "bf16"], help="of a GPU's engine (fp32)"
    )
    parser.add_argument("--grid", metavar="LEVELS", help="shares of the full width to measure, as 1,0.75,0.5,0.25,0.1")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="end then with what is measured")
    parser.add_argument("--spread", type=float, default=0.02, help="certainty at which repetitions end (0.02)")
    parser.add_argument("--cold", action="store_true", help="read other memory before every run (default: run twice)")
    parser.add_argument("--shard", metavar="I/N", help="measure the I-th of N parts, to be merged")
    _threads(parser)


def _table(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tables", nargs="+", metavar="table", help="latency tables, as sparsefx profile writes them")
    parser.add_argument("--merge", metavar="TABLE", help="write all measurements of the tables to one file")
    parser.add_argument("--diff", action="store_true", help="compare two tables, by kind of operator")
    parser.add_argument("--plot", metavar="LAYER", help="draw a layer's staircase (matplotlib)")
    parser.add_argument("-o", "--output", default="staircase.png", metavar="FILE", help="picture to draw (png, svg)")


def _serve_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundles", nargs="+", metavar="bundle", help="bundles to serve")
    parser.add_argument(
        "-o", "--output", required=True, metavar="REPOSITORY", help="model repository; its other models stay"
    )
    parser.add_argument("--name", help="the model's name (that of the folder); several TensorRT bundles are one model")
    parser.add_argument("--max-batch-size", type=int, help="requests run as one at most; 0: no batching (8)")
    parser.add_argument("--preferred-batch-sizes", default="", metavar="N,N", help="batches that run at once")
    parser.add_argument(
        "--max-queue-delay", type=int, default=0, metavar="MICROSECONDS", help="wait so long for more requests (0)"
    )
    parser.add_argument("--instances", type=int, default=1, help="copies that run side by side (1)")
    parser.add_argument("--gpus", default="", metavar="N,N", help="devices that serve a GPU engine (all)")
    parser.add_argument("--sizes", default="", help="dynamic sizes of warm-up requests, as height=224,width=224")
    parser.add_argument("--no-warm-up", action="store_true", help="no requests before the model is ready")
    parser.add_argument("--version", type=int, default=1, help="number to export as; other versions stay (1)")
    parser.add_argument("--serve-versions", default="latest:1", help="latest:N, all, or numbers as 1,3 (latest:1)")
    parser.add_argument(
        "--mounted-at", metavar="PATH", help="where the server finds the repository (where it is written)"
    )
    parser.add_argument(
        "--kernels", metavar="LIBRARY", help="of `sparsefx kernels build` at the server (compiled here)"
    )
    parser.add_argument("--no-kernels", action="store_true", help="condensed layers run as dense ones")
    _trust(parser)
    _threads(parser)


def _kernels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("build",), help="build: compile them, and print where the library is")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="where the library goes (the user's cache)")
    parser.add_argument(
        "--march", metavar="NAME", help="processor that all of it may rely on, as the compiler calls it"
    )


_COMMANDS = {
    "quickstart": ("train a small sparse network on real digits, compile, verify and time it", _quickstart),
    "train": ("train a network sparse, with checkpoints, to weights and masks", _train),
    "compile": ("compile a masked model into a bundle", _compile),
    "verify": ("compare a bundle's engine with the masked model", _verify),
    "bench": ("time bundles against each other in one interleaved run", _bench),
    "inspect": ("show what is in a bundle or in a file of masks", _inspect),
    "profile": ("measure a model's layers in its engine at other widths, as a latency table", _profile),
    "table": ("show, merge, compare or draw latency tables", _table),
    "serve-export": ("write bundles as a model repository of NVIDIA Triton Inference Server", _serve_export),
    "kernels": ("compile the kernels of condensed layers ahead of their first use", _kernels),
}
