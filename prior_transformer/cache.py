"""What attention has seen so far, in memory that is taken once and never moves."""

import torch
from torch import Tensor

from .configuration_stream import StreamConfig


class PriorCache:
    """
    Keys and values of B streams, two tensors (layers, B, heads, L, D/H) for all L = stream_length positions.

    It has the two methods of transformers' caches that the model calls, so that the model takes either; beside
    theirs it returns what is filled alone, can be widened from prompts to pictures, and shows its tensors to `step`.

    tables: by name, (N, ·), what `step` looks up by an image position, such as what it attends to.
    """

    def __init__(
        self,
        config: StreamConfig,
        batch_size: int,
        tables: dict[str, Tensor],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ):
        streams = (config.num_hidden_layers, batch_size, config.num_key_value_heads)
        shape = (*streams, config.stream_length, config.head_size)
        self.config, self.tables = config, tables
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.lengths = [0] * config.num_hidden_layers

    def update(self, key: Tensor, value: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Append key and value (B, heads, n, D/H) of a layer → all that it has, (B, heads, filled, D/H)."""
        start, stop = self.lengths[layer_idx], self.lengths[layer_idx] + key.shape[2]
        self.keys[layer_idx, :, :, start:stop] = key
        self.values[layer_idx, :, :, start:stop] = value
        self.lengths[layer_idx] = stop
        return self.keys[layer_idx, :, :, :stop], self.values[layer_idx, :, :, :stop]

    def get_seq_length(self) -> int:
        """How many positions are filled."""
        return self.lengths[0]

    def expand(self, rows: Tensor) -> "PriorCache":
        """A cache of its own whose stream i goes on from this one's stream rows[i]; rows: (B,) int64."""
        wider = PriorCache(self.config, len(rows), self.tables, dtype=self.keys.dtype, device=self.keys.device)
        wider.copy_(self, rows)
        return wider

    def copy_(self, other: "PriorCache", rows: Tensor) -> None:
        """Take over stream rows[i] of another cache as stream i, in place; rows: (B,) int64."""
        stop = other.get_seq_length()
        self.keys[:, :, :, :stop] = other.keys[:, :, :, :stop].index_select(1, rows)
        self.values[:, :, :, :stop] = other.values[:, :, :, :stop].index_select(1, rows)
        self.lengths = list(other.lengths)

    def mark_static(self) -> None:
        """Tell a compiled step that this memory does not move, which CUDA graphs that write to it must know."""
        torch._dynamo.mark_static_address(self.keys)
        torch._dynamo.mark_static_address(self.values)
