"""What attention has seen so far, in memory that is taken once and never moves, and where a look finds its own."""

import torch
from torch import Tensor

from .configuration_stream import StreamConfig


class PriorCache:
    """
    Keys and values of R streams, two tensors (layers, R, heads, L, D/H) for all L = stream_length positions.

    Each row is a stream of its own, written as far as its own place. A look at fewer codes than there are rows is one
    at the first of them: whoever takes a row out puts the last one in its place.

    masks, turns: of the N image positions, what they attend to by a mask's name, bool (N, L), and what turns their
        queries and keys, (N, ·) each; a look finds its own in them.
    present: bool (R, L), False at padding, which nobody sees; None where no row has any.
    """

    def __init__(
        self,
        config: StreamConfig,
        num_rows: int,
        masks: dict[str, Tensor],
        turns: tuple[Tensor, ...],
        present: Tensor | None = None,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ):
        streams = (config.num_hidden_layers, num_rows, config.num_key_value_heads)
        shape = (*streams, config.stream_length, config.head_size)
        self.config, self.masks, self.turns, self.present = config, masks, turns, present
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.cells = torch.arange(config.image_length, device=device)
        self.first, self.filled = 0, 0  # where the positions that any row may have begin, and end

    def __len__(self) -> int:
        """R."""
        return self.keys.shape[1]

    def expand(self, rows: Tensor) -> "PriorCache":
        """A cache of its own whose row i goes on from this one's row rows[i]; rows: (R,) int64."""
        options = {"dtype": self.keys.dtype, "device": self.keys.device}
        present = None if self.present is None else self.present[rows]
        wider = PriorCache(self.config, len(rows), self.masks, self.turns, present, **options)
        wider.first = self.first
        wider.put(torch.arange(len(rows), device=rows.device), self, rows)
        return wider

    def put(self, slots: Tensor, other: "PriorCache", rows: Tensor) -> None:
        """Row slots[i] becomes rows[i] of another cache, or of this one; both (n,) int64."""
        slots, rows = slots.to(self.keys.device), rows.to(self.keys.device)
        self.first, self.filled = min(self.first, other.first), max(self.filled, other.filled)
        if self.present is not None and other.present is not None:  # of one prior both are, or neither
            self.present[slots] = other.present[rows]
        for own, theirs in ((self.keys, other.keys), (self.values, other.values)):
            own[:, slots, :, : other.filled] = theirs[:, rows, :, : other.filled]

    def mark_static(self) -> None:
        """Tell a compiled look that this memory does not move, which CUDA graphs that write to it must know."""
        torch._dynamo.mark_static_address(self.keys)
        torch._dynamo.mark_static_address(self.values)
        if self.present is not None:
            torch._dynamo.mark_static_address(self.present)


class Window:
    """
    W positions of each of the first R rows of a cache: where they are, and how their keys and values get there.

    cells: their raster positions, int64 (W,) where all rows stand at one place, else (R, W). None for the text, which
        has none: is_text.
    start, stop: the first position of the stream that is written, where it is one for all rows; where those that are
        read end. None of both: written wherever each row stands, all read, under a mask.
    """

    cells: Tensor

    def __init__(self, cache: PriorCache, num_rows: int, cells: Tensor | None, start: int | None, stop: int | None):
        self.cache, self.num_rows, self.start, self.is_text = cache, num_rows, start, cells is None
        self.cells = cache.cells[:0] if cells is None else cells
        self.seen = slice(0 if stop is None else cache.first, stop)
        self.index = None if start is not None else self._index()

    @classmethod
    def of(cls, cache: PriorCache, places: Tensor, width: int) -> "Window":
        """places: int64 (R,) on the CPU, each row's first raster position; those past the grid are its last one."""
        first, last = (int(place) for place in places.aminmax())
        prefix, length = cache.config.prefix_length, cache.config.image_length
        stop = prefix + min(last + width, length)
        cache.filled = max(cache.filled, stop)
        if first == last and last + width <= length:
            return cls(cache, len(places), cache.cells[first : first + width], prefix + first, stop)
        return cls.anywhere(cache, places.to(cache.keys.device), width, stop)

    @classmethod
    def anywhere(cls, cache: PriorCache, places: Tensor, width: int, stop: int | None = None) -> "Window":
        """places: int64 (R,) on the cache's device. stop=None reads all, so that one graph serves every place."""
        cells = (places[:, None] + cache.cells[:width]).clamp(max=cache.config.image_length - 1)
        return cls(cache, len(places), cells, None, stop)

    def _index(self) -> Tensor:
        """Of each position in each head its place among all rows, heads and positions of a layer, (R · heads · W,)."""
        heads, length = self.cache.keys.shape[2:4]
        streams = torch.arange(self.num_rows * heads, device=self.cells.device).view(self.num_rows, heads, 1)
        return (streams * length + self.cells[:, None] + self.cache.config.prefix_length).flatten()

    def write(self, layer_idx: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's keys and values of these positions, (R, heads, W, D/H) → all that they may see, (…, n, D/H)."""
        return self._write(self.cache.keys[layer_idx], key), self._write(self.cache.values[layer_idx], value)

    def _write(self, memory: Tensor, new: Tensor) -> Tensor:
        memory = memory[: self.num_rows]
        if self.index is None:
            memory[:, :, self.start : self.seen.stop] = new
        else:
            rows = new.to(memory.dtype).flatten(0, 2)  # another one under autocast
            memory.view(-1, memory.shape[3]).index_copy_(0, self.index, rows)
        return memory[:, :, self.seen]

    def masks(self) -> dict[str, Tensor | None]:
        """What they attend to, by a mask's name: bool (W, n) or (R, 1, W, n); None where all of it is."""
        masks: dict[str, Tensor | None]
        if self.index is None:
            implied = {"full"} if len(self.cells) == 1 else set()
            rows = self.cache.masks.items()
            masks = {name: None if name in implied else mask[self.cells, self.seen] for name, mask in rows}
        else:
            masks = {name: mask[:, self.seen][self.cells][:, None] for name, mask in self.cache.masks.items()}
        if self.cache.present is None:
            return masks
        present = self.cache.present[: self.num_rows, None, None, self.seen]
        return {name: present if mask is None else mask & present for name, mask in masks.items()}

    def turns(self) -> tuple[Tensor, ...]:
        """What turns their queries and keys, (W, ·) or (R, 1, W, ·) each."""
        turns = tuple(table[self.cells] for table in self.cache.turns)
        return turns if self.index is None else tuple(turn[:, None] for turn in turns)
