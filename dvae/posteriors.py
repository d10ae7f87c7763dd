"""Posteriors q(c | x) over a grid of codes: parts of one signature, one output.

posterior(hidden_states, temperature) -> PosteriorOutput     in training
posterior.draw_logits(hidden_states)  -> logits              of one draw of its own noise, where it has any
posterior.encode(hidden_states)       -> codes               argmax: two encodes of one picture agree
posterior.embed(codes)                -> latents             what the decoder sees of codes
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init


@dataclass
class PosteriorOutput:
    """
    latents: (B, E, h, w), the decoder's input.
    codes: (B, h, w) int64, the most probable code of each position.
    logits: (B, K, h, w), unnormalised ln q(c | x); of an implicit posterior ln q(c | x, ε), for the ε that it drew.
    kl: (B,) KL(q(c | x) ‖ uniform), summed over positions, in nats; of an implicit posterior an upper bound.
    auxiliary_loss: scalar that the posterior adds to the loss as it is; 0 where it has none.
    """

    latents: Tensor
    codes: Tensor
    logits: Tensor
    kl: Tensor
    auxiliary_loss: Tensor


def full_precision(x: Tensor) -> Tensor:
    """`x` in float32 or better: half precision is too coarse for a softmax over thousands of codes."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def kl_to_uniform(logits: Tensor) -> Tensor:
    """
    logits (B, K, h, w) -> (B,): Σ over positions of log K − H(q), in nats.

    The KL of the factorised posterior Π Cat to the uniform prior over grids: 0 for uniform logits, h·w·log K for
    one-hot ones, and the same for a picture whatever the batch that it stands in. In float32 or better.
    """
    log_q = F.log_softmax(full_precision(logits).movedim(1, -1), dim=-1)
    entropy = -(log_q.exp() * log_q).sum(dim=-1)  # (B, h, w)
    return (math.log(logits.shape[1]) - entropy).sum(dim=(1, 2))


def squared_distances(z: Tensor, codebook: Tensor) -> Tensor:
    """z (B, E, h, w), codebook (K, E) -> ‖z − e_k‖² (B, K, h, w), in float32 or better. K lies last in memory."""
    with torch.autocast(z.device.type, enabled=False):
        z, codebook = full_precision(z).movedim(1, -1), full_precision(codebook)
        distances = z.pow(2).sum(-1, keepdim=True) - 2 * z @ codebook.T + codebook.pow(2).sum(-1)
        return distances.movedim(-1, 1)


def gumbel_noise(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard Gumbel noise of the shape of `logits`, from uniform noise: on a CPU far faster than torch's own."""
    uniform = torch.rand(logits.shape, generator=generator, device=logits.device, dtype=logits.dtype)
    return -torch.log(-torch.log(uniform.clamp_min(1e-20)))


def gumbel_softmax(
    logits: Tensor, temperature: float, generator: torch.Generator | None = None, noise: Tensor | None = None
) -> Tensor:
    """
    logits (B, K, h, w) -> softmax((logits + g) / τ) over K, with g standard Gumbel noise: a point of the simplex that
    becomes a one-hot sample of softmax(logits) as τ -> 0 (arXiv 1611.01144, 1611.00712).

    noise: g itself, of the shape of `logits`, where it is not to be drawn: for integrals over it.
    """
    logits = logits.movedim(1, -1)  # the softmax runs along memory where K lies last, as squared_distances leaves it
    noise = gumbel_noise(logits, generator) if noise is None else noise.movedim(1, -1)
    return F.softmax((logits + noise) / temperature, dim=-1).movedim(-1, 1)


def sample_codes(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """logits (B, K, h, w) -> codes (B, h, w) int64, exact samples of softmax(logits) over K, by Gumbel-max."""
    logits = logits.detach().movedim(1, -1)
    return (logits + gumbel_noise(logits, generator)).argmax(-1)


class Posterior(nn.Module):
    """What the posteriors share: a codebook (K, E), its look-up, and the argmax."""

    def __init__(self, hidden_size: int, head_size: int, codebook_size: int, codebook_dim: int):
        super().__init__()
        self.head = nn.Conv2d(hidden_size, head_size, kernel_size=1)
        self.codebook = nn.Embedding(codebook_size, codebook_dim)

    def logits(self, hidden_states: Tensor) -> Tensor:
        """hidden_states (B, D, h, w) -> (B, K, h, w), in float32 or better."""
        raise TypeError(f"{type(self).__name__} is the interface: take one of {', '.join(POSTERIORS)}")

    def draw_logits(self, hidden_states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """hidden_states (B, D, h, w) -> (B, K, h, w): ln q(c | x), or ln q(c | x, ε) for a fresh ε."""
        return self.logits(hidden_states)

    def encode(self, hidden_states: Tensor) -> Tensor:
        """hidden_states (B, D, h, w) -> codes (B, h, w) int64, without noise."""
        return self.logits(hidden_states).argmax(dim=1)

    def embed(self, codes: Tensor) -> Tensor:
        """codes (B, h, w) -> latents (B, E, h, w)."""
        return self.codebook(codes).movedim(-1, 1)


class GumbelPosterior(Posterior):
    """
    The paper's: logits from a 1×1 convolution, a Gumbel-softmax sample of temperature τ into the decoder.

    Soft in training, argmax when encoding. The KL is that of the categorical of the raw logits also while τ > 0
    (arXiv 2102.12092, section 2.1; Gumbel-softmax: arXiv 1611.01144, 1611.00712).
    """

    def __init__(self, hidden_size: int, codebook_size: int, codebook_dim: int, commitment: float = 0.0):
        super().__init__(hidden_size, codebook_size, codebook_size, codebook_dim)

    def logits(self, hidden_states: Tensor) -> Tensor:
        return full_precision(self.head(hidden_states))

    def forward(self, hidden_states: Tensor, temperature: float) -> PosteriorOutput:
        logits = self.logits(hidden_states)
        relaxed = gumbel_softmax(logits, temperature)  # (B, K, h, w)
        latents = torch.einsum("bkhw,ke->behw", relaxed, self.codebook.weight)
        return PosteriorOutput(latents, logits.argmax(1), logits, kl_to_uniform(logits), logits.new_zeros(()))


class LatentPosterior(Posterior):
    """What the posteriors over a latent z (B, E, h, w) share: the projection, a warm-up without codes, k-means."""

    def __init__(self, hidden_size: int, codebook_size: int, codebook_dim: int):
        super().__init__(hidden_size, codebook_dim, codebook_size, codebook_dim)

    def project(self, hidden_states: Tensor) -> Tensor:
        """hidden_states (B, D, h, w) -> z (B, E, h, w): the latents of a plain autoencoder, before any codebook."""
        return full_precision(self.head(hidden_states))

    def set_codebook(self, centres: Tensor, mean_distance: Tensor) -> None:
        """Takes centres (K, E) as the codebook; mean_distance is the mean of ‖z − nearest centre‖²."""
        init.copy_(self.codebook.weight, centres)


class FaintConv2d(nn.Conv2d):
    """A convolution that starts with a hundredth of the usual weights: what it adds is learned from almost nothing."""


class CodebookGumbelPosterior(LatentPosterior):
    """
    Gumbel-softmax over logits −s · ‖z − e_k‖², with a codebook e and a learned scale s.

    Codes near in the codebook are near in probability, so a codebook from k-means of an autoencoder's latents starts
    in full use, where the bare logits head starts from a handful of codes and stays there for long.
    """

    def __init__(self, hidden_size: int, codebook_size: int, codebook_dim: int, commitment: float = 0.0):
        super().__init__(hidden_size, codebook_size, codebook_dim)
        self.log_scale = nn.Parameter(torch.zeros(()))

    def logits(self, hidden_states: Tensor) -> Tensor:
        return -self.log_scale.exp() * squared_distances(self.project(hidden_states), self.codebook.weight)

    def forward(self, hidden_states: Tensor, temperature: float) -> PosteriorOutput:
        logits = self.draw_logits(hidden_states)
        relaxed = gumbel_softmax(logits, temperature)  # (B, K, h, w)
        latents = torch.einsum("bkhw,ke->behw", relaxed, self.codebook.weight)
        return PosteriorOutput(latents, logits.argmax(1), logits, kl_to_uniform(logits), logits.new_zeros(()))

    def set_codebook(self, centres: Tensor, mean_distance: Tensor) -> None:
        """As the base class; the scale starts where the mean distance to the own centre costs 16 nats."""
        super().set_codebook(centres, mean_distance)
        init.copy_(self.log_scale, torch.log(16 / mean_distance.clamp_min(1e-8)))


class ImplicitPosterior(CodebookGumbelPosterior):
    """
    q(c | x) = E_ε Π Cat(π_ij(x, ε)): noise ε ~ N(0, I) of a whole picture enters beside the features, so that codes at
    different places depend on each other, which no product of categoricals can say.

    Its density has no closed form. `kl` is that given ε, Σ (log K − H_ij): in the mean over ε an upper bound, above
    KL(q ‖ uniform) by exactly the mutual information of c and ε given x. A density ratio gives the KL itself
    (adversarial variational Bayes, arXiv 1701.04722). The noise starts with next to no influence.
    """

    def __init__(
        self, hidden_size: int, codebook_size: int, codebook_dim: int, commitment: float = 0.0, noise_dim: int = 32
    ):
        super().__init__(hidden_size, codebook_size, codebook_dim)
        self.noise_dim = noise_dim
        self.noise_in = nn.Linear(self.noise_dim, hidden_size)
        self.noise_out = FaintConv2d(hidden_size, codebook_dim, kernel_size=1)

    def draw_noise(self, batch_size: int, generator: torch.Generator | None = None) -> Tensor:
        """ε ~ N(0, I): (B, noise_dim), one a picture."""
        weight = self.noise_in.weight
        return torch.randn(batch_size, self.noise_dim, generator=generator, device=weight.device, dtype=weight.dtype)

    def logits_given(self, hidden_states: Tensor, noise: Tensor) -> Tensor:
        """hidden_states (B, D, h, w), noise ε (B, noise_dim) -> ln q(c | x, ε), (B, K, h, w)."""
        mixed = F.relu(hidden_states + self.noise_in(noise)[:, :, None, None])
        z = self.project(hidden_states) + full_precision(self.noise_out(mixed))
        return -self.log_scale.exp() * squared_distances(z, self.codebook.weight)

    def logits(self, hidden_states: Tensor) -> Tensor:
        """ln q(c | x, ε = 0): the mode of the noise, so that two encodes of one picture agree."""
        return self.logits_given(hidden_states, hidden_states.new_zeros(len(hidden_states), self.noise_dim))

    def draw_logits(self, hidden_states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.logits_given(hidden_states, self.draw_noise(len(hidden_states), generator))

    def marginal_log_probs(self, hidden_states: Tensor, draws: int) -> Tensor:
        """hidden_states (B, D, h, w) -> ln mean_ε π_ij(x, ε) over `draws` fresh ε, (B, K, h, w): each position's own
        marginal, whose product over positions r(c | x) lacks but the dependence between them."""
        total = sum(F.softmax(self.draw_logits(hidden_states), dim=1) for _ in range(draws))
        return torch.log(total / draws + 1e-20)


class VectorQuantizedPosterior(LatentPosterior):
    """
    The nearest entry of a codebook, straight-through: dL/dz = dL/dz_q, and the codebook moves by its own loss alone.

    auxiliary_loss = mean ‖sg z − e‖² + commitment · mean ‖z − sg e‖², means over batch, channels and space. q is
    deterministic, so its KL to the uniform prior is h·w·log K whatever the picture (arXiv 1711.00937).
    """

    def __init__(self, hidden_size: int, codebook_size: int, codebook_dim: int, commitment: float = 0.25):
        super().__init__(hidden_size, codebook_size, codebook_dim)
        self.commitment = commitment

    def logits(self, hidden_states: Tensor) -> Tensor:
        return -squared_distances(self.project(hidden_states), self.codebook.weight)

    def forward(self, hidden_states: Tensor, temperature: float) -> PosteriorOutput:
        z = self.project(hidden_states)
        logits = -squared_distances(z, self.codebook.weight)
        codes = logits.argmax(1)
        quantized = full_precision(self.embed(codes))
        latents = z + (quantized - z).detach()
        loss = F.mse_loss(quantized, z.detach()) + self.commitment * F.mse_loss(z, quantized.detach())
        kl = logits.new_full((len(z),), math.log(logits.shape[1]) * codes[0].numel())
        return PosteriorOutput(latents, codes, logits, kl, loss)


POSTERIORS = {
    "gumbel": GumbelPosterior,
    "gumbel_codebook": CodebookGumbelPosterior,
    "implicit": ImplicitPosterior,
    "vq": VectorQuantizedPosterior,
}
