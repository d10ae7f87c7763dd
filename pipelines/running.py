"""How a model is run: without dropout, and on a few rows at a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

BATCH_SIZE = 16  # pictures through the dVAE at once


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout inside, and the model's own mode again after."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def in_batches(function: Callable[..., Tensor], *tensors: Tensor | None, batch_size: int = BATCH_SIZE) -> Tensor:
    """Tensors (B, …), None for any but the first, batch_size rows at a time -> what the function gives, joined.

    Bounds the memory that they take beside the result.
    """
    starts = range(0, len(tensors[0]), batch_size) or [0]
    parts = [[None if rows is None else rows[i : i + batch_size] for rows in tensors] for i in starts]
    return torch.cat([function(*part) for part in parts])
