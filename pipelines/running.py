"""Many pictures through the dVAE a few at a time, which bounds the memory that they take beside the result."""

from collections.abc import Callable

import torch
from torch import Tensor

BATCH_SIZE = 16


def in_batches(function: Callable[..., Tensor], *tensors: Tensor | None, batch_size: int = BATCH_SIZE) -> Tensor:
    """Tensors (B, …), None for any but the first, batch_size rows at a time -> what the function gives, joined."""
    starts = range(0, len(tensors[0]), batch_size) or [0]
    parts = [[None if rows is None else rows[i : i + batch_size] for rows in tensors] for i in starts]
    return torch.cat([function(*part) for part in parts])
