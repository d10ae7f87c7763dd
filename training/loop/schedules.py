"""Schedules: pure functions of the step, whose values the loops pass in."""

import math


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
