"""The task with torch alone, which leaves the zeros where they are."""

import torch
from task import EXAMPLE, masked, model_and_masks

model = masked(*model_and_masks())
program = torch.onnx.export(model, (EXAMPLE.repeat(2, 1, 1, 1),), dynamo=True, dynamic_shapes=[{0: "batch"}])
program.save("torch.onnx")
