"""Online inference: an MLP trained to 95% sparsity with SRigL answers single requests faster than the dense one.

python examples/srigl_online.py
python examples/srigl_online.py --server localhost:8000    # ask a Triton server that serves the exported models
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import sparsefx
from sparsefx.compiler.bench import bench, bench_text
from sparsefx.runtime.serving.client import Client
from sparsefx.training import SRigL

WIDTH = 1024


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """scikit-learn's 1797 handwritten digits: 1437 to train with, 360 to test."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    images, labels = torch.tensor(data.data, dtype=torch.float32)[order] / 16, torch.tensor(data.target)[order]
    return images[:1437], labels[:1437], images[1437:], labels[1437:]


def network() -> nn.Sequential:
    return nn.Sequential(
        *[nn.Linear(64, WIDTH), nn.ReLU()], *[nn.Linear(WIDTH, WIDTH), nn.ReLU()], nn.Linear(WIDTH, 10)
    )


def train(images: Tensor, labels: Tensor, steps: int) -> tuple[nn.Sequential, SRigL]:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    # Every neuron of a layer keeps the same number of inputs; the last layer stays dense.
    sparsifier = SRigL(model, optimizer, sparsity=0.95, total_steps=steps, dense=("4",))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(sparsifier, T_max=steps)
    for _ in range(steps):
        batch = torch.randint(len(images), (64,))
        sparsifier.zero_grad()
        cross_entropy(model(images[batch]), labels[batch]).backward()
        sparsifier.step()
        scheduler.step()
    return model.eval(), sparsifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seconds", type=float, default=3.0, help="to time for")
    parser.add_argument("--output", type=Path, default=Path("online"))
    parser.add_argument("--server", help="host:port")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a network this small loses more to waiting for a second core than it gives
    images, labels, test_images, test_labels = digits()
    example = (test_images[:1],)

    model, sparsifier = train(images, labels, arguments.steps)
    masks = sparsifier.masks()
    print(f"trained: {sparsifier.sparsity:.1%} zeros; {masks.structure('2.weight').kind} in the large layer")

    arguments.output.mkdir(parents=True, exist_ok=True)
    dense, sparse = arguments.output / "dense.sfx", arguments.output / "sparse.sfx"
    sparsefx.compile(network().eval(), example, threads=1).save(dense)
    compiled = sparsefx.compile(model, example, masks=masks, threads=1, verify_inputs=(test_images,))
    compiled.save(sparse)
    print(compiled.report)

    engine = sparsefx.load(sparse, threads=1)
    right = (engine(test_images).argmax(1) == test_labels).float().mean()
    print(f"accuracy of the engine on {len(test_labels)} digits: {float(right):.2%}")
    print("one request at a time, one thread:")
    print(bench_text(bench({"dense": dense, "sparse": sparse}, threads=1, seconds=arguments.seconds, memory=False)))

    # The same bundle as a model of NVIDIA Triton Inference Server.
    (exported,) = sparsefx.serve_export([sparse], arguments.output / "models")
    print(f"serve it: tritonserver --model-repository {exported.folder.parent}")
    if arguments.server:
        signature = engine.signature
        reply = Client(arguments.server).infer("sparse", {signature.inputs[0].name: test_images[:1].numpy()})
        print("the server says", reply[signature.outputs[0].name].argmax(1), "for a", int(test_labels[0]))


if __name__ == "__main__":
    main()
