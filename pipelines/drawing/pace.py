"""How many codes of a row to look at in one pass: what paints fastest here, measured while painting."""

import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch

from .prior import Prior

Clock = Callable[[], float]

WIDTHS = (1, 2, 4, 8, 16, 32, 64)
RUN = 8  # passes for which a width is kept: guesses are as good as the passes before made them
SETTLED = 2  # of a run, after which its passes tell what its width gains
TRIALS = 4  # passes that are timed at a width; the fastest counts, so what else the machine does hardly matters
DEARER = 1.25  # a look at W codes that takes DEARER · √W times as long as one at one code cannot pay, nor a wider one
HOPELESS = 0.8  # nor one that would paint this share of what the best does if it took as long as one half as wide
SURE = 1.1  # how many times as fast as one code a pass a window must be to be taken: what is measured is not exact
MEMORY = 64  # passes over which means are taken
SHORTEST = 1e-6  # seconds of a pass, where a clock tells none
GLANCE = 6  # of so many runs one is a step wider than the best, which tells what that gains by now


class Pace:
    """Of one prior: seconds of a pass by its rows and width, timed once, and the codes that a pass of a width gains.

    A pass at some width tells the gain of every narrower one too: it would have stopped there. So how much more a
    width gains than the one half as wide is known from passes that tell both, whatever picture they were of.
    """

    def __init__(self):
        self.seconds: dict[tuple[int, int, int], list[float]] = defaultdict(list)
        self.gains: dict[int, tuple[float, float]] = {}  # by width, sums of what half of it gained, and it
        self.runs = 0

    def width(self, rows: int, limit: int, *, telling: bool) -> int:
        """For the next run of so many rows: one that is not tried yet, from the narrowest up, or the fastest.

        telling: whether its passes say what windows gain. In the first row of a picture, where there is no code above
            to guess by, it does not, and no width is tried.
        """
        fastest, rates = {}, {1: 0.0}
        for width in (width for width in WIDTHS if width <= limit):
            if width in self.gains and self.gain(width) < HOPELESS * max(rates.values()) * fastest[width // 2]:
                break
            if not self.is_timed(rows, width) or (width > 1 and width not in self.gains):
                if telling:
                    return width
                break
            fastest[width] = min(self.seconds[_key(rows, width)])
            rates[width] = self.gain(width) / fastest[width] * (SURE if width == 1 else 1)
            if fastest[width] > DEARER * width**0.5 * fastest[1]:
                break
        best = max(rates, key=rates.__getitem__)
        self.runs += telling
        glance = telling and self.runs % GLANCE == 0 and 2 * best in rates
        return 2 * best if glance else best

    def is_timed(self, rows: int, width: int) -> bool:
        return len(self.seconds[_key(rows, width)]) >= TRIALS

    def gain(self, width: int) -> float:
        """Codes of a picture that stand by a pass of this width, which was recorded before."""
        narrower = [self.gains[each] for each in WIDTHS[1:] if each <= width]
        return math.prod(whole / half for half, whole in narrower)

    def time(self, rows: int, width: int, seconds: float) -> None:
        """What a pass of this width took."""
        self.seconds[_key(rows, width)].append(max(seconds, SHORTEST))

    def record(self, width: int, gains: list[int]) -> None:
        """Codes that stand by a telling pass of this width, settled in its run, of each picture."""
        for each in (each for each in WIDTHS[1:] if each <= width):
            half, whole = (sum(min(gain, most) for gain in gains) / len(gains) for most in (each // 2, each))
            halves, wholes = self.gains.get(each, (0.0, 0.0))
            self.gains[each] = halves + (half - halves / MEMORY), wholes + (whole - wholes / MEMORY)


def _key(rows: int, width: int) -> tuple[int, int, int]:
    """Up to a power of two rows are alike; threads may be set anew."""
    return torch.get_num_threads(), (rows - 1).bit_length(), width


_PACES: WeakKeyDictionary[Prior, Pace] = WeakKeyDictionary()


def clock_of(device: torch.device) -> Clock:
    """
    On a CPU the seconds that this thread computes, whatever else runs there; else those that pass, and on Windows,
    where a thread's are counted in ticks of 16 ms, longer than a pass.
    """
    return time.thread_time if device.type == "cpu" and sys.platform != "win32" else time.perf_counter


def pace_of(prior: Prior) -> Pace:
    """What is known of this prior in this process."""
    return _PACES.setdefault(prior, Pace())


def forget_pace(prior: Prior) -> None:
    """To be called when its weights or its code were changed so that it is faster or slower."""
    _PACES.pop(prior, None)
