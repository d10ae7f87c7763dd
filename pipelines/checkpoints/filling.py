"""A model's weights out of a checkpoint: one tensor after the other, each of the shape that the model has for it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .stored import Stored, StoredTensor


@dataclass(frozen=True)
class Made:
    """
    A weight that is made of some stored ones: make(*tensors). computed: whether there is arithmetic in it, which is
    then done in float64; else the tensors are put together as they are.
    """

    make: Callable[..., Tensor]
    names: tuple[str, ...]
    computed: bool = True


Source = str | Made
SHARED = 4  # times the size of their files that weights may have: some are tied


def fill(
    model: nn.Module, sources: Mapping[str, Source], stored: Stored, layout: str, dtype: torch.dtype | None = None
) -> None:
    """
    Gives a model on the meta device its weights, in memory that is theirs alone: it takes their size and one tensor.

    sources: of every weight, by the model's name for it, the name of the stored one, or what it is `Made` of. layout:
        what the checkpoint was taken for, for errors. dtype: of the weights; None is the stored one.

    Raises an OSError for the first weight that is not there or has another shape than the model's, before any is read.
    """
    for name, weight in model.state_dict().items():
        check_shape(sources[name], tuple(weight.shape), stored, layout)
    check_size(sources, stored, layout)
    weights = {name: _read(source, stored, dtype) for name, source in sources.items()}
    model.load_state_dict(weights, assign=True)


def check_size(sources: Mapping[str, Source], stored: Stored, layout: str) -> None:
    """Raises an OSError where the weights are far more than the files: one part of them may stand for many."""
    read = [name for source in sources.values() for name in ((source,) if isinstance(source, str) else source.names)]
    found = [find(stored, name, layout) for name in read]
    total = sum(math.prod(tensor.shape) * tensor.dtype.itemsize for tensor in found)
    size = sum(path.stat().st_size for path in {tensor.path for tensor in found})
    if total > SHARED * size:
        raise OSError(f"{stored.source}, taken for {layout}: {total} bytes of weights in files of {size}")


def check_shape(source: Source, wanted: tuple[int, ...], stored: Stored, layout: str) -> None:
    names = (source,) if isinstance(source, str) else source.names
    shapes = [find(stored, name, layout).shape for name in names]
    there = shapes[0]
    if isinstance(source, Made):
        try:
            there = tuple(source.make(*[torch.empty(shape, device="meta") for shape in shapes]).shape)
        except RuntimeError as error:
            told = ", ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=True))
            raise OSError(f"{stored.source}, taken for {layout}: {told} do not fit each other") from error
    if there != wanted:
        raise OSError(f"{stored.source}, taken for {layout}: {', '.join(names)} has shape {there}, not {wanted}")


def find(stored: Stored, name: str, layout: str) -> StoredTensor:
    if name not in stored:
        there = f"is a {stored.foreign[name]}, which is not read" if name in stored.foreign else "is missing"
        raise OSError(f"{stored.source}, taken for {layout}: {name} {there}")
    return stored[name]


def _read(source: Source, stored: Stored, dtype: torch.dtype | None) -> Tensor:
    if isinstance(source, str):
        return stored[source].read().to(dtype)
    parts = [stored[name].read() for name in source.names]
    made = source.make(*[part.double() for part in parts] if source.computed else parts)
    return made.to(parts[0].dtype if dtype is None else dtype).contiguous()
