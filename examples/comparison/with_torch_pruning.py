"""The task with Torch-Pruning, which finds coupled channels but takes no mask: it is laid over its groups."""

import torch
import torch_pruning as tp
from task import EXAMPLE, masked, model_and_masks
from torch import nn

model = masked(*model_and_masks())
graph = tp.DependencyGraph().build_dependency(model, example_inputs=EXAMPLE)
groups = list(graph.get_all_groups(ignored_layers=[model.fc], root_module_types=[nn.Conv2d]))
for group in groups:
    dead = torch.ones(len(group[0].idxs), dtype=torch.bool)
    for dep, indices in group:
        layer = dep.target.module
        if isinstance(layer, nn.Conv2d) and graph.is_out_channel_pruning_fn(dep.handler):
            dead &= ~layer.weight.flatten(1).any(1)[list(indices)]
    if dead.any():
        channels = [group[0].idxs[i] for i in dead.nonzero().flatten().tolist()]
        graph.get_pruning_group(group[0].dep.target.module, group[0].dep.handler, idxs=channels).prune()
program = torch.onnx.export(model, (EXAMPLE.repeat(2, 1, 1, 1),), dynamo=True, dynamic_shapes=[{0: "batch"}])
program.save("torch_pruning.onnx")
