"""`sparsefx train`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from sparsefx.cli.flags import threads_flag


def add_arguments(parser: ArgumentParser) -> None:
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
    parser.add_argument("--epochs", type=int, help="passes over the training data (10)")
    parser.add_argument("--batch-size", type=int, help="samples of a step (64)")
    parser.add_argument("--learning-rate", type=float, help="the highest of the schedule (0.1)")
    parser.add_argument("--precision", help="float32, or bfloat16 for mixed precision (float32)")
    parser.add_argument("--seed", type=int, help="of weights, data and masks (0)")
    parser.add_argument("--checkpoint-steps", type=int, help="steps between checkpoints (100)")
    parser.add_argument("--plot", action="store_true", help="draw what mask updates did, as history.png (matplotlib)")
    parser.add_argument("--compile", action="store_true", help="compile and verify the result, as model.sfx")
    threads_flag(parser, "all available; to train on digits and textures 1")


def run(arguments: Namespace) -> int:
    from sparsefx.cli import training

    return training.run(arguments)
