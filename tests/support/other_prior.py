"""A prior of another family, which knows nothing of streams: what the loop asks of a prior, and nothing more."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn


class StateCache:
    """The hidden state (R, N, D) that a recurrent network had before each code of each row."""

    def __init__(self, states: Tensor):
        self.states = states

    def expand(self, rows: Tensor) -> "StateCache":
        return StateCache(self.states[rows].clone())

    def put(self, slots: Tensor, other: "StateCache", rows: Tensor) -> None:
        self.states[slots] = other.states[rows]


class RecurrentPrior(nn.Module):
    """A bag of words, then a GRU over the codes. K codes on a grid_size × grid_size grid."""

    def __init__(self, text_vocab_size: int, codebook_size: int, grid_size: int, hidden_size: int = 24):
        super().__init__()
        self.config = SimpleNamespace(grid_size=grid_size, codebook_size=codebook_size)
        self.words = nn.EmbeddingBag(text_vocab_size, hidden_size)
        self.codes = nn.Embedding(codebook_size, hidden_size)
        self.cell = nn.GRUCell(hidden_size, hidden_size)
        self.head = nn.Linear(hidden_size, codebook_size)

    def read(self, captions: Tensor) -> tuple[Tensor, StateCache]:
        states = self.words(captions).new_zeros(len(captions), self.config.grid_size**2, self.cell.hidden_size)
        states[:, 0] = self.words(captions).tanh()
        return states[:, 0], StateCache(states)

    def null(self, captions: Tensor) -> Tensor:
        return torch.zeros_like(captions)

    def image_logits(self, hidden_states: Tensor) -> Tensor:
        return 4 * self.head(hidden_states)

    def look(self, codes: Tensor, places: Tensor, cache: StateCache) -> Tensor:
        rows, last = torch.arange(len(codes)), self.config.grid_size**2 - 1
        state, logits = cache.states[rows, places], []
        for i, column in enumerate(codes.unbind(1)):
            state = self.cell(self.codes(column), state)
            cache.states[rows, (places + i + 1).clamp(max=last)] = state
            logits.append(self.image_logits(state))
        return torch.stack(logits, dim=1)
