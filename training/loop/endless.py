"""A loader whose batches have no end, and which knows where it stands."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any


class EndlessLoader(ABC):
    """
    A run takes as many batches as it needs and skips none: a part of the checkpoint, the loader goes on by itself with
    the batch after the last one taken.
    """

    @abstractmethod
    def __iter__(self) -> Iterator[Any]: ...

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Where it stands, the same on every process."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None: ...
