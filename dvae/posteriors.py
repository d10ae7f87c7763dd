"""Posteriors q(c | x) over a grid of codes: parts of one signature, one output (posterior_base.py).

posterior(hidden_states, temperature) -> PosteriorOutput     in training
posterior.draw_logits(hidden_states)  -> logits              of one draw of its own noise, where it has any
posterior.log_posterior(hidden_states) -> ln q(c | x)        without noise: what a picture says of its codes
posterior.encode(hidden_states)       -> codes               argmax: two encodes of one picture agree
posterior.embed(codes)                -> latents             what the decoder sees of codes
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .categoricals import full_precision, gumbel_softmax, kl_to_uniform, squared_distances, vector_quantize
from .lattice_posteriors import FSQPosterior, LFQPosterior, straight_through
from .posterior_base import CodebookPosterior, FaintCodebook, PosteriorOutput, SurePosterior


class GumbelPosterior(CodebookPosterior):
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


class LatentPosterior(CodebookPosterior):
    """What the posteriors over a latent z (B, E, h, w) share: the projection, a warm-up without codes, k-means."""

    def __init__(self, hidden_size: int, codebook_size: int, codebook_dim: int):
        super().__init__(hidden_size, codebook_dim, codebook_size, codebook_dim)

    def project(self, hidden_states: Tensor) -> Tensor:
        """hidden_states (B, D, h, w) -> z (B, E, h, w): the latents of a plain autoencoder, before any codebook."""
        return full_precision(self.head(hidden_states))

    def set_codebook(self, centres: Tensor, mean_distance: Tensor) -> None:
        """Takes centres (K, E) as the codebook; mean_distance is the mean of ‖z − nearest centre‖²."""
        with torch.no_grad():  # not transformers' init.copy_, which leaves alone what from_pretrained has loaded
            self.codebook.weight.copy_(centres)


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
        with torch.no_grad():
            self.log_scale.copy_(torch.log(16 / mean_distance.clamp_min(1e-8)))


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
        """
        hidden_states (B, D, h, w) -> ln mean_ε π_ij(x, ε) over `draws` of ε, (B, K, h, w): each position's marginal,
        the better the more draws; their product over positions is r(c | x).

        The ε are the same at every call, so that r is a function of x, and E_q[log q/r + log r] is E_q[log q] whatever
        their number. Of fresh ones a density ratio learns log q − log E[r], while E[log r] would be added: too little.
        """
        fixed = torch.Generator(hidden_states.device).manual_seed(0)
        given = (self.logits_given(hidden_states, noise[None]) for noise in self.draw_noise(draws, fixed))
        total = sum((F.softmax(logits, dim=1) for logits in given), start=hidden_states.new_zeros(()))
        return torch.log(total / draws + 1e-20)


class VectorQuantizedPosterior(SurePosterior, LatentPosterior):
    """
    The nearest entry of a codebook, as `vector_quantize` has it: auxiliary_loss = codebook_loss + commitment ·
    commitment_loss. `logits` are −distance².
    """

    def __init__(self, hidden_size: int, codebook_size: int, codebook_dim: int, commitment: float = 0.25):
        super().__init__(hidden_size, codebook_size, codebook_dim)
        self.commitment = commitment

    def logits(self, hidden_states: Tensor) -> Tensor:
        return -squared_distances(self.project(hidden_states), self.entries())

    def forward(self, hidden_states: Tensor, temperature: float) -> PosteriorOutput:
        q = vector_quantize(self.project(hidden_states), self.entries())
        loss, logits = q.codebook_loss + self.commitment * q.commitment_loss, -q.distances
        return PosteriorOutput(q.latents, q.codes, logits, self.kl(logits), loss)


class NormalisedVQPosterior(VectorQuantizedPosterior):
    """The same on the unit sphere: latents and entries of length 1, so the nearest by angle (arXiv 2110.04627)."""

    def project(self, hidden_states: Tensor) -> Tensor:
        return F.normalize(super().project(hidden_states), dim=1)

    def entries(self) -> Tensor:
        return F.normalize(super().entries(), dim=1)


class IBQPosterior(SurePosterior, CodebookPosterior):
    """
    Index backpropagation quantisation (arXiv 2412.02692): logits z · e_k, a hard one-hot of the largest into the
    decoder, with the gradient of softmax(logits): it reaches every entry at every place.

    auxiliary_loss = mean (ẑ − z)² + mean (z − sg e)² + commitment · mean (e − sg z)² + 0.05 · (E H(q) − H(E q)), of
    the entry e, of ẑ, which is e with the gradient of all entries, and of q = softmax(logits / 0.01), in nats. Without
    the last all z and e meet at 0, and one code is left (training/LOG.md).
    """

    codebook_type = FaintCodebook
    entropy_weight, entropy_temperature = 0.05, 0.01

    def __init__(self, hidden_size: int, codebook_size: int, codebook_dim: int, commitment: float = 0.25):
        super().__init__(hidden_size, codebook_dim, codebook_size, codebook_dim)
        self.commitment = commitment

    def logits(self, hidden_states: Tensor) -> Tensor:
        return self._nearness(full_precision(self.head(hidden_states)))

    def _nearness(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):  # which would round what is to be told apart
            return (z.movedim(1, -1) @ self.entries().T).movedim(-1, 1)  # K lies last in memory, for the softmax

    def forward(self, hidden_states: Tensor, temperature: float) -> PosteriorOutput:
        z = full_precision(self.head(hidden_states))
        logits = self._nearness(z)
        codes, by_place = self.codes_of(logits), logits.movedim(1, -1)  # (B, h, w, K)
        soft = by_place.softmax(-1)
        hard = torch.zeros_like(soft).scatter_(-1, codes[..., None], 1.0)
        with torch.autocast(z.device.type, enabled=False):
            latents = (straight_through(hard, soft) @ self.entries()).movedim(-1, 1)
        entries = F.embedding(codes, self.entries()).movedim(-1, 1)
        loss = F.mse_loss(latents, z) + F.mse_loss(z, entries.detach())
        loss = loss + self.commitment * F.mse_loss(entries, z.detach())
        loss = loss + self.entropy_weight * entropy_penalty(by_place / self.entropy_temperature)
        return PosteriorOutput(latents, codes, logits, self.kl(logits), loss)


def entropy_penalty(logits: Tensor) -> Tensor:
    """logits (…, K) -> E H(q) − H(E q) of q = softmax(logits), over all but K, in nats: least where each is sure of
    its code, and all codes are as frequent."""
    q = logits.softmax(-1)
    each = (logits.logsumexp(-1) - (q * logits).sum(-1)).mean()
    mean = q.flatten(0, -2).mean(0)
    return each + (mean * mean.clamp_min(1e-8).log()).sum()


POSTERIORS = {
    "gumbel": GumbelPosterior,
    "gumbel_codebook": CodebookGumbelPosterior,
    "implicit": ImplicitPosterior,
    "vq": VectorQuantizedPosterior,
    "normalised_vq": NormalisedVQPosterior,
    "ibq": IBQPosterior,
    "fsq": FSQPosterior,
    "lfq": LFQPosterior,
}
