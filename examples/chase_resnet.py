"""A residual network under Chase: unstructured sparse training that also removes whole channels while it trains.

python examples/chase_resnet.py
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

import sparsefx
from sparsefx.compiler.bench import bench, bench_text
from sparsefx.compiler.compile import verify_engine
from sparsefx.training import Chase
from sparsefx.training.recipes.data.digits import load_digits
from sparsefx.training.recipes.data.task import TensorTask
from sparsefx.training.recipes.nets import SmallResNet
from sparsefx.training.recipes.trained import accuracy

BATCH = 64


def train(task: TensorTask, epochs: int) -> tuple[SmallResNet, Chase]:
    model = SmallResNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    example, _ = next(iter(task.test_batches(2)))
    # 80% zeros; half of the channels go for good, with everything that reads them.
    sparsifier = Chase(
        model,
        optimizer,
        sparsity=0.8,
        channel_sparsity=0.5,
        total_steps=epochs * math.ceil(task.train_size / BATCH),
        example_inputs=(example,),
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(sparsifier, T_max=epochs)
    for epoch in range(epochs):
        model.train()
        for images, labels in task.train_batches(BATCH, seed=0, epoch=epoch):
            sparsifier.zero_grad()
            cross_entropy(model(images), labels).backward()
            sparsifier.step()
        scheduler.step()
        print(f"epoch {epoch + 1}: {sparsifier.sparsity:.1%} zeros, {sparsifier.removed_channels} channels removed")
    return model.eval(), sparsifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0, help="to time for")
    parser.add_argument("--output", type=Path, default=Path("chase"))
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a network this small loses more to waiting for a second core than it gives
    task = load_digits()
    example, _ = next(iter(task.test_batches(1)))

    model, sparsifier = train(task, arguments.epochs)
    masks = sparsifier.masks()
    arguments.output.mkdir(parents=True, exist_ok=True)
    masks.save(arguments.output / "masks.safetensors")

    dense, slim = arguments.output / "dense.sfx", arguments.output / "slim.sfx"
    sparsefx.compile(SmallResNet().eval(), (example,), threads=1).save(dense)
    compiled = sparsefx.compile(model, (example,), masks=masks, threads=1)
    compiled.save(slim)
    totals = compiled.report.totals
    print(compiled.report)
    print(f"channels: {totals.channels_before} -> {totals.channels_after}")

    # compile has verified the engine already; this is how to check any engine, here with images it has not seen.
    engine = sparsefx.load(slim, threads=1)
    images, _ = next(iter(task.test_batches(64)))
    verification = verify_engine(engine, model, (example,), masks=masks, verify_inputs=(images,))
    print(f"verified on test images: {'passed' if verification.passed else 'FAILED'}")
    masks.apply(model)
    print(f"accuracy: masked model {accuracy(model, task):.2%}, engine {accuracy(engine, task):.2%}")
    print("batch 1, one thread:")
    print(bench_text(bench({"dense": dense, "slim": slim}, threads=1, seconds=arguments.seconds, memory=False)))


if __name__ == "__main__":
    main()
