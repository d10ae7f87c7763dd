"""Pictures kept for `response_format=url`: in memory, under names that cannot be guessed, the oldest dropped first."""

import secrets
from collections import OrderedDict


class PictureStore:
    """Holds at most max_bytes of encoded pictures; a picture larger than that is refused."""

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._pictures: OrderedDict[str, tuple[bytes, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pictures)

    def check(self, num_bytes: int) -> None:
        """Raises OverflowError where pictures of one answer would drop each other."""
        if num_bytes > self.max_bytes:
            raise OverflowError(f"pictures of {num_bytes} bytes are more than the {self.max_bytes} that are kept")

    def put(self, data: bytes, media_type: str) -> str:
        """Keep a picture; returns its name: 192 random bits, and an ending such as .png. Raises OverflowError."""
        self.check(len(data))
        name = f"{secrets.token_urlsafe(24)}.{media_type.removeprefix('image/')}"
        self._pictures[name] = (data, media_type)
        self.num_bytes += len(data)
        while self.num_bytes > self.max_bytes:
            _, (oldest, _) = self._pictures.popitem(last=False)
            self.num_bytes -= len(oldest)
        return name

    def get(self, name: str) -> tuple[bytes, str] | None:
        """(bytes, media type), or None for a name that is unknown or gone."""
        return self._pictures.get(name)
