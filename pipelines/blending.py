"""A prior that reads two captions at once, for the walk from one prompt to another."""

from typing import Any

import torch
from torch import Tensor


class BlendedPrior:
    """Any prior of the protocol in decoding.py, given a mix of two captions' embeddings.

    A text id of this prior holds a pair and the step of the walk, a + V · (b + V · step) with V text_vocab_size: so
    ids keep their shape (B, T), and a row says by itself what it is. Step k of n mixes the shares 1 − w and w of the
    two embeddings, w = k / (n − 1).
    """

    def __init__(self, prior: Any, steps: int):
        self.prior, self.steps = prior, steps
        self.vocab_size = prior.config.text_vocab_size

    def __getattr__(self, name: str) -> Any:
        """All else is the prior's own."""
        return getattr(self.prior, name)

    def join_captions(self, a: Tensor, b: Tensor, step: Tensor) -> Tensor:
        """Text ids (B, T) of two captions and steps (B,) -> ids (B, T)."""
        return a + self.vocab_size * (b + self.vocab_size * step[:, None])

    def embed_text(self, text_ids: Tensor) -> Tensor:
        """Ids (B, T) -> prefix embeddings (B, 1 + T, D)."""
        pairs, step = text_ids % self.vocab_size**2, text_ids[:, 0] // self.vocab_size**2
        a, b = (self.prior.embed_text(ids) for ids in (pairs % self.vocab_size, pairs // self.vocab_size))
        return torch.lerp(a, b, (step / (self.steps - 1)).to(a.dtype)[:, None, None])

    def null_text_ids(self, batch_size: int) -> Tensor:
        """The empty caption, twice."""
        empty = self.prior.null_text_ids(batch_size)
        return self.join_captions(empty, empty, torch.zeros_like(empty[:, 0]))
