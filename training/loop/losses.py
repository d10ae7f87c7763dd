"""The dVAE's loss and what pictures are measured by: pure functions. (The prior's loss stands in its own forward.)"""

import math

from torch import Tensor
from torch.nn import functional as F

from dvae import AutoencoderOutput
from dvae.likelihoods import Likelihood


def dvae_losses(
    pixel_values: Tensor, output: AutoencoderOutput, likelihood: Likelihood, kl_weight: float
) -> dict[str, Tensor]:
    """
    pixels (B, 3, H, W), what the dVAE made of them -> scalars, means over the batch, in nats.

    reconstruction_loss: −log p(x | c), mean over subpixels too.
    kl: KL to the uniform prior, summed over positions, as it is. style_kl: of the style, 0 where there is none.
    loss = reconstruction_loss + kl_weight · (kl + style_kl) / (3HW) + auxiliary_loss. kl_weight = 1 is the ELBO over
        3HW. The paper's β = 6.6 weighs a mean over positions and is divided by 192 = 3·256² / 32²: the same scale.
    """
    num_pixel_channels = math.prod(pixel_values.shape[1:])
    reconstruction = -likelihood.log_prob(pixel_values, output.maps).mean()
    kl, style_kl = output.kl.mean(), output.style_kl.mean()
    loss = reconstruction + kl_weight * (kl + style_kl) / num_pixel_channels + output.auxiliary_loss
    return {
        "loss": loss,
        "reconstruction_loss": reconstruction,
        "kl": kl,
        "style_kl": style_kl,
        "auxiliary_loss": output.auxiliary_loss,
    }


def psnr(pixel_values: Tensor, reconstructed: Tensor) -> Tensor:
    """pixels in [0, 1], (B, 3, H, W) twice -> (B,) peak signal-to-noise ratio in dB, −10 log10 of the mean square."""
    mse = (pixel_values - reconstructed).square().mean(dim=(1, 2, 3))
    return -10 * mse.clamp_min(1e-10).log10()


def high_frequency_power(images: Tensor, cell: int = 4) -> Tensor:
    """
    images (B, C, H, W) -> (B,): mean square of what the averages of cell × cell squares leave over.

    Raises a ValueError where a side is no multiple of cell.
    """
    if images.shape[-2] % cell or images.shape[-1] % cell:
        raise ValueError(
            f"sides {tuple(images.shape[-2:])} must be multiples of cell={cell}: crop them, or take another"
        )
    means = F.interpolate(F.avg_pool2d(images, cell), scale_factor=cell)
    return (images - means).square().mean(dim=(1, 2, 3))
