"""The task with sparsefx."""

from task import EXAMPLE, model_and_masks

import sparsefx

model, masks = model_and_masks()
compiled = sparsefx.compile(model, (EXAMPLE,), masks=sparsefx.MaskSet(masks), threads=1)
compiled.save("sparsefx.sfx")
