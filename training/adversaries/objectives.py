"""Objectives of adversaries: pure functions of a discriminator's raw logits l, with D = sigmoid(l), in nats.

Each is a mean over the batch (over patches too, where a discriminator gives a map of logits). On a finite set, or on
a grid of quadrature points, `weights` make it the exact expectation Σ w·f: that is how theory's numbers are checked.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def expectation(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """
    Mean of all entries; or Σ weights · values, for weights of the same shape: of an expectation they sum to 1, of a
    class's part of one to its prior. Where a weight is 0 the value may be infinite.
    """
    if weights is None:
        return values.mean()
    if weights.shape != values.shape:
        raise ValueError(f"weights {tuple(weights.shape)} must have the shape of the logits {tuple(values.shape)}")
    return (weights * values.masked_fill(weights == 0, 0)).sum()


def gan_value(
    real_logits: Tensor, fake_logits: Tensor, real_weights: Tensor | None = None, fake_weights: Tensor | None = None
) -> Tensor:
    """
    V = E_real log D + E_fake log(1 − D), what the discriminator of arXiv 1406.2661 (equation 1) maximises.

    The best discriminator is D* = p / (p + q), of logit log p − log q, and there V = 2 JSD(p, q) − 2 log 2: from
    −2 log 2 = −1.386294 where p = q (D* = ½) up to 0 where they do not overlap.
    """
    return expectation(F.logsigmoid(real_logits), real_weights) + expectation(F.logsigmoid(-fake_logits), fake_weights)


class Minimax:
    """
    The game of arXiv 1406.2661: both sides play V.

    discriminator: −V; at p = q and the optimum 2 log 2 = 1.386294. generator: E log(1 − D); −log 2 there. Its
    gradient −D for a logit vanishes where D is sure: −.002473 at a logit of −6.
    """

    @staticmethod
    def discriminator(
        real_logits: Tensor,
        fake_logits: Tensor,
        real_weights: Tensor | None = None,
        fake_weights: Tensor | None = None,
    ) -> Tensor:
        return -gan_value(real_logits, fake_logits, real_weights, fake_weights)

    @staticmethod
    def generator(fake_logits: Tensor, fake_weights: Tensor | None = None) -> Tensor:
        return expectation(F.logsigmoid(-fake_logits), fake_weights)


class NonSaturating(Minimax):
    """
    The same discriminator; the generator minimises −E log D (arXiv 1406.2661, section 3): log 2 at the optimum.

    Its gradient D − 1 for a logit is −.997527 at a logit of −6, where the minimax one is −.002473.
    """

    @staticmethod
    def generator(fake_logits: Tensor, fake_weights: Tensor | None = None) -> Tensor:
        return -expectation(F.logsigmoid(fake_logits), fake_weights)


class Hinge:
    """
    arXiv 1705.02894: discriminator E max(0, 1 − l_real) + E max(0, 1 + l_fake), generator −E l_fake.

    The best logits are sign(p − q); there the discriminator's loss is 2 (1 − TV(p, q)): 2 where p = q, and 0 where
    they do not overlap. The generator's is 0 at p = q, where the game ends with l = 0.
    """

    @staticmethod
    def discriminator(
        real_logits: Tensor,
        fake_logits: Tensor,
        real_weights: Tensor | None = None,
        fake_weights: Tensor | None = None,
    ) -> Tensor:
        return expectation(F.relu(1 - real_logits), real_weights) + expectation(F.relu(1 + fake_logits), fake_weights)

    @staticmethod
    def generator(fake_logits: Tensor, fake_weights: Tensor | None = None) -> Tensor:
        return -expectation(fake_logits, fake_weights)


GAN_OBJECTIVES = {"minimax": Minimax, "non_saturating": NonSaturating, "hinge": Hinge}


def r1_penalty(logits: Tensor, inputs: Tensor) -> Tensor:
    """
    logits (B, …) of real inputs (B, …) that require a gradient -> mean over the batch of ‖∇_x D(x)‖².

    R1 of arXiv 1801.04406, equation 9, where the loss adds γ/2 times this. D(x) is the logit, or the sum of a
    picture's logits where they are a map. The graph is kept: the penalty has a gradient of its own.
    """
    if not inputs.requires_grad:
        raise ValueError("r1_penalty differentiates by the inputs: call inputs.requires_grad_() before the forward")
    (gradient,) = torch.autograd.grad(logits.sum(), inputs, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def adaptive_weight(
    reconstruction_loss: Tensor,
    adversarial_loss: Tensor,
    parameter: Tensor,
    weight: float = 1.0,
    epsilon: float = 1e-4,
    maximum: float = 1e4,
) -> Tensor:
    """
    λ = weight · clamp(‖∇ L_reconstruction‖ / (‖∇ L_adversarial‖ + ε), 0, maximum), detached, a scalar.

    Gradients are by `parameter`, the decoder's last layer: λ · L_adversarial then pulls it `weight` times as hard as
    the reconstruction does (VQGAN, arXiv 2012.09841, equation 7). λ is proportional to the reconstruction loss's
    scale, and both graphs are kept for the backward that follows.
    """
    (reconstruction,) = torch.autograd.grad(reconstruction_loss, parameter, retain_graph=True)
    (adversarial,) = torch.autograd.grad(adversarial_loss, parameter, retain_graph=True)
    ratio = reconstruction.norm() / (adversarial.norm() + epsilon)
    return weight * ratio.clamp(0, maximum).detach()
