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
    """

    def __init__(
        self,
        config: StreamConfig,
        num_rows: int,
        masks: dict[str, Tensor],
        turns: tuple[Tensor, ...],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ):
        streams = (config.num_hidden_layers, num_rows, config.num_key_value_heads)
        shape = (*streams, config.stream_length, config.head_size)
        self.config, self.masks, self.turns = config, masks, turns
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.cells = torch.arange(config.image_length, device=device)
        self.filled = 0  # positions, from the stream's first on, that any row may have

    def __len__(self) -> int:
        """R."""
        return self.keys.shape[1]

    def expand(self, rows: Tensor) -> "PriorCache":
        """A cache of its own whose row i goes on from this one's row rows[i]; rows: (R,) int64."""
        options = {"dtype": self.keys.dtype, "device": self.keys.device}
        wider = PriorCache(self.config, len(rows), self.masks, self.turns, **options)
        wider.put(torch.arange(len(rows), device=rows.device), self, rows)
        return wider

    def put(self, slots: Tensor, other: "PriorCache", rows: Tensor) -> None:
        """Row slots[i] becomes rows[i] of another cache, or of this one; both (n,) int64."""
        slots, rows = slots.to(self.keys.device), rows.to(self.keys.device)
        self.filled = max(self.filled, other.filled)
        for own, theirs in ((self.keys, other.keys), (self.values, other.values)):
            own[:, slots, :, : other.filled] = theirs[:, rows, :, : other.filled]

    def mark_static(self) -> None:
        """Tell a compiled look that this memory does not move, which CUDA graphs that write to it must know."""
        torch._dynamo.mark_static_address(self.keys)
        torch._dynamo.mark_static_address(self.values)


class Window:
    """
    W positions of each of the first R rows of a cache: where they are, and how their keys and values get there.

    cells: their raster positions, int64 (W,) where all rows stand at one place, else (R, W). The text has none.
    start, stop: the first position of the stream that is written, where it is one for all rows; how many are read.
        None of both: written wherever each row stands, all read, under a mask.
    """

    def __init__(self, cache: PriorCache, cells: Tensor, start: int | None, stop: int | None):
        self.cache, self.cells, self.start, self.stop = cache, cells, start, stop
        self.index = None if start is not None else self._index()

    @classmethod
    def of(cls, cache: PriorCache, places: Tensor, width: int) -> "Window":
        """places: int64 (R,) on the CPU, each row's first raster position; those past the grid are its last one."""
        first, last = (int(place) for place in places.aminmax())
        prefix, length = cache.config.prefix_length, cache.config.image_length
        stop = prefix + min(last + width, length)
        cache.filled = max(cache.filled, stop)
        if first == last and last + width <= length:
            return cls(cache, cache.cells[first : first + width], prefix + first, stop)
        return cls.anywhere(cache, places.to(cache.keys.device), width, stop)

    @classmethod
    def anywhere(cls, cache: PriorCache, places: Tensor, width: int, stop: int | None = None) -> "Window":
        """places: int64 (R,) on the cache's device. stop=None reads all, so that one graph serves every place."""
        cells = (places[:, None] + cache.cells[:width]).clamp(max=cache.config.image_length - 1)
        return cls(cache, cells, None, stop)

    def _index(self) -> Tensor:
        """Of each position in each head its place among all rows, heads and positions of a layer, (R · heads · W,)."""
        num_rows, heads, length = len(self.cells), *self.cache.keys.shape[2:4]
        streams = torch.arange(num_rows * heads, device=self.cells.device).view(num_rows, heads, 1)
        return (streams * length + self.cells[:, None] + self.cache.config.prefix_length).flatten()

    def write(self, layer_idx: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's keys and values of these positions, (R, heads, W, D/H) → all that they may see, (…, stop, D/H)."""
        return self._write(self.cache.keys[layer_idx], key), self._write(self.cache.values[layer_idx], value)

    def _write(self, memory: Tensor, new: Tensor) -> Tensor:
        memory = memory[: len(new)]
        if self.index is None:
            memory[:, :, self.start : self.stop] = new
        else:
            rows = new.to(memory.dtype).flatten(0, 2)  # another one under autocast
            memory.view(-1, memory.shape[3]).index_copy_(0, self.index, rows)
        return memory[:, :, : self.stop]

    def masks(self) -> dict[str, Tensor | None]:
        """What they attend to, by a mask's name: bool (W, stop) or (R, 1, W, stop); None where all of it is."""
        if self.index is None:
            implied = {"full"} if len(self.cells) == 1 else set()
            masks = self.cache.masks.items()
            return {name: None if name in implied else mask[self.cells, : self.stop] for name, mask in masks}
        return {name: mask[:, : self.stop][self.cells][:, None] for name, mask in self.cache.masks.items()}

    def turns(self) -> tuple[Tensor, ...]:
        """What turns their queries and keys, (W, ·) or (R, 1, W, ·) each."""
        turns = tuple(table[self.cells] for table in self.cache.turns)
        return turns if self.index is None else tuple(turn[:, None] for turn in turns)
