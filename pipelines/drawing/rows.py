"""The one loop: rows that each draw a picture at their own place, some codes of each in one look.

A code is argmax(logits + the noise of its key): a function of the codes before it. So a look at W guessed codes of a
row tells which of them stand: those up to the first that does not come out as guessed, and that one as it came out.
In float32 the picture is that of the loop that draws one code after the other, code for code, in fewer passes.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .pace import RUN, SETTLED, clock_of, pace_of
from .prior import Cache, Prior, rounds_alike
from .sampling import filter_logits, guide
from .settings import SamplingSettings
from .state import State, draw_noise

GIVEN_AT_ONCE = 64  # codes that are known before the first drawn one are looked at so many at a time


@dataclass
class Row:
    """One picture. slots: its rows in the cache, that of its caption and with guidance that of the other one.

    posterior, strength: (N, K) log-probabilities that are mixed into the prior's; None for none.
    """

    name: int
    slots: list[int]
    posterior: Tensor | None
    strength: float


class Resting(NamedTuple):
    """A row that was taken out, as far as it is."""

    row: Row
    state: State
    cache: Cache


class Progress(NamedTuple):
    """Of each row its name, how many of its codes stand, and its codes (A, N), of which only those say something."""

    names: list[int]
    done: list[int]
    codes: Tensor


class Streams(NamedTuple):
    """Of each of the S rows of the cache whose it is; of each of the A rows where its two are, of which the other one
    is its own without guidance, and None where no row has any."""

    owners: Tensor
    own: Tensor
    other: Tensor | None


class Rows:
    """Draws with a prior, whatever rows are there. window: W, None for what is measured to be the fastest, or 1 where
    a look at several codes rounds otherwise than one at each: a picture may not depend on what was measured.

    passes: how many looks it took so far.
    """

    def __init__(self, prior: Prior, window: int | None = None):
        self.prior, self.passes = prior, 0
        self.window = 1 if window is None and not rounds_alike(prior) else window
        self._pace = pace_of(prior)
        self._run = (1, RUN)  # the window of now, and of how many passes it was
        self._new_names = itertools.count()
        self._rows: list[Row] = []
        self._state: State
        self._cache: Cache
        self._num_slots = 0  # of the cache, used and free; those used come first
        self._streams: Streams | None = None

    def __len__(self) -> int:
        return len(self._rows)

    @torch.inference_mode()
    def add(
        self,
        captions: Tensor,
        keys: Tensor,
        settings: SamplingSettings,
        *,
        codes: Tensor,
        given: Tensor,
        other_captions: Tensor | None = None,
        posterior: Tensor | None = None,
        strength: float = 1.0,
    ) -> list[int]:
        """Begin n pictures with their first drawn code; the next pass goes on with them. Returns their names.

        Arguments as those of `draw_codes`, which checks them; codes and given are its fixed_codes and fixed_mask, at
        least one free in each row, and posterior are log-probabilities. Without other_captions there is no guidance.
        """
        state = State.of(keys, settings, codes, given, self.prior.config.grid_size)
        state = replace(state, noise=draw_noise(keys, self.prior.config.codebook_size, len(self) + len(keys)))
        first, cache = self._first_logits(captions, other_captions, state)
        used, guided = len(self._used()), other_captions is not None
        rows = [
            Row(
                name=next(self._new_names),
                slots=[used + i, used + len(keys) + i] if guided else [used + i],
                posterior=None if posterior is None else posterior[i],
                strength=strength,
            )
            for i in range(len(keys))
        ]
        own, *other = first[:, None].split(len(keys))
        state.settle(self._draw(rows, state, own, other[0] if guided else None), wait=False)
        self._join(rows, state, cache, len(first))
        return [row.name for row in rows]

    @torch.inference_mode()
    def step(self) -> None:
        """One pass: at least one code more of each row."""
        state, streams = self._state, self._streams or self._find_streams()
        self._streams = streams
        num_streams, clock = len(streams.owners), clock_of(state.keys.device)
        start = clock()
        telling = (state.done > self.prior.config.grid_size).tolist()  # past the first row
        width = self._width(num_streams, any(telling))
        timed = self.window is None and any(telling) and not self._pace.is_timed(num_streams, width)
        guesses = state.guess(width, self.prior.config.grid_size)
        places = (state.done - 1)[streams.owners]
        logits = self.prior.look(guesses[streams.owners.to(guesses.device)], places, self._cache).float()
        other = None if streams.other is None else logits[streams.other]
        gains = state.settle(self._draw(self._rows, state, logits[streams.own], other), wait=timed)
        self.passes += 1
        self._run = self._run[0], self._run[1] + 1
        if timed:
            self._pace.time(num_streams, width, clock() - start)
        if self.window is None and any(telling) and self._run[1] > SETTLED:
            self._pace.record(width, [gain for gain, tells in zip(gains, telling, strict=True) if tells])

    @torch.inference_mode()
    def collect(self) -> Progress:
        """How far each row is; those that are done leave."""
        if not self._rows:
            return Progress([], [], torch.empty(0, 0, dtype=torch.int64, device="cpu"))
        names, done = [row.name for row in self._rows], self._state.done.tolist()
        length = self._state.given.shape[1]
        codes = self._state.codes[:, :length].clone()
        self._remove(row for row, count in enumerate(done) if count == length)
        return Progress(names, done, codes)

    @torch.inference_mode()
    def take(self, name: int) -> Resting:
        """This row leaves as it is, for good or until it is put in again."""
        index = [row.name for row in self._rows].index(name)
        row = replace(self._rows[index], slots=list(self._rows[index].slots))
        cache = self._cache.expand(torch.tensor(row.slots, device=self._state.keys.device))
        resting = Resting(row, self._state.row(index), cache)
        self._remove([index])
        return resting

    @torch.inference_mode()
    def put(self, resting: Resting) -> int:
        """The next pass goes on with it. Returns its name, the one that it had."""
        used, count = len(self._used()), len(resting.row.slots)
        row = replace(resting.row, slots=list(range(used, used + count)))
        self._join([row], resting.state, resting.cache, count)
        return row.name

    def _width(self, num_streams: int, telling: bool) -> int:
        """No more than are left to draw, rounded up, so that few widths occur."""
        left = int((self._state.last - self._state.done).max()) + 1
        limit = min(1 << (left - 1).bit_length(), self._state.given.shape[1])
        if self.window is not None:
            return min(self.window, limit)
        if self._run[1] == RUN or self._run[0] > limit:
            self._run = self._pace.width(num_streams, limit, telling=telling), 0
        return self._run[0]

    def _first_logits(self, captions: Tensor, others: Tensor | None, state: State) -> tuple[Tensor, Cache]:
        """Each caption is read once, however many pictures it has, and what is given before the first drawn code.

        Returns the logits (S, K) of that code, the captions' before the others', and a cache of as many rows.
        """
        captions = captions if others is None else torch.cat([captions, others])
        distinct, rows = captions.unique(dim=0, return_inverse=True)
        hidden_states, cache = self.prior.read(distinct)
        cache, first = cache.expand(rows), int(state.done[0])
        given = state.codes[:, :first].repeat(len(rows) // len(state), 1)
        logits = self.prior.image_logits(hidden_states)[rows]
        for start in range(0, first, GIVEN_AT_ONCE):
            part = given[:, start : start + GIVEN_AT_ONCE]
            logits = self.prior.look(part, torch.full((len(rows),), start, device="cpu"), cache)[:, -1]
            self.passes += 1
        return logits.float(), cache

    def _draw(self, rows: list[Row], state: State, logits: Tensor, other_logits: Tensor | None) -> Tensor:
        """The next W codes of each row, (A, W), as `_scores` has them."""
        return self._scores(rows, state, logits, other_logits).argmax(dim=-1)

    def _scores(self, rows: list[Row], state: State, logits: Tensor, other_logits: Tensor | None) -> Tensor:
        """Filtered logits and noise (A, W, K), from the prior's logits and those that guidance steers away from."""
        num_rows, width, size = logits.shape
        cells = (state.done[:, None] + torch.arange(width, device="cpu")).clamp(max=state.given.shape[1] - 1)  # (A, W)
        if other_logits is not None:
            logits = guide(logits, other_logits, state.scale.gather(1, cells)[:, :, None].to(logits))
        for i, row in enumerate(rows):
            if row.posterior is not None:
                said = row.posterior[cells[i].to(row.posterior.device)]
                logits[i] = (1 - row.strength) * said + row.strength * logits[i].log_softmax(dim=-1)  # −inf stays
        logits = filter_logits(logits.flatten(0, 1), **state.settings_at(cells)).view(num_rows, width, size)
        return logits + state.noise_at(cells, size)

    # Who is where.

    def _used(self) -> list[int]:
        """The slots of the cache that rows have, the first ones of all."""
        return [slot for row in self._rows for slot in row.slots]

    def _join(self, rows: list[Row], state: State, cache: Cache, num_streams: int) -> None:
        used = len(self._used())
        if used == 0:
            self._state, self._cache, self._num_slots = state, cache, num_streams
        else:
            if used + num_streams > self._num_slots:
                self._num_slots = max(used + num_streams, 2 * self._num_slots)
                self._cache = self._cache.expand(torch.arange(self._num_slots, device=state.keys.device) % used)
            slots = torch.arange(num_streams, device=state.keys.device)
            self._cache.put(used + slots, cache, slots)
            size = min(self._state.noise.shape[-1], state.noise.shape[-1])
            fewer = [replace(part, noise=part.noise[..., :size]) for part in (self._state, state)]
            self._state = fewer[0].join(fewer[1])
        self._rows = [*self._rows, *rows]
        self._streams = None

    def _remove(self, rows: Iterable[int]) -> None:
        """From the last one up, so that none is moved that leaves itself when all do."""
        for index in sorted(rows, reverse=True):
            for slot in sorted(self._rows[index].slots, reverse=True):
                self._free(index, slot)
            self._state = self._state.remove(index)
            self._rows[index] = self._rows[-1]
            self._rows.pop()
            self._streams = None
        if not self._rows:  # nor is their memory kept
            self._num_slots = 0
            del self._state, self._cache

    def _free(self, index: int, slot: int) -> None:
        """The last slot's content comes into this one, which a row leaves."""
        last = max(self._used())
        device = self._state.keys.device
        if slot != last:
            self._cache.put(torch.tensor([slot], device=device), self._cache, torch.tensor([last], device=device))
            for row in self._rows:
                row.slots = [slot if own == last else own for own in row.slots]
        self._rows[index].slots.remove(slot)

    def _find_streams(self) -> Streams:
        device = self._state.keys.device
        owners = torch.empty(len(self._used()), dtype=torch.int64, device="cpu")
        for i, row in enumerate(self._rows):
            owners[row.slots] = i
        own, other = (torch.tensor([row.slots[end] for row in self._rows], device=device) for end in (0, -1))
        return Streams(owners, own, other if len(owners) > len(self) else None)
