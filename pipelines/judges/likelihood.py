"""The model's own likelihood of a picture, code by code, and what a prompt adds to it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prior_transformer import StreamPrior

from ..drawing.prior import Prior
from ..running import evaluating

BATCH_SIZE = 16  # pictures at once, each of which has a cache of its own


@dataclass(frozen=True)
class Score:
    """Log-likelihoods in nats of B pictures' codes under the plain model: temperature 1, no guidance.

    code_log_likelihood: float32 (B, h, w), log p(code | the codes before it, prompt).
    code_log_prior: float32 (B, h, w), the same given the empty caption.

    A dVAE's code is a part of the picture, so these judge the picture as the dVAE sees it.
    """

    code_log_likelihood: Tensor
    code_log_prior: Tensor

    @property
    def log_likelihood(self) -> Tensor:
        """log p(codes | prompt), (B,)."""
        return self.code_log_likelihood.sum(dim=(1, 2))

    @property
    def log_prior(self) -> Tensor:
        """log p(codes) by the empty caption, (B,)."""
        return self.code_log_prior.sum(dim=(1, 2))

    @property
    def code_pmi(self) -> Tensor:
        """What the prompt adds to each code's log-likelihood, (B, h, w)."""
        return self.code_log_likelihood - self.code_log_prior

    @property
    def pmi(self) -> Tensor:
        """Pointwise mutual information of picture and prompt, log p(codes | prompt) − log p(codes), (B,)."""
        return self.log_likelihood - self.log_prior

    def heat_maps(self, by: Literal["pmi", "likelihood"] = "pmi", size: int = 256) -> list[Image.Image]:
        """A picture each of size × size pixels, a square a code: red above 0, white at 0, blue below."""
        values = {"pmi": self.code_pmi, "likelihood": self.code_log_likelihood}
        if by not in values:
            raise ValueError(f"by={by!r} is unknown; pass 'pmi' or 'likelihood'")
        return [heat_map(grid, size) for grid in values[by].cpu().numpy()]


def score_codes(prior: StreamPrior, text_ids: Tensor, codes: Tensor) -> Score:
    """Captions (B, …) and codes (B, h, w) -> their `Score`."""
    with evaluating(prior):
        given, alone = (
            log_likelihoods(prior, captions, codes.flatten(1)) for captions in (text_ids, prior.null(text_ids))
        )
    return Score(given.unflatten(1, codes.shape[1:]), alone.unflatten(1, codes.shape[1:]))


@torch.no_grad()
def log_likelihoods(prior: Prior, captions: Tensor, codes: Tensor) -> Tensor:
    """log p(code | the codes before it, caption) in nats: captions (B, …), codes (B, N) -> float32 (B, N)."""
    parts = []
    for some, part in zip(captions.split(BATCH_SIZE), codes.split(BATCH_SIZE), strict=True):
        distinct, rows = some.unique(dim=0, return_inverse=True)
        hidden_states, cache = prior.read(distinct)
        logits = prior.image_logits(hidden_states)[rows, None]  # (B, 1, K)
        if part.shape[1] > 1:
            start = torch.zeros(len(part), dtype=torch.int64, device="cpu")
            logits = torch.cat([logits, prior.look(part[:, :-1], start, cache.expand(rows))], dim=1)
        parts.append(logits.float().log_softmax(dim=-1).gather(2, part[:, :, None])[:, :, 0])
    return torch.cat(parts)


def heat_map(values: np.ndarray, size: int) -> Image.Image:
    """Values (h, w) -> a square each in size × size pixels: red above 0, white 0, blue below, full at the largest."""
    strength = values[:, :, None] / max(np.abs(values).max(), np.finfo(np.float32).tiny)
    red, white, blue = np.array([178, 24, 43]), np.array([255, 255, 255]), np.array([33, 102, 172])
    colours = white + np.abs(strength) * (np.where(strength > 0, red, blue) - white)
    return Image.fromarray(colours.round().astype(np.uint8)).resize((size, size), Image.Resampling.NEAREST)
