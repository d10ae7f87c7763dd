"""What a message must hold, whatever its words: names and values that the user gave, numbers, flags of a remedy."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


def holds(message: object, *parts: object) -> bool:
    """Whether each part stands in the message, in any order, and as a whole: 3 is not in 13, 3.5 or v3. A part given
    twice must stand there twice."""
    return all(len(re.findall(whole(str(part)), str(message))) >= parts.count(part) for part in parts)


def whole(part: str) -> str:
    """A pattern of the part where no word or number goes on before or after it."""
    before = r"(?<!\w)(?<!\d[.,])" if re.match(r"\w", part) else ""
    after = r"(?!\w)(?![.,]\d)" if re.search(r"\w\Z", part) else ""
    return before + re.escape(part) + after


@contextmanager
def refused(error: type[BaseException], *parts: object) -> Iterator[pytest.ExceptionInfo]:
    """What is done inside must raise this error, and the error's message must hold the parts."""
    with pytest.raises(error) as caught:
        yield caught
    assert holds(caught.value, *parts), f"{parts} are not all in: {caught.value}"
