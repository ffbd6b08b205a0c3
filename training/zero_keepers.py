"""Optimizers that leave a zero weight at zero as long as its gradient is zero."""

from __future__ import annotations

from torch.optim import SGD, Adadelta, Adam, AdamW, NAdam, Optimizer, RAdam, RMSprop

_ZERO_KEEPERS = (SGD, Adam, AdamW, NAdam, RAdam, RMSprop, Adadelta)


def keeps_zeros(optimizer: Optimizer) -> bool:
    """Whether weight and state stay exactly zero where both are zero and the gradient is.

    Known of the elementwise optimizers of torch above, weight decay included. A subclass may do anything, and so
    may others: Muon mixes the weights of a matrix, LBFGS goes along directions from before a mask update.
    """
    return type(optimizer) in _ZERO_KEEPERS
