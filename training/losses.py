"""The dVAE's loss: a pure function of pixels and output. (The prior's stands in its own forward.)"""

import math

from torch import Tensor

from dvae import DVAEOutput
from dvae.likelihoods import Likelihood


def dvae_losses(
    pixel_values: Tensor, output: DVAEOutput, likelihood: Likelihood, kl_weight: float
) -> dict[str, Tensor]:
    """
    pixels (B, 3, H, W), output of `DVAE.forward` -> scalars, means over the batch, in nats.

    reconstruction_loss: −log p(x | c), mean over subpixels too.
    kl: KL to the uniform prior, summed over positions, as it is.
    loss = reconstruction_loss + kl_weight · kl / (3HW) + auxiliary_loss. kl_weight = 1 is the ELBO over 3HW. The
        paper's β = 6.6 weighs a mean over positions and is divided by 192 = 3·256² / 32²: the same scale.
    """
    num_pixel_channels = math.prod(pixel_values.shape[1:])
    reconstruction = -likelihood.log_prob(pixel_values, output.maps).mean()
    kl = output.kl.mean()
    loss = reconstruction + kl_weight * kl / num_pixel_channels + output.auxiliary_loss
    return {"loss": loss, "reconstruction_loss": reconstruction, "kl": kl, "auxiliary_loss": output.auxiliary_loss}


def psnr(pixel_values: Tensor, reconstructed: Tensor) -> Tensor:
    """pixels in [0, 1], (B, 3, H, W) twice -> (B,) peak signal-to-noise ratio in dB, −10 log10 of the mean square."""
    mse = (pixel_values - reconstructed).square().mean(dim=(1, 2, 3))
    return -10 * mse.clamp_min(1e-10).log10()
