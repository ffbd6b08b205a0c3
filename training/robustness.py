"""The fast gradient sign method: how much accuracy small, worst-case changes of the input cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..passes.capture import evaluation_mode
from ..passes.errors import SparsefxError


def fgsm(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """`images` moved by `epsilon` along the sign of the loss's gradient (Goodfellow et al. 2015, section 4).

    The model is used in evaluation mode, its own gradients are left alone. `epsilon` has the unit of the images.
    Raises SparsefxError for a negative one.
    """
    if epsilon < 0:
        raise SparsefxError(f"epsilon must not be negative, found {epsilon}")
    moved = images.detach().clone().requires_grad_()
    with evaluation_mode(model), torch.enable_grad():
        loss = F.cross_entropy(model(moved), labels)
        (gradient,) = torch.autograd.grad(loss, moved)
    return (images + epsilon * gradient.sign()).detach()


@torch.no_grad()
def accuracy_under(
    attacked: nn.Module, judged: Callable[[Tensor], Any], images: Tensor, labels: Tensor, epsilon: float
) -> float:
    """Accuracy (0 to 1) of `judged` on images made to mislead `attacked`: a compiled engine has no gradients, and the
    masked model that it equals has the right ones (Campfire, Table 6).
    """
    logits = torch.as_tensor(judged(fgsm(attacked, images, labels, epsilon)))
    return float((logits.argmax(1) == labels).float().mean())
