"""Prefill and step: from the codes so far to the logits of the next, over one cache.

A prior is known by this protocol and nothing else:

- `prior.config.grid_size`, `prior.config.image_vocab_size`
- `prior.make_cache(batch_size)`: an empty static cache for the whole stream
- `prior.embed_text(text_ids (B, T)) -> (B, 1 + T, D)`: the prefix, its start included
- `prior.embed_codes(codes (B, n), start=i) -> (B, n, D)`: codes of raster positions i .. i + n - 1
- `prior.transform(embeddings (B, n, D), cache=cache, start=i) -> (B, n, D)`: from stream position i on
- `prior.image_logits(hidden_states (B, n, D)) -> (B, n, K)`
- `prior.null_text_ids(B) -> (B, T)`: the empty caption, for guidance
"""

from typing import Any

import torch
from torch import Tensor


class Decoder:
    """Prefill and step over one cache, of B pictures or, for guidance, of 2B rows: the captions', then the others'.

    Args:
        prior: any model of the protocol above.
        text_ids: (B, T) int64, one caption a picture.
        other_text_ids: (B, T) int64, the captions to steer away from, empty ones as a rule; None without guidance.
    """

    def __init__(self, prior: Any, text_ids: Tensor, other_text_ids: Tensor | None = None):
        self.prior, self.guided = prior, other_text_ids is not None
        self.text_ids = text_ids if other_text_ids is None else torch.cat([text_ids, other_text_ids])  # (B or 2B, T)
        self.cache = prior.make_cache(len(self.text_ids))

    def prefill(self, codes: Tensor) -> Tensor:
        """The text and the known codes (B, n), all at once -> float32 logits (B or 2B, K) of code n."""
        embeddings = self.prior.embed_text(self.text_ids)  # (B or 2B, 1 + T, D)
        if codes.shape[1] > 0:
            embeddings = torch.cat([embeddings, self.prior.embed_codes(self._double(codes), start=0)], dim=1)
        return self._logits(embeddings, start=0)

    def step(self, code: Tensor, position: int) -> Tensor:
        """One more code (B, 1), the one at this raster position -> float32 logits (B or 2B, K) of the next."""
        embeddings = self.prior.embed_codes(self._double(code), start=position)
        return self._logits(embeddings, start=1 + self.text_ids.shape[1] + position)

    def _double(self, codes: Tensor) -> Tensor:
        return torch.cat([codes, codes]) if self.guided else codes

    def _logits(self, embeddings: Tensor, start: int) -> Tensor:
        hidden_states = self.prior.transform(embeddings, cache=self.cache, start=start)
        return self.prior.image_logits(hidden_states[:, -1:])[:, 0].float()
