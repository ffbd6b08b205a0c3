"""scikit-learn's 1797 real handwritten digits (UCI, 8x8 pixels), which come with the package."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from ....passes.errors import SparsefxError
from .task import TensorTask

FOLDS = 5


def load_digits(fold: int = 0) -> TensorTask:
    """The digits enlarged to (n, 1, 16, 16) and normalised by the training images; fold `fold` of five is the test.

    Raises SparsefxError without scikit-learn, or for a fold that is not 0 to 4.
    """
    if fold not in range(FOLDS):
        raise SparsefxError(f"the digits have folds 0 to {FOLDS - 1}, found {fold}")
    try:
        from sklearn import datasets
    except ImportError as error:
        raise SparsefxError(
            "the digits come with scikit-learn, which is not installed: pip install 'sparsefx[quickstart]'"
        ) from error
    digits = datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    parts = np.array_split(order, FOLDS)
    test = torch.from_numpy(parts[FOLDS - 1 - fold])
    train = torch.from_numpy(np.concatenate([part for i, part in enumerate(parts) if i != FOLDS - 1 - fold]))
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None]
    images = F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)
    images = (images - images[train].mean()) / images[train].std()
    labels = torch.tensor(digits.target)
    return TensorTask(images[train], labels[train], images[test], labels[test], classes=10)
