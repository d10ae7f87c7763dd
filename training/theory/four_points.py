"""Four one-hot points and z in R²: a Gaussian posterior leaves holes in the latent space, an implicit one none.

The experiment of arXiv 1701.04722, section 6.1: the evidence is at most −log 4, when the four posteriors share the
prior among them without a rest.
"""

import torch
from torch import Tensor, nn
from torchvision.ops import MLP

from dvae import (
    Bernoulli,
    GaussianLatents,
    GaussianPrior,
    ImplicitLatents,
    LatentDiscriminator,
    LatentDiscriminatorConfig,
)

from ..adversaries.avb import DensityRatioKL, LatentModel, LatentTraining, train_latent_model


class OneHotLikelihood(nn.Module):
    """log p(x | z), (B,), of x (B, 4) in {0, 1} by Bernoullis whose logits an MLP gives of z (B, 2)."""

    def __init__(self):
        super().__init__()
        self.network = MLP(2, [64, 64, 4])

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return Bernoulli().log_density(x, self.network(z), torch.zeros(())).sum(1)


def four_points(count: int) -> Tensor:
    """(count, 4), count a multiple of 4: each point as often as the others."""
    if count % 4 or count < 4:
        raise ValueError(f"count={count} must be a multiple of 4: each point comes as often as the others")
    return torch.eye(4).repeat(count // 4, 1)


def train_four_points(implicit: bool, seed: int = 0) -> tuple[LatentModel, DensityRatioKL | None]:
    """
    The VAE of four one-hot points in R², or the AVB.

    The VAE has several optima: of seeds 0 to 7 six end at a likelihood of −1.567 and an ELBO of −1.698 within .006,
    seed 3 at −1.507 and −1.633 (four bands), seed 7 at −1.627 and −1.791.
    """
    torch.manual_seed(seed)
    if not implicit:
        model = LatentModel(GaussianLatents(4, 2), GaussianPrior(2), OneHotLikelihood())
        train_latent_model(model, four_points, LatentTraining(steps=3000, batch_size=256, lr=2e-3))
        return model, None
    model = LatentModel(ImplicitLatents(4, 2), GaussianPrior(2), OneHotLikelihood())
    config = LatentDiscriminatorConfig(feature_size=4, latent_size=2)
    adversary = DensityRatioKL(model.posterior, model.prior, LatentDiscriminator(config), draws=64)
    training = LatentTraining(
        steps=2500,
        batch_size=256,
        lr=7e-4,
        discriminator_lr=3e-3,
        discriminator_steps=4,
        discriminator_warmup=200,
        kl_steps=1000,
        betas=(0.5, 0.99),
    )
    train_latent_model(model, four_points, training, adversary)
    return model, adversary
