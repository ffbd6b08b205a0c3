"""The task with sparsefx, which keeps some of the channels where the engine is measured to be faster with them."""

from task import EXAMPLE, model_and_masks

import sparsefx

model, masks = model_and_masks()
compiled = sparsefx.compile(model, (EXAMPLE,), masks=sparsefx.MaskSet(masks), threads=1, widths="measured")
compiled.save("widths.sfx")
