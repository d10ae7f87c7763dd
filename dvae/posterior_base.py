"""What the posteriors q(c | x) over a grid of codes share: their signature, their output, a codebook."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .categoricals import kl_to_uniform, sample_codes


@dataclass
class PosteriorOutput:
    """
    latents: (B, E, h, w), the decoder's input.
    codes: (B, h, w) int64, the most probable code of each position.
    logits: (B, K, h, w), unnormalised ln q(c | x); of an implicit posterior ln q(c | x, ε), for the ε that it drew; of
        one that is sure of its code how near the codes are; of a lattice (B, E, h, w), where z lies in it.
    kl: (B,) KL(q(c | x) ‖ uniform), summed over positions, in nats; of an implicit posterior an upper bound.
    auxiliary_loss: scalar that the posterior adds to the loss as it is; 0 where it has none.
    """

    latents: Tensor
    codes: Tensor
    logits: Tensor
    kl: Tensor
    auxiliary_loss: Tensor


class Codebook(nn.Embedding):
    """
    Entries that stay in float32 when their model is cast to half precision. Of what fills most pictures, such as a
    white ground, k-means makes several entries that hardly differ: rounded, another one would be the nearest.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Codebook":
        def without_rounding(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype.itemsize >= 4 else tensor.to(moved.device, torch.float32)

        return super()._apply(without_rounding, recurse)


class FaintCodebook(Codebook):
    """Entries that start within 1/K of 0, so that all are as likely."""


class Posterior(nn.Module):
    """A 1×1 convolution of the encoder's features, and what is asked of every posterior."""

    def __init__(self, hidden_size: int, head_size: int, codebook_size: int):
        super().__init__()
        self.head = nn.Conv2d(hidden_size, head_size, kernel_size=1)
        self.codebook_size = codebook_size

    def forward(self, hidden_states: Tensor, temperature: float) -> PosteriorOutput:
        """hidden_states (B, D, h, w) -> what the decoder sees in training."""
        raise TypeError(f"{type(self).__name__} is the interface")

    def logits(self, hidden_states: Tensor) -> Tensor:
        """hidden_states (B, D, h, w) -> (B, K, h, w), of a lattice (B, E, h, w), in float32 or better."""
        raise TypeError(f"{type(self).__name__} is the interface")

    def embed(self, codes: Tensor) -> Tensor:
        """codes (B, h, w) -> latents (B, E, h, w), in the model's dtype."""
        raise TypeError(f"{type(self).__name__} is the interface")

    def draw_logits(self, hidden_states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """As `logits`, of one draw of the posterior's own noise, where it has any."""
        return self.logits(hidden_states)

    def codes_of(self, logits: Tensor) -> Tensor:
        """logits -> the most probable codes (B, h, w) int64."""
        return logits.argmax(dim=1)

    def sample(self, logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """logits -> codes (B, h, w) int64, drawn from q."""
        return sample_codes(logits, generator)

    def log_probs(self, logits: Tensor) -> Tensor:
        """logits -> ln q, (B, K, h, w)."""
        return logits.log_softmax(dim=1)

    def kl(self, logits: Tensor) -> Tensor:
        """logits -> (B,) KL(q ‖ uniform), summed over positions, in nats."""
        return kl_to_uniform(logits)

    def log_posterior(self, hidden_states: Tensor) -> Tensor:
        """hidden_states (B, D, h, w) -> ln q(c | x), (B, K, h, w), without noise."""
        return self.log_probs(self.logits(hidden_states))

    def encode(self, hidden_states: Tensor) -> Tensor:
        """hidden_states (B, D, h, w) -> codes (B, h, w) int64, without noise."""
        return self.codes_of(self.logits(hidden_states))


class SurePosterior(Posterior):
    """
    A posterior that is sure of its code: its draw is its most probable code, and its KL to the uniform prior h·w·log K
    whatever the picture.
    """

    def sample(self, logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.codes_of(logits)

    def log_probs(self, logits: Tensor) -> Tensor:
        """0 at the code, −inf elsewhere."""
        codes = self.codes_of(logits)[:, None]
        shape = (len(codes), self.codebook_size, *codes.shape[2:])
        return logits.new_full(shape, -torch.inf).scatter(1, codes, 0.0)

    def kl(self, logits: Tensor) -> Tensor:
        return logits.new_full((len(logits),), math.log(self.codebook_size) * logits[0, 0].numel())


class CodebookPosterior(Posterior):
    """A posterior with a codebook (K, E)."""

    codebook_type: type[Codebook] = Codebook

    def __init__(self, hidden_size: int, head_size: int, codebook_size: int, codebook_dim: int):
        super().__init__(hidden_size, head_size, codebook_size)
        self.codebook = self.codebook_type(codebook_size, codebook_dim)

    def entries(self) -> Tensor:
        """(K, E): what a latent is compared with, and what the decoder sees."""
        return self.codebook.weight

    def embed(self, codes: Tensor) -> Tensor:
        return F.embedding(codes, self.entries()).movedim(-1, 1).to(self.head.weight.dtype)
