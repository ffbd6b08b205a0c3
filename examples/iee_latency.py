"""IEE under a latency budget: profile the network, spend milliseconds in training, compile, and compare.

python examples/iee_latency.py
python examples/iee_latency.py --share 0.5
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

import sparsefx
from sparsefx.runtime.latency.measure import measure
from sparsefx.training import ChannelIEE
from sparsefx.training.recipes.data.digits import load_digits
from sparsefx.training.recipes.data.task import TensorTask
from sparsefx.training.recipes.nets import SmallResNet
from sparsefx.training.recipes.trained import accuracy

BATCH = 64  # to train with
SERVED = 8  # the batch that the engine is for, and that the table is measured at


def train(task: TensorTask, table: sparsefx.LatencyTable, share: float, epochs: int) -> tuple[SmallResNet, ChannelIEE]:
    model = SmallResNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    example, _ = next(iter(task.test_batches(SERVED)))
    sparsifier = ChannelIEE(
        model,
        optimizer,
        total_steps=epochs * math.ceil(task.train_size / BATCH),
        example_inputs=(example,),
        costs=table,
        latency_budget=share * table.predict_widths(model, {}),  # milliseconds
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(sparsifier, T_max=epochs)
    for epoch in range(epochs):
        model.train()
        for images, labels in task.train_batches(BATCH, seed=0, epoch=epoch):
            sparsifier.zero_grad()
            cross_entropy(model(images), labels).backward()
            sparsifier.step()
        scheduler.step()
    return model.eval(), sparsifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.7, help="of the dense network's latency")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=3.0, help="to time for")
    parser.add_argument("--output", type=Path, default=Path("iee"))
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a network this small loses more to waiting for a second core than it gives
    task = load_digits()
    images, _ = next(iter(task.test_batches(SERVED)))
    arguments.output.mkdir(parents=True, exist_ok=True)

    dense = SmallResNet().eval()
    path = arguments.output / "net.latency"
    print(f"profiling the network into {path}, which takes some minutes", flush=True)
    table = sparsefx.profile(dense, (images,), threads=1, path=path)  # goes on with what is there
    whole = table.predict_widths(dense, {})
    print(f"profiled {len(table.records)} networks; the dense one takes {whole:.2f} ms, by the table")

    model, sparsifier = train(task, table, arguments.share, arguments.epochs)
    last = sparsifier.budget_history[-1]
    print(f"budget {last.budget:.2f} ms, spent {last.cost:.2f} ms by the table; channels kept: {last.kept}")

    how = {"threads": 1, "representation": "dense"}
    compiled = sparsefx.compile(model, (images,), masks=sparsifier.masks(), **how)
    compiled.save(arguments.output / "model.sfx")
    engines = {
        "dense": sparsefx.compile(dense, (images,), **how).engine(),
        "within budget": compiled.engine(),
    }
    print(compiled.report)
    arrays = [images.numpy()]
    found = measure(
        {name: engine.session.prepare(arrays) for name, engine in engines.items()}, seconds=arguments.seconds
    )
    for name, times in found.items():
        print(f"{name}: {1e3 * times.median:.2f} ms, {times.ratio_to(found['dense']):.2f} of dense")
    foretold = table.predict(compiled.graph_module, missing="measure")  # what the table lacks is measured now
    print(f"by the table: {foretold:.2f} ms")
    print(f"accuracy of the engine: {accuracy(engines['within budget'], task):.2%}")


if __name__ == "__main__":
    main()
