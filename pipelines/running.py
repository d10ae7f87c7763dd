"""How a model is run: without dropout, and on a few rows at a time."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

Item = TypeVar("Item")
# Pictures through the dVAE at once. A convolution sums several in another order: the last bits of a picture, here and
# there a level of a pixel, would depend on its neighbours. A CPU takes as long for each alone.
BATCH_SIZE = 1


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout inside, and each module's own mode again after; across a yield `each_evaluating` holds it."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def each_evaluating(model: nn.Module, items: Generator[Item, None, None]) -> Iterator[Item]:
    """Items that the model makes, each without dropout; whoever takes them finds the model in its own mode between."""
    try:
        while True:
            with evaluating(model):
                item = next(items, None)
            if item is None:
                return
            yield item
    finally:
        items.close()


def in_batches(function: Callable[..., Tensor], *tensors: Tensor, batch_size: int = BATCH_SIZE) -> Tensor:
    """Tensors (B, …), batch_size rows at a time -> what the function gives, joined.

    Bounds the memory that they take beside the result.
    """
    starts = range(0, len(tensors[0]), batch_size) or [0]
    parts = [[rows[i : i + batch_size] for rows in tensors] for i in starts]
    return torch.cat([function(*part) for part in parts])
