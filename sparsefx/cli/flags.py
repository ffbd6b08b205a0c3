"""Flags that several commands share."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError

MODEL_HELP = "a factory as module:function (called without arguments), a .pt2 file of torch.export, or an .onnx file"
INPUT_HELP = (
    "shape of an input, as 1x3x224x224, 1x128:int64 or 1x128:int64:30522 (numbers below 30522); repeat per input"
)


def common_flags(parser: ArgumentParser) -> None:
    """What every command takes."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else there")
    parser.add_argument("--quiet", action="store_true", help="no progress; warnings and errors remain")
    parser.add_argument("--traceback", action="store_true", help="with an error, where in the code it happened")


def model_flags(parser: ArgumentParser) -> None:
    """A model with its weights, masks and example inputs, as sparsefx.cli.model_arguments reads them."""
    parser.add_argument("model", help=MODEL_HELP)
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
    parser.add_argument("--input", metavar="SHAPE", action="append", required=True, help=INPUT_HELP)
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, help="largest error in standard deviations of the output (1e-4)"
    )


def positive(text: str) -> int:
    """The type of flags that count something."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"must be a number from 1 up, found {text!r}")
    return int(text)


def threads_flag(parser: ArgumentParser, default: str = "all available") -> None:
    parser.add_argument("--threads", type=positive, help=f"threads inside an operator (default: {default})")


def trust_flag(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--trust-kernels",
        action="store_true",
        help="run the kernels that a bundle holds: code from its author",
    )
