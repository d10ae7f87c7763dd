"""Adversaries: training-only parts of the dVAE's loop, walked as a list; none enters a saved model.

    adversary.losses(step, batch) -> what it adds to the dVAE's loss, and numbers to look at
    adversary.learn(step, batch)  -> one step of its own network on the same batch, and numbers to look at

Steps count from the end of the dVAE's warm-up as an autoencoder, which knows no codes.

`PixelAdversary` tells reconstructions from pictures (a GAN), `PosteriorAdversary` codes of an implicit posterior from
codes of the product of its marginals, `StyleAdversary` the style from a Gaussian of its moments: both are adversarial
variational Bayes. Their networks live in dvae/.
"""

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from transformers import PreTrainedModel

from dvae import (
    DVAE,
    CodeDiscriminator,
    CodeDiscriminatorConfig,
    DVAEOutput,
    ImplicitPosterior,
    LatentDiscriminator,
    LatentDiscriminatorConfig,
    PatchDiscriminator,
    PatchDiscriminatorConfig,
    sample_codes,
)
from dvae.style import Style

from ..loop.loop_training import LoopTraining
from ..loop.stepping import descend
from .adversary_settings import AdversarySettings, PixelSettings, PosteriorSettings, StyleSettings
from .avb import DensityRatioKL
from .objectives import GAN_OBJECTIVES, adaptive_weight, r1_penalty
from .score_function import score_function_surrogate


class DVAEStep(NamedTuple):
    """What an adversary sees of a step: pixels (B, 3, H, W), the dVAE's output, its losses so far, and β."""

    pixel_values: Tensor
    output: DVAEOutput
    losses: dict[str, Tensor]
    kl_weight: float


class Adversary(ABC):
    """A network with an optimiser of its own, both given to Accelerate, which synchronises them."""

    name: ClassVar[str]

    def __init__(self, network: PreTrainedModel, settings: AdversarySettings, accelerator: Accelerator):
        optimizer = torch.optim.AdamW(network.parameters(), lr=settings.lr, betas=settings.betas, weight_decay=0.0)
        self.network, self.settings, self.accelerator = network, settings, accelerator
        self.wrapped, self.optimizer = accelerator.prepare(network.to(accelerator.device).train(), optimizer)

    def speaks(self, step: int) -> bool:
        return step >= self.settings.start

    def learns(self, step: int) -> bool:
        return step >= max(self.settings.start - self.settings.warmup, 0)

    def frozen_logits(self, *inputs: Tensor) -> Tensor:
        """The network's logits, with a gradient to the inputs and none to its weights."""
        weights = {name: p.detach() for name, p in self.network.named_parameters()}
        return functional_call(self.network, weights, inputs)

    def rests(self, batch: DVAEStep) -> bool:
        """Whether it has nothing to say of a step, nor to learn from it."""
        return False

    @abstractmethod
    def added(self, batch: DVAEStep) -> dict[str, Tensor]:
        """Numbers of a step that it speaks in: `losses` says which."""

    @abstractmethod
    def own_losses(self, batch: DVAEStep) -> dict[str, Tensor]:
        """Numbers of a step that it learns in, among them "discriminator_loss"."""

    def losses(self, step: int, batch: DVAEStep) -> dict[str, Tensor]:
        """Numbers of a step, among them "loss": the dVAE's own with this adversary's part added. {} before `start`."""
        return self.added(batch) if self.speaks(step) and not self.rests(batch) else {}

    def learn(self, step: int, batch: DVAEStep) -> dict[str, Tensor]:
        """One optimiser step of the network, after the dVAE's, unless spoilt. {} before `start − warmup`."""
        if not self.learns(step) or self.rests(batch):
            return {}
        numbers = self.own_losses(batch)
        descend(self.accelerator, numbers["discriminator_loss"], self.optimizer, self.network.parameters())
        return {f"{self.name}_{key}": value.detach() for key, value in numbers.items()}

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {f"{self.name}_network": self.network, f"{self.name}_optimizer": self.optimizer}


class PixelAdversary(Adversary):
    """
    A patch discriminator on reconstructions: L = L_rec + β KL + λ · L_gan.

    λ = weight · ‖∇L_rec‖ / (‖∇L_gan‖ + 1e-4) at the decoder's last layer (VQGAN, arXiv 2012.09841, equation 7). It
    sees the median in the likelihood's own space, not clamped, so that a gradient comes back from everywhere. The ELBO
    is reported without λ: the sum is no bound.
    """

    name = "pixel"
    settings: PixelSettings

    def __init__(self, dvae: DVAE, settings: PixelSettings, accelerator: Accelerator):
        config = PatchDiscriminatorConfig(num_layers=settings.num_layers, width=settings.width)
        if dvae.config.image_size < config.smallest_image:
            raise ValueError(
                f"image_size={dvae.config.image_size} is too small for pixel_adversary.num_layers="
                f"{config.num_layers}, which needs {config.smallest_image}: take fewer layers"
            )
        if not dvae.decoder.last_layer.weight.requires_grad:
            raise ValueError("pixel_adversary takes gradients at the decoder's last layer: leave it out of freeze")
        super().__init__(PatchDiscriminator(config), settings, accelerator)
        self.likelihood, self.last_layer = dvae.likelihood, dvae.decoder.last_layer
        self.objective = GAN_OBJECTIVES[settings.objective]()

    def added(self, batch: DVAEStep) -> dict[str, Tensor]:
        fake = self.likelihood.median(batch.output.maps)
        adversarial = self.objective.generator(self.frozen_logits(fake))
        weight = adaptive_weight(
            batch.losses["reconstruction_loss"], adversarial, self.last_layer.weight, weight=self.settings.weight
        )
        weight = cast(Tensor, self.accelerator.reduce(weight, reduction="mean"))  # the same on every process
        loss = batch.losses["loss"] + weight * adversarial
        return {"loss": loss, "adversarial_loss": adversarial, "adversarial_weight": weight}

    def own_losses(self, batch: DVAEStep) -> dict[str, Tensor]:
        real = self.likelihood.map_pixels(batch.pixel_values)
        fake = self.likelihood.median(batch.output.maps.detach())
        real.requires_grad_(self.settings.r1_gamma > 0)
        real_logits, fake_logits = self.wrapped(torch.cat([real, fake])).float().chunk(2)
        numbers = {"discriminator_loss": self.objective.discriminator(real_logits, fake_logits)}
        if self.settings.r1_gamma > 0:
            penalty = r1_penalty(real_logits, real)
            numbers["discriminator_loss"] = numbers["discriminator_loss"] + self.settings.r1_gamma / 2 * penalty
            numbers["r1"] = penalty
        return numbers | {"real_logits": real_logits.mean(), "fake_logits": fake_logits.mean()}


class RunningMean(nn.Module):
    """A mean of numbers of steps past; it does not depend on the present batch, so as a baseline it biases nothing."""

    def __init__(self, decay: float):
        super().__init__()
        self.decay = decay
        self.mean: Tensor
        self.weight: Tensor
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    def update(self, value: Tensor) -> None:
        """A value that is not finite leaves it as it is: its step is skipped."""
        if not value.isfinite():
            return
        self.weight.copy_(self.decay * self.weight + 1 - self.decay)
        self.mean.lerp_(value.to(self.mean), (1 - self.decay) / self.weight)


class PosteriorAdversary(Adversary):
    """
    The KL of an implicit posterior q(c | x) = E_ε Π Cat(π(x, ε)), by a density ratio T(x, c) on hard codes.

    T tells q from the product of its marginals r(c | x) = Π mean_ε π, over `draws` fixed ε, so that it has to learn
    the dependence between places and what those few ε miss; then KL(q ‖ uniform) = E_q[T + log r] + h·w·log K, which
    takes the place of the closed upper bound in the loss. E_q[log r] has its gradient in closed form, T by the score
    function, with T and r held fixed: right, because E_q ∇log q = 0 (arXiv 1701.04722, proposition 2).
    """

    name = "posterior"
    settings: PosteriorSettings

    def __init__(self, dvae: DVAE, settings: PosteriorSettings, accelerator: Accelerator):
        if not isinstance(dvae.posterior, ImplicitPosterior):
            raise ValueError(
                f"posterior={dvae.config.posterior!r} has a closed KL and needs no adversary: "
                "set model.posterior to 'implicit', or leave training.posterior_adversary out"
            )
        config = CodeDiscriminatorConfig(
            codebook_size=dvae.config.codebook_size,
            grid_size=dvae.config.grid_size,
            hidden_size=dvae.config.widths[-1],
            width=settings.width,
        )
        super().__init__(CodeDiscriminator(config), settings, accelerator)
        self.posterior, self.num_pixel_channels = dvae.posterior, dvae.config.num_pixel_channels
        self.baseline = RunningMean(settings.baseline).to(accelerator.device)

    def rests(self, batch: DVAEStep) -> bool:
        """Where no gradient reaches the posterior: in the decoder's own phase, whose codes are without noise."""
        return not batch.output.logits.requires_grad

    def added(self, batch: DVAEStep) -> dict[str, Tensor]:
        output, numbers = batch.output, self.kl(batch.output)
        closed = output.kl.mean()
        instead = batch.kl_weight * (numbers.pop("surrogate") - closed) / self.num_pixel_channels
        return {"loss": batch.losses["loss"] + instead, **numbers}

    def parts(self) -> dict[str, Any]:
        return {**super().parts(), "posterior_baseline": self.baseline}

    def kl(self, output: DVAEOutput) -> dict[str, Tensor]:
        """
        output of the dVAE -> scalars, means over the batch, in nats: kl_ratio, the estimate of KL(q ‖ uniform);
        total_correlation, its part E_q[T] (of q, as `draws` grows); surrogate, whose gradient is the estimate's.
        """
        hidden_states, log_pi = output.hidden_states.detach(), F.log_softmax(output.logits, dim=1)
        with torch.no_grad():
            log_r = self.posterior.marginal_log_probs(hidden_states, self.settings.draws)  # (B, K, h, w)
            codes = sample_codes(log_pi)
            ratio = self.frozen_logits(hidden_states, codes).float()  # (B,)
        cross = (log_pi.exp() * log_r).sum(dim=(1, 2, 3)).mean()  # E_q[log r], exact given ε
        uniform = math.log(log_pi.shape[1]) * codes[0].numel()
        log_q = log_pi.gather(1, codes[:, None]).sum(dim=(1, 2, 3))  # (B,)
        surrogate = cross + score_function_surrogate(log_q, ratio, self.baseline.mean)
        self.baseline.update(cast(Tensor, self.accelerator.reduce(ratio.mean(), reduction="mean")))
        return {
            "kl_ratio": (ratio.mean() + cross + uniform).detach(),
            "total_correlation": ratio.mean(),
            "surrogate": surrogate,
        }

    def own_losses(self, batch: DVAEStep) -> dict[str, Tensor]:
        hidden_states = batch.output.hidden_states.detach()
        with torch.no_grad():
            log_r = self.posterior.marginal_log_probs(hidden_states, self.settings.draws)
            codes = torch.cat([sample_codes(batch.output.logits), sample_codes(log_r)])  # of q, then of r
        q_logits, r_logits = self.wrapped(hidden_states.repeat(2, 1, 1, 1), codes).float().chunk(2)
        loss = F.softplus(-q_logits).mean() + F.softplus(r_logits).mean()
        return {"discriminator_loss": loss, "q_logits": q_logits.mean(), "r_logits": r_logits.mean()}


class StyleAdversary(Adversary):
    """
    The KL of an implicit style q(z | x) by a density ratio with adaptive contrast (`DensityRatioKL`), in place of the
    closed upper bound.
    """

    name = "style"

    def __init__(self, dvae: DVAE, settings: StyleSettings, accelerator: Accelerator):
        if dvae.config.style_size == 0 or dvae.config.style_posterior != "implicit":
            raise ValueError(
                f"style_size={dvae.config.style_size}, style_posterior={dvae.config.style_posterior!r}: there is no "
                "implicit style; set model.style_size above 0 and style_posterior to 'implicit', or leave "
                "training.style_adversary out"
            )
        config = LatentDiscriminatorConfig(
            feature_size=dvae.config.widths[-1], latent_size=dvae.config.style_size, width=settings.width
        )
        super().__init__(LatentDiscriminator(config), settings, accelerator)
        self.style, self.num_pixel_channels = cast(Style, dvae.style), dvae.config.num_pixel_channels
        self.ratio = DensityRatioKL(self.style.posterior, self.style.prior, self.network, draws=settings.draws)

    def added(self, batch: DVAEStep) -> dict[str, Tensor]:
        output = batch.output
        log_q = self.ratio.log_q(self.style.features(output.hidden_states), output.style)
        slack = (output.style_log_q - log_q).mean()  # what the closed bound counts too much: I(z; ε | x)
        loss = batch.losses["loss"] - batch.kl_weight * slack / self.num_pixel_channels
        return {"loss": loss, "style_kl_ratio": output.style_kl.mean() - slack}

    def own_losses(self, batch: DVAEStep) -> dict[str, Tensor]:
        features = self.style.features(batch.output.hidden_states.detach())
        return {"discriminator_loss": self.ratio.discriminator_loss(features, batch.output.style, self.wrapped)}


# The name of each is that of its settings in the preset.
ADVERSARIES = {
    "pixel_adversary": PixelAdversary,
    "posterior_adversary": PosteriorAdversary,
    "style_adversary": StyleAdversary,
}


def build_adversaries(dvae: DVAE, training: LoopTraining, accelerator: Accelerator) -> list[Adversary]:
    """The adversaries that the dVAE's training switches on, in the order of `ADVERSARIES`: often none."""
    chosen = {name: getattr(training, name) for name in ADVERSARIES}
    return [ADVERSARIES[name](dvae, settings, accelerator) for name, settings in chosen.items() if settings]
