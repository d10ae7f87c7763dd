"""Schedules: pure functions of the step, whose values the loops pass in."""

import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Steps = int | Any  # what a dataclass has of it, once it has read it by `in_steps`, is an int
else:
    Steps = int | str  # a number of steps, or a share of all of a run's, such as "10%"


def in_steps(name: str, value: Steps, steps: int) -> int:
    """
    `value`, the setting `name` of a run of `steps`, in whole steps. Raises a ValueError that holds it for what is
    neither a number of steps, 0 or more, nor a share from 0% to 100%.
    """
    share = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", value) if isinstance(value, str) else None
    if share and float(share[1]) <= 100:
        return round(steps * float(share[1]) / 100)
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{name}={value!r} must be a number of steps, such as 100, or a share of all, such as '10%'")
    return value


def cosine(step: int, start: float, end: float, steps: int) -> float:
    """Half a cosine from `start` at step 0 to `end` at `steps`, and `end` from there on; steps=0 gives `end`."""
    if step >= steps:
        return end
    return end + (start - end) * (1 + math.cos(math.pi * step / steps)) / 2


def warmup_cosine(step: int, peak: float, end: float, warmup_steps: int, steps: int) -> float:
    """Linear from peak / warmup_steps to `peak` over `warmup_steps`, then half a cosine down to `end` at `steps`."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return cosine(step - warmup_steps, peak, end, steps - warmup_steps)
