"""How many codes of a row to look at in one pass: what paints fastest here, measured while painting."""

import time
from collections import defaultdict
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch

from .prior import Prior

Clock = Callable[[], float]

WIDTHS = (1, 2, 4, 8, 16, 32, 64)
TRIALS = 3  # passes that are timed at a width; the fastest counts, so what else the machine does hardly matters
DEARER = 1.7  # a window twice as wide that takes so much longer cannot pay, nor can wider ones
SURE = 1.1  # how many times as fast as one code a pass a window must be to be taken: what is measured is not exact
MEMORY = 64  # passes over which the mean of codes a pass is taken
GLANCE = 16  # of so many passes one is a step wider than the best, which tells how many codes would have stood there


class Pace:
    """Of one prior: seconds of a pass by its rows and width, timed once, and the codes that a pass of a width gains.

    A pass at some width tells the gain of every narrower one too: it would have stopped there.
    """

    def __init__(self):
        self.seconds: dict[tuple[int, int, int], list[float]] = defaultdict(list)
        self.gains: dict[int, float] = {}
        self.passes: dict[int, int] = defaultdict(int)

    def width(self, rows: int, limit: int) -> int:
        """For the next pass of so many rows: one that is not timed yet, from the narrowest up, or the fastest."""
        fastest = {}
        for width in (width for width in WIDTHS if width <= limit):
            if not self.is_timed(rows, width):
                return width
            fastest[width] = min(self.seconds[_key(rows, width)])
            if width > 1 and fastest[width] > DEARER * fastest[width // 2]:
                break
        codes_a_second = {width: self.gains[width] / seconds for width, seconds in fastest.items()}
        codes_a_second[1] *= SURE
        best = max(codes_a_second, key=codes_a_second.get)
        wider = 2 * best if self.passes[WIDTHS[0]] % GLANCE == 0 else best
        return wider if wider in fastest else best

    def is_timed(self, rows: int, width: int) -> bool:
        return len(self.seconds[_key(rows, width)]) >= TRIALS

    def record(self, rows: int, width: int, gains: list[int], seconds: float | None = None) -> None:
        """A pass of this width. gains: codes that stand by it, of each picture. seconds: None unless it was timed."""
        if seconds is not None:
            self.seconds[_key(rows, width)].append(seconds)
        for narrower in WIDTHS[: WIDTHS.index(width) + 1]:
            gain = sum(min(gain, narrower) for gain in gains) / len(gains)
            self.passes[narrower] += 1
            before = self.gains.get(narrower, gain)
            self.gains[narrower] = before + (gain - before) / min(self.passes[narrower], MEMORY)


def _key(rows: int, width: int) -> tuple[int, int, int]:
    """Up to a power of two rows are alike; threads may be set anew."""
    return torch.get_num_threads(), (rows - 1).bit_length(), width


_PACES: WeakKeyDictionary[Prior, Pace] = WeakKeyDictionary()


def clock_of(device: torch.device) -> Clock:
    """On a CPU the seconds that this thread computes, whatever else runs there; else those that pass."""
    return time.thread_time if device.type == "cpu" else time.perf_counter


def pace_of(prior: Prior) -> Pace:
    """What is known of this prior in this process."""
    return _PACES.setdefault(prior, Pace())


def forget_pace(prior: Prior) -> None:
    """To be called when its weights or its code were changed so that it is faster or slower."""
    _PACES.pop(prior, None)
