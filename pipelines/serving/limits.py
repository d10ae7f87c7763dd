"""What a server accepts and how it paints: numbers, checked once. Nothing heavy is imported here."""

from dataclasses import dataclass, field
from math import isfinite
from typing import Any


def _setting(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class ServerSettings:
    """The limits of a server. Each is a flag of `python -m pipelines serve` of the same name and help.

    Raises ValueError for numbers that make no server.
    """

    max_batch: int = _setting(8, "pictures painted at once")
    max_queue: int = _setting(64, "pictures that may wait; a request that would make them more is answered 429")
    max_n: int = _setting(10, "pictures of one request")
    max_prompt: int = _setting(1000, "characters of a prompt")
    max_size: int = _setting(1024, "side in pixels of an answered picture, resized from the model's own size")
    max_body: int = _setting(64 * 1024, "bytes of a request's body; more is answered 413")
    max_connections: int = _setting(
        0, "open connections, 0 for four times max_queue; past them idle ones are cut, then new ones answered 503"
    )
    max_store: int = _setting(64 * 1024**2, "bytes of pictures kept for response_format=url; the oldest go first")
    timeout: float = _setting(120.0, "seconds from an accepted request to its answer; then it is dropped: 504")
    header_timeout: float = _setting(10.0, "seconds that the header of a request may take to arrive; then it is cut")
    body_timeout: float = _setting(10.0, "seconds that the body of a request may take to arrive; then 408")
    batch_wait: float = _setting(0.01, "seconds that an idle server waits for company of a first picture")

    def __post_init__(self):
        for name in ("max_batch", "max_queue", "max_n", "max_prompt", "max_size", "max_body", "max_store"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is below 1; pass 1 or more")
        for name in ("timeout", "header_timeout", "body_timeout"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name}={getattr(self, name)} is not above 0 or not finite; pass seconds")
        if not 0 <= self.batch_wait < self.timeout:
            raise ValueError(f"batch_wait={self.batch_wait} must be in [0, timeout={self.timeout}); pass seconds")
        if self.max_queue < self.max_n:
            raise ValueError(
                f"max_queue={self.max_queue} is below max_n={self.max_n}: the largest request would never be "
                "accepted; raise the one or lower the other"
            )
        if self.connections <= self.max_queue:
            raise ValueError(
                f"max_connections={self.max_connections} is not above max_queue={self.max_queue}: requests that may "
                "wait would be refused; raise the one or lower the other"
            )

    @property
    def connections(self) -> int:
        return self.max_connections or 4 * self.max_queue
