"""An operator and a pass of your own: a rule lets its channels go, a pass lowers it to what ONNX has.

python examples/custom_pass.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.passes.infra.pass_manager import PassManager

import sparsefx
from sparsefx.compiler.integrations.pass_manager import check_graph, in_this_order, passes_in_order
from sparsefx.passes.base import GraphPass
from sparsefx.passes.capture import capture
from sparsefx.passes.channels.rules import POINTWISE


@torch.library.custom_op("example::swish", mutates_args=())
def swish(x: Tensor) -> Tensor:
    """An operator of your own: perhaps a fused kernel, which export cannot look into."""
    return x * x.sigmoid()


@swish.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 16, 3)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(swish(self.second(swish(self.first(x)))).mean((2, 3)))
        return logits


# One row: the operator treats all positions alike, so channels pass it one by one.
RULES = {"example::swish": POINTWISE}


class LowerSwish(GraphPass):
    """Replaces example::swish by x * sigmoid(x).

    Legal everywhere: the operator has one tensor operand, and this is its definition.
    """

    def rewrite(self, graph_module: GraphModule) -> bool:
        nodes = [n for n in graph_module.graph.nodes if n.target is torch.ops.example.swish.default]
        for node in nodes:
            (x,) = node.all_input_nodes
            with graph_module.graph.inserting_before(node):
                gate = graph_module.graph.call_function(torch.ops.aten.sigmoid.default, (x,))
                product = graph_module.graph.call_function(torch.ops.aten.mul.Tensor, (x, gate))
            gate.meta, product.meta = dict(x.meta), dict(node.meta)  # shapes and types, which later passes read
            node.replace_all_uses_with(product)
        return bool(nodes)


@torch.no_grad()
def main() -> None:
    torch.manual_seed(0)
    model, example = Net().eval(), torch.randn(1, 3, 16, 16)
    model.first.weight[::2] = 0  # half of the filters; what is left of them is swish(bias)
    x = torch.randn(4, 3, 16, 16)
    want = model(x)

    without = sparsefx.compile(model, (example,), target="torch")
    print(f"without a rule {without.report.layers[0].shape_after[0]} of 32 channels stay:")
    print(f"  {dict(without.report.layers[0].stays)}")
    with_rule = sparsefx.compile(model, (example,), target="torch", rules=RULES)
    print(f"with it {with_rule.report.layers[0].shape_after[0]} stay")

    # In torch's PassManager, with the pass in front of ours.
    passes = [LowerSwish(), *passes_in_order(RULES)]
    manager = PassManager(passes, in_this_order(passes), steps=20, run_checks_after_each_pass=True)
    manager.add_checks(check_graph)
    slim = manager(capture(model, (example,))).graph_module
    print(f"PassManager: off by {float((slim(x) - want).abs().max()):.1e}")

    # On to an engine: ONNX has no example::swish, and after the pass it does not need one.
    graph = capture(model, (example,))
    LowerSwish()(graph)
    compiled = sparsefx.compile(graph, (example,), threads=1)
    print(f"engine: off by {float((compiled.engine()(x) - want).abs().max()):.1e}")
    print(compiled.report)


if __name__ == "__main__":
    main()
