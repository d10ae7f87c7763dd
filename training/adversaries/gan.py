"""A GAN of any generator and discriminator: one step, its remedies against mode collapse, and a loop of steps.

Randomness comes in through two samplers, of real batches and of latents, so that the caller decides its source.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ..loop.stepping import minimise
from .objectives import GAN_OBJECTIVES, gan_value, r1_penalty

Sampler = Callable[[int], Tensor]


@dataclass
class GANSettings:
    """
    objective: "non_saturating", "minimax" or "hinge".
    r1_gamma: γ of the zero-centred gradient penalty on real data; the loss takes γ/2 · ‖∇_x D‖² (arXiv 1801.04406).
    unrolled_steps: k discriminator steps that the generator looks ahead through (arXiv 1611.02163); 0 for none.
    unrolled_lr: step size of those k steps of plain gradient descent.
    discriminator_steps: discriminator steps, each on its own batch, for each one of the generator.
    """

    objective: str = "non_saturating"
    r1_gamma: float = 0.0
    unrolled_steps: int = 0
    unrolled_lr: float = 0.01
    discriminator_steps: int = 1

    def __post_init__(self):
        if self.objective not in GAN_OBJECTIVES:
            raise ValueError(f"objective={self.objective!r} must be one of {', '.join(GAN_OBJECTIVES)}")
        if self.unrolled_steps < 0:
            raise ValueError(f"unrolled_steps={self.unrolled_steps} must be 0 or more")
        if self.discriminator_steps < 1:
            raise ValueError(f"discriminator_steps={self.discriminator_steps} must be at least 1")


def discriminator_losses(
    discriminator: nn.Module, real: Tensor, fake: Tensor, settings: GANSettings
) -> dict[str, Tensor]:
    """
    real (B, …), fake (B', …), without their graphs -> scalars, means over the batch, in nats.

    loss = the objective + γ/2 · r1. value: `gan_value`, −2 log 2 where the discriminator can tell nothing. Real and
    fake go through in one forward, as DDP wants it.
    """
    real = real.detach().requires_grad_(settings.r1_gamma > 0)
    real_logits, fake_logits = discriminator(torch.cat([real, fake.detach()])).split([len(real), len(fake)])
    loss = GAN_OBJECTIVES[settings.objective].discriminator(real_logits, fake_logits)
    r1 = r1_penalty(real_logits, real) if settings.r1_gamma > 0 else loss.new_zeros(())
    value = gan_value(real_logits, fake_logits).detach()
    return {"discriminator_loss": loss + settings.r1_gamma / 2 * r1, "r1": r1.detach(), "value": value}


def unrolled_parameters(
    discriminator: nn.Module, real: Tensor, fake: Tensor, settings: GANSettings
) -> dict[str, Tensor]:
    """
    The discriminator's weights after `unrolled_steps` steps of gradient descent on this batch, as a function of fake.

    θ_{i+1} = θ_i − unrolled_lr · ∇_θ L_D(θ_i, real, fake): differentiable through every step, so that the generator
    learns how the discriminator would answer (arXiv 1611.02163, equations 5–8). With 0 steps they are the weights as
    constants. The discriminator itself is not changed, and its weights get no gradient.
    """
    parameters = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    objective = GAN_OBJECTIVES[settings.objective]
    for step in range(settings.unrolled_steps):
        with torch.enable_grad():  # an evaluation has none
            if step == 0:
                parameters = {name: parameter.requires_grad_() for name, parameter in parameters.items()}
            both = functional_call(discriminator, parameters, torch.cat([real.detach(), fake]))
            loss = objective.discriminator(*both.split([len(real), len(fake)]))
            weights = list(parameters.values())
            gradients = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
            steps = zip(parameters.items(), gradients, strict=True)
            parameters = {name: parameter - settings.unrolled_lr * gradient for (name, parameter), gradient in steps}
    return parameters


def generator_loss(discriminator: nn.Module, real: Tensor, fake: Tensor, settings: GANSettings) -> Tensor:
    """fake (B, …) with its graph, real (B', …) for the unrolled steps -> scalar, mean over the batch."""
    parameters = unrolled_parameters(discriminator, real, fake, settings)
    return GAN_OBJECTIVES[settings.objective].generator(functional_call(discriminator, parameters, fake))


def unwrapped(module: nn.Module) -> nn.Module:
    """The module that DDP holds, or the module."""
    return module.module if isinstance(module, DistributedDataParallel) else module


def discriminator_step(
    discriminator: nn.Module,
    optimizer: Optimizer,
    real: Tensor,
    fake: Tensor,
    settings: GANSettings,
    descend: Callable[[Tensor, Optimizer], None] = minimise,
) -> dict[str, Tensor]:
    losses = discriminator_losses(discriminator, real, fake, settings)
    descend(losses["discriminator_loss"], optimizer)
    return losses


def gan_step(
    generator: nn.Module,
    discriminator: nn.Module,
    generator_optimizer: Optimizer,
    discriminator_optimizer: Optimizer,
    *,
    sample_real: Sampler,
    sample_latents: Sampler,
    batch_size: int,
    settings: GANSettings,
    descend: Callable[[Tensor, Optimizer], None] = minimise,
) -> dict[str, Tensor]:
    """One step of the generator after `discriminator_steps` of the discriminator -> their losses, detached scalars."""
    for _ in range(settings.discriminator_steps):
        real = sample_real(batch_size)
        with torch.no_grad():
            fake = generator(sample_latents(batch_size))
        losses = discriminator_step(discriminator, discriminator_optimizer, real, fake, settings, descend)
    loss = generator_loss(unwrapped(discriminator), real, generator(sample_latents(batch_size)), settings)
    descend(loss, generator_optimizer)
    losses["generator_loss"] = loss
    return {name: value.detach() for name, value in losses.items()}


def train_gan(
    generator: nn.Module,
    discriminator: nn.Module,
    generator_optimizer: Optimizer,
    discriminator_optimizer: Optimizer,
    *,
    sample_real: Sampler,
    sample_latents: Sampler,
    steps: int,
    batch_size: int,
    settings: GANSettings,
) -> dict[str, float]:
    """Trains both in place for `steps` generator steps -> the last step's losses."""
    for _ in range(steps):
        losses = gan_step(
            generator,
            discriminator,
            generator_optimizer,
            discriminator_optimizer,
            sample_real=sample_real,
            sample_latents=sample_latents,
            batch_size=batch_size,
            settings=settings,
        )
    return {name: value.item() for name, value in losses.items()}
