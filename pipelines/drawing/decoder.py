"""Prefill and step: from the codes so far to the logits of the next, over one cache.

A prior is known by this protocol and nothing else:

- `prior.config.grid_size`, `prior.config.codebook_size`
- `prior.make_cache(batch_size)`: an empty cache of B whole streams, its memory taken at once;
  `cache.expand(rows (B,))`: one whose stream i goes on from this one's stream rows[i]
- `prior.embed_text(text_ids (B, T)) -> (B, 1 + T, D)`: the prefix, its start included
- `prior.embed_codes(codes (B, n), start=i) -> (B, n, D)`: codes of raster positions i .. i + n - 1
- `prior.transform(embeddings (B, n, D), cache=cache, start=i) -> (B, n, D)`: from stream position i on
- `prior.image_logits(hidden_states (B, n, D)) -> (B, n, K)`
- `prior.step(codes (B,), position (1,), cache, stop) -> (B, K)`: one code more, at this raster position; with it
  `stop` positions of the stream are filled
- `prior.null_text_ids(B) -> (B, T)`: the empty caption, for guidance
"""

from typing import Any

import torch
from torch import Tensor


class Decoder:
    """Prefill and step over one cache, of B pictures or, for guidance, of 2B rows: the captions', then the others'.

    A caption is read once, however many pictures it has; guidance's empty one is read once for all of them.

    Args:
        prior: any model of the protocol above.
        captions: one a picture: text ids (B, T) int64, or what `embed_text` makes of them, (B, 1 + T, D), which
            also holds what no ids say, such as a mix of two captions.
        other_captions: in either form, the captions to steer away from, empty ones as a rule; None without guidance.
    """

    def __init__(self, prior: Any, captions: Tensor, other_captions: Tensor | None = None):
        self.prior, self.guided = prior, other_captions is not None
        rows = [captions] if other_captions is None else [captions, other_captions]
        if captions.is_floating_point():
            rows = [self._prefixes(part) for part in rows]
        # P distinct captions: that of row i is captions[rows[i]]
        self.captions, self.rows = torch.cat(rows).unique(dim=0, return_inverse=True)
        self.positions = torch.arange(
            prior.config.grid_size**2, device=captions.device
        )  # no step waits for the device

    def prefill(self, codes: Tensor) -> Tensor:
        """The text and the known codes (B, n), all at once -> float32 logits (B or 2B, K) of code n."""
        cache, prefixes = self.prior.make_cache(len(self.captions)), self._prefixes(self.captions)
        self.prefix_length = prefixes.shape[1]
        hidden_states = self.prior.transform(prefixes, cache=cache, start=0)[self.rows, -1:]
        self.cache = cache.expand(self.rows)
        if codes.shape[1] > 0:
            embeddings = self.prior.embed_codes(self._double(codes), start=0)
            hidden_states = self.prior.transform(embeddings, cache=self.cache, start=self.prefix_length)
        return self.prior.image_logits(hidden_states[:, -1:])[:, 0].float()

    def step(self, code: Tensor, position: int) -> Tensor:
        """One more code (B, 1), the one at this raster position -> float32 logits (B or 2B, K) of the next."""
        stop = self.prefix_length + position + 1
        here = self.positions[position : position + 1]
        return self.prior.step(self._double(code[:, 0]), here, self.cache, stop).float()

    def _prefixes(self, captions: Tensor) -> Tensor:
        """Captions in either form -> (·, 1 + T, D)."""
        return captions if captions.is_floating_point() else self.prior.embed_text(captions)

    def _double(self, codes: Tensor) -> Tensor:
        return torch.cat([codes, codes]) if self.guided else codes
