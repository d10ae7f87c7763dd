"""A GAN's generator of pictures: noise z (B, Z) -> pixels (B, 3, H, W), on the dVAE's decoder."""

import math

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from .configuration_dvae import DVAEConfig
from .modeling_dvae import Decoder


@strict
class GANGeneratorConfig(DVAEConfig):
    """
    Architecture of a `GANGenerator`: a dVAE's, whose decoder it is, and the noise's.

    latent_size: Z, the width of the noise.

    What a decoder does not have (codebook_size, posterior, commitment, likelihood, min_log_scale) plays no part.
    """

    model_type = "armchair_gan_generator"
    _auto_class = None  # a dVAE's code travels beside its weights, a generator's does not

    latent_size: int = 128

    def validate_latent(self):
        if self.latent_size < 1:
            raise ValueError(f"latent_size={self.latent_size} must be at least 1")


class GANGenerator(PreTrainedModel):
    """
    z (B, Z), standard normal -> pixel_values (B, 3, H, W) in [0, 1].

    One linear layer makes the grid (B, E, h, w) that codes make in the dVAE; the decoder and a sigmoid do the rest.
    """

    config_class = GANGeneratorConfig
    config: GANGeneratorConfig
    base_model_prefix = "generator"
    main_input_name = "z"

    def __init__(self, config: GANGeneratorConfig):
        super().__init__(config)
        self.project = nn.Linear(config.latent_size, config.codebook_dim * config.grid_size**2)
        self.decoder = Decoder(config, num_maps=3)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """N(0, 1 / fan_in), as the dVAE: the grid has unit variance, as its codebook."""
        if isinstance(module, nn.Conv2d | nn.Linear):
            init.normal_(module.weight, std=1 / math.sqrt(module.weight[0].numel()))
            if module.bias is not None:
                init.zeros_(module.bias)

    def forward(self, z: Tensor) -> Tensor:
        if z.ndim != 2 or z.shape[1] != self.config.latent_size:
            raise ValueError(f"z {tuple(z.shape)} must be (B, {self.config.latent_size}) for latent_size")
        side = self.config.grid_size
        grid = self.project(z).unflatten(1, (self.config.codebook_dim, side, side))  # (B, E, h, w)
        return torch.sigmoid(self.decoder(grid))
