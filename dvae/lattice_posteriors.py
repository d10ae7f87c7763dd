"""Posteriors whose codes are the points of a lattice: there are no entries to learn, and none that could go unused.

A code is E digits of L values each, so K = L^E: no tensor here has K entries, however many codes there are.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .categoricals import full_precision
from .posterior_base import PosteriorOutput, SurePosterior


def straight_through(value: Tensor, gradient_of: Tensor) -> Tensor:
    """`value`, with the gradient of `gradient_of`: dL/d gradient_of = dL/d value."""
    return value.detach() + (gradient_of - gradient_of.detach())


class LatticePosterior(SurePosterior):
    """
    The digits of a code, the first the lowest: code = Σ digit_i · L^i.

    codebook_size, codebook_dim: K and E, of which L = K^(1/E) is whole, as `DVAEConfig` has it.
    """

    def __init__(self, hidden_size: int, codebook_size: int, codebook_dim: int, commitment: float = 0.25):
        super().__init__(hidden_size, codebook_dim, codebook_size)
        self.levels, self.dims = round(codebook_size ** (1 / codebook_dim)), codebook_dim
        self.commitment = commitment

    def digits(self, logits: Tensor) -> Tensor:
        """(B, E, h, w) -> the digits of the nearest point, int64 in 0..L−1."""
        raise TypeError(f"{type(self).__name__} is the interface")

    def points(self, digits: Tensor) -> Tensor:
        """Digits -> latents, both (B, E, h, w), in float32."""
        raise TypeError(f"{type(self).__name__} is the interface")

    def _powers(self, like: Tensor) -> Tensor:
        return self.levels ** torch.arange(self.dims, device=like.device)[:, None, None]  # (E, 1, 1)

    def codes_of(self, logits: Tensor) -> Tensor:
        return (self.digits(logits) * self._powers(logits)).sum(1)

    def embed(self, codes: Tensor) -> Tensor:
        digits = codes[:, None] // self._powers(codes) % self.levels
        return self.points(digits).to(self.head.weight.dtype)


class FSQPosterior(LatticePosterior):
    """
    Finite scalar quantisation (arXiv 2309.15505): each of E numbers is bounded by a tanh and rounded to one of L
    values, with the gradient of what was rounded. Nothing else is learned, and no loss is added.

    An even L has no middle: its bounds are moved by half a step, and its values are −1, …, 1 − 2/L.
    """

    def logits(self, hidden_states: Tensor) -> Tensor:
        """(B, E, h, w) within the values that are rounded to, −⌊L/2⌋ to ⌈L/2⌉ − 1, and half a step around them."""
        half = (self.levels - 1) * 1.001 / 2
        offset = 0.0 if self.levels % 2 else 0.5
        z = full_precision(self.head(hidden_states))
        return torch.tanh(z + math.atanh(offset / half)) * half - offset

    def digits(self, logits: Tensor) -> Tensor:
        digits = logits.round().long() + self.levels // 2
        return digits.clamp(0, self.levels - 1)  # past 1,000 levels the half step around them is more than one

    def points(self, digits: Tensor) -> Tensor:
        half = self.levels // 2
        return (digits - half).float() / half

    def forward(self, hidden_states: Tensor, temperature: float) -> PosteriorOutput:
        logits = self.logits(hidden_states)
        digits = self.digits(logits)
        latents = straight_through(self.points(digits), logits / (self.levels // 2))
        return PosteriorOutput(latents, self.codes_of(logits), logits, self.kl(logits), logits.new_zeros(()))


class LFQPosterior(LatticePosterior):
    """
    Look-up free quantisation (arXiv 2310.05737): a code is the signs of E numbers, K = 2^E, with the gradient of the
    numbers. auxiliary_loss = commitment · mean (z − sign z)² + 0.1 · (E H(q) − H(E q)), means over batch and space.

    The entropies, in nats, are those of q(c | x) ∝ exp(−‖z − c‖²) over the points c of {−1, 1}^E, whose bits are
    independent: P(bit_i = 1) = σ(4 z_i). So H(q) is the sum of those of the bits, exactly. Of the mean over places the
    bits depend on each other; the sum of their entropies, taken here, is above H(E q) (arXiv 2406.07548).
    """

    entropy_weight = 0.1

    def logits(self, hidden_states: Tensor) -> Tensor:
        """z, (B, E, h, w)."""
        return full_precision(self.head(hidden_states))

    def digits(self, logits: Tensor) -> Tensor:
        return (logits > 0).long()

    def points(self, digits: Tensor) -> Tensor:
        return (2 * digits - 1).float()

    def forward(self, hidden_states: Tensor, temperature: float) -> PosteriorOutput:
        z = self.logits(hidden_states)
        signs = self.points(self.digits(z))
        each, mean = entropy_of_logit(4 * z).sum(1).mean(), torch.sigmoid(4 * z).mean((0, 2, 3))
        loss = self.commitment * F.mse_loss(z, signs) + self.entropy_weight * (each - bit_entropy(mean).sum())
        return PosteriorOutput(straight_through(signs, z), self.codes_of(z), z, self.kl(z), loss)


def entropy_of_logit(logit: Tensor) -> Tensor:
    """The entropy of a bit of P(1) = σ(logit), in nats, with a gradient however sure it is."""
    return F.softplus(logit) - logit * torch.sigmoid(logit)


def bit_entropy(p: Tensor) -> Tensor:
    """−p ln p − (1 − p) ln (1 − p), in nats, of p kept 1e-6 from 0 and 1, where its gradient has no end."""
    p = p.clamp(1e-6, 1 - 1e-6)
    return -(p * p.log() + (1 - p) * (1 - p).log())
