"""The discrete VAE: pixels (B, 3, H, W) in [0, 1] <-> codes (B, h, w)."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.generic import ModelOutput

from .configuration_dvae import DVAEConfig
from .likelihoods import LIKELIHOODS, Likelihood
from .posterior_base import FaintCodebook, Posterior
from .posteriors import POSTERIORS, CodebookGumbelPosterior, FaintConv2d, LatentPosterior
from .style import NoStyle, Style, StyleOutput

INPUT_MAPS = {"centred": (2, -1), "shrunk": (0.8, 0.1)}  # gain and offset; config.input_map picks one
GIVEN: Any = None  # the default that ModelOutput wants of each field; none of these is ever left out


@dataclass
class AutoencoderOutput(ModelOutput):
    """
    maps: (B, 6, H, W), the likelihood's location and ln scale.
    latents: (B, E, h, w), what the decoder saw; with `cells` maps and latents are of as many as these.
    kl: (B,) KL to the uniform prior, summed over positions, in nats.
    auxiliary_loss: scalar, the posterior's own (VQ's codebook and commitment losses), else 0.
    hidden_states: (B, D, h, w), the encoder's features, before the posterior.
    style, style_log_q, style_kl: (B, S), (B,), (B,), the picture's continuous latent, its log-density under the
        posterior and its KL, in nats, as `StyleOutput` has them; S = 0 without style.
    """

    maps: Tensor = GIVEN
    latents: Tensor = GIVEN
    kl: Tensor = GIVEN
    auxiliary_loss: Tensor = GIVEN
    hidden_states: Tensor = GIVEN
    style: Tensor = GIVEN
    style_log_q: Tensor = GIVEN
    style_kl: Tensor = GIVEN


@dataclass
class DVAEOutput(AutoencoderOutput):
    """
    codes: (B, h, w) int64, the most probable codes. logits: (B, K, h, w), unnormalised ln q(c | x), or
        what else its posterior has (`PosteriorOutput`).
    """

    codes: Tensor = GIVEN
    logits: Tensor = GIVEN


@dataclass
class ELBOOutput(ModelOutput):
    """
    elbo, log_likelihood, kl, style_kl, bits_per_dim: one estimate a picture, (B,) each; in nats
        elbo = log_likelihood − kl − style_kl, of the codes and of the style, 0 where there is none.
    codes: (B, h, w) int64, the sample. logits: of what it was drawn from; `posterior.log_probs` makes ln q of them.
    """

    elbo: Tensor = GIVEN
    log_likelihood: Tensor = GIVEN
    kl: Tensor = GIVEN
    bits_per_dim: Tensor = GIVEN
    codes: Tensor = GIVEN
    logits: Tensor = GIVEN
    style_kl: Tensor = GIVEN


class ResidualBlock(GradientCheckpointingLayer):
    """out = id_path(x) + post_gain · res_path(x), pre-activation, with a bottleneck of out / `bottleneck` channels."""

    def __init__(
        self, n_in: int, n_out: int, kernels: tuple[int, ...], bottleneck: int, post_gain: float, padding_mode: str
    ):
        super().__init__()
        hidden = n_out // bottleneck
        channels = [n_in, *[hidden] * (len(kernels) - 1), n_out]
        layers = []
        for i, kernel in enumerate(kernels):
            padding = {"padding": kernel // 2, "padding_mode": padding_mode if kernel > 1 else "zeros"}
            layers += [nn.ReLU(), nn.Conv2d(channels[i], channels[i + 1], kernel, **padding)]
        self.id_path = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, kernel_size=1)
        self.res_path = nn.Sequential(*layers)
        self.post_gain = post_gain

    def forward(self, x: Tensor) -> Tensor:
        return self.id_path(x) + self.post_gain * self.res_path(x)


def residual_group(
    config: DVAEConfig, n_in: int, n_out: int, num_blocks: int, kernels: tuple[int, ...], padding_mode: str = "zeros"
) -> list[nn.Module]:
    """`num_blocks` blocks, the first of them from n_in channels to n_out."""
    return [
        ResidualBlock(n_in if i == 0 else n_out, n_out, kernels, config.bottleneck, config.gain, padding_mode)
        for i in range(num_blocks)
    ]


class Encoder(nn.Module):
    """
    (B, 3, H, W) -> (B, widths[-1], h, w): means of squares if any are pooled, 7×7 convolution, groups of blocks with a
    halving between them.
    """

    def __init__(self, config: DVAEConfig):
        super().__init__()
        shuffle, padding_mode = config.resampling == "shuffle", config.encoder_padding
        self.gain, self.offset = INPUT_MAPS[config.input_map]
        self.pooled = 2**config.pooled_halvings
        widths, num_blocks = config.widths[config.pooled_halvings :], config.blocks[config.pooled_halvings :]
        first = nn.Conv2d(3, widths[0], kernel_size=7, padding=3, padding_mode=padding_mode)
        layers: list[nn.Module] = [first]
        n_in = widths[0]
        for i, (width, blocks) in enumerate(zip(widths, num_blocks, strict=True)):
            if i > 0:
                layers.append(nn.PixelUnshuffle(2) if shuffle else nn.MaxPool2d(2))
                n_in = 4 * n_in if shuffle else n_in
            layers += residual_group(config, n_in, width, blocks, (3, 3, 3, 1), padding_mode)
            n_in = width
        self.blocks = nn.Sequential(*layers, nn.ReLU())

    def forward(self, pixel_values: Tensor) -> Tensor:
        first = cast(nn.Conv2d, self.blocks[0])
        seen = F.avg_pool2d(pixel_values, self.pooled) if self.pooled > 1 else pixel_values
        return self.blocks((self.gain * seen + self.offset).to(first.weight.dtype))


class Decoder(nn.Module):
    """(B, E, h, w) -> (B, 6, H, W): groups of blocks with a doubling between them."""

    def __init__(self, config: DVAEConfig, num_maps: int):
        super().__init__()
        shuffle = config.resampling == "shuffle"
        layers: list[nn.Module] = []
        n_in = config.codebook_dim
        for i, (width, blocks) in enumerate(zip(config.widths[::-1], config.blocks[::-1], strict=True)):
            if i > 0:
                layers.append(nn.PixelShuffle(2) if shuffle else nn.Upsample(scale_factor=2, mode="nearest"))
                n_in = n_in // 4 if shuffle else n_in
            layers += residual_group(config, n_in, width, blocks, kernels=(1, 3, 3, 3))
            n_in = width
        self.blocks = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(n_in, num_maps, kernel_size=1))

    @property
    def last_layer(self) -> nn.Conv2d:
        """The 1×1 convolution to the maps: where an adaptive weight measures gradients."""
        return cast(nn.Conv2d, self.blocks[-1])

    def forward(self, latents: Tensor) -> Tensor:
        return self.blocks(latents.to(self.last_layer.weight.dtype))  # a posterior's are in float32


class DVAE(PreTrainedModel):
    """
    The discrete VAE of DALL·E (arXiv 2102.12092, section 2.1).

        pixel_values (B, 3, H, W) in [0, 1] --encode--> codes (B, h, w) int64 --decode--> pixel_values

    `forward`, `autoencode` and `decode_argmax` are for training: what the decoder sees is a relaxed sample of the
    posterior, the latents before any codebook, or the codes that `encode` gives, which takes the argmax. Given
    `cells`, (D, h, w) int64, it sees D other grids, put together of the cells of all B of the batch: of each its place
    among the batch's B·h·w.
    """

    config_class: type[DVAEConfig] = DVAEConfig
    config: DVAEConfig
    likelihood: Likelihood
    posterior: Posterior
    style: Style | NoStyle
    base_model_prefix = "dvae"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _keep_in_fp32_modules_strict: ClassVar = {"codebook"}  # from_pretrained's casts; others see Codebook

    def __init__(self, config: DVAEConfig):
        super().__init__(config)
        self.likelihood = LIKELIHOODS[config.likelihood](config.min_log_scale)
        self.encoder = Encoder(config)
        self.posterior = POSTERIORS[config.posterior](
            config.widths[-1], config.codebook_size, config.codebook_dim, commitment=config.commitment
        )
        self.style = Style(config) if config.style_size else NoStyle()
        self.decoder = Decoder(config, self.likelihood.num_maps)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Convolutions and maps N(0, 1 / fan_in), as the published dVAE; codebook N(0, 1); scale 1."""
        if isinstance(module, nn.Conv2d):
            fan_in = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
            faint = 0.01 if isinstance(module, FaintConv2d) else 1.0
            init.normal_(module.weight, std=faint / math.sqrt(fan_in))
            if module.bias is not None:
                init.zeros_(module.bias)
        elif type(module) is nn.Linear:  # not the masked ones of a flow, which start as their library has them
            init.normal_(module.weight, std=1 / math.sqrt(module.in_features))
            init.zeros_(module.bias)
        elif isinstance(module, FaintCodebook):
            init.uniform_(module.weight, -1 / module.num_embeddings, 1 / module.num_embeddings)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)
        elif isinstance(module, CodebookGumbelPosterior):
            init.zeros_(module.log_scale)

    def check_pixels(self, pixel_values: Tensor) -> None:
        size = self.config.image_size
        if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != (3, size, size):
            raise ValueError(
                f"pixel_values {tuple(pixel_values.shape)} must be (B, 3, {size}, {size}) for image_size={size}: "
                "resize with the DVAEImageProcessor"
            )

    def forward(self, pixel_values: Tensor, temperature: float = 1.0, cells: Tensor | None = None) -> DVAEOutput:
        """
        pixel_values (B, 3, H, W) in [0, 1] -> the output of the posterior's relaxed sample, for the losses.

        temperature: τ of the Gumbel-softmax.
        """
        self.check_pixels(pixel_values)
        hidden_states = self.encoder(pixel_values)
        q = self.posterior(hidden_states, temperature)
        return DVAEOutput(
            codes=q.codes,
            logits=q.logits,
            kl=q.kl,
            auxiliary_loss=q.auxiliary_loss,
            **self._decoded(q.latents, self.style(hidden_states), hidden_states, cells),
        )

    def decode_argmax(self, pixel_values: Tensor, cells: Tensor | None = None) -> DVAEOutput:
        """
        pixel_values (B, 3, H, W) in [0, 1] -> the output of the codes that `encode` gives: the decoder alone learns,
        as a gradient reaches nothing else.
        """
        self.check_pixels(pixel_values)
        with torch.no_grad():
            hidden_states = self.encoder(pixel_values)
            logits = self.posterior.logits(hidden_states)
            codes, style = self.posterior.codes_of(logits), self.style(hidden_states)
            latents, kl = self.posterior.embed(codes), self.posterior.kl(logits)
        return DVAEOutput(
            codes=codes,
            logits=logits,
            kl=kl,
            auxiliary_loss=latents.new_zeros(()),
            **self._decoded(latents, style, hidden_states, cells),
        )

    def autoencode(self, pixel_values: Tensor, cells: Tensor | None = None) -> AutoencoderOutput:
        """
        pixel_values (B, 3, H, W) in [0, 1] -> the output of an autoencoder without codes, whose KL is 0: the warm-up
        that fills a codebook. Raises a ValueError where the posterior has no latent before its codes.
        """
        self.check_pixels(pixel_values)
        if not isinstance(self.posterior, LatentPosterior):
            raise ValueError(
                f"posterior={self.config.posterior!r} has no latent to warm up: take 'gumbel_codebook' or 'vq', "
                "or train without a warm-up"
            )
        hidden_states = self.encoder(pixel_values)
        latents = self.posterior.project(hidden_states)
        return AutoencoderOutput(
            kl=latents.new_zeros(len(latents)),
            auxiliary_loss=latents.new_zeros(()),
            **self._decoded(latents, self.style(hidden_states), hidden_states, cells),
        )

    def _decoded(
        self, latents: Tensor, style: StyleOutput, hidden_states: Tensor, cells: Tensor | None
    ) -> dict[str, Tensor]:
        """Latents (B, E, h, w) of the codes and the style -> the fields of an output that all have."""
        if cells is not None:
            if self.config.style_size:
                raise ValueError(f"a style of the whole picture, style_size={self.config.style_size}, has no cells")
            flat = latents.movedim(1, -1).flatten(0, 2)  # (B·h·w, E)
            latents = flat[cells].movedim(-1, 1)  # (D, E, h, w)
        latents = self.style.add(latents, style.z)
        return {
            "maps": self.decoder(latents),
            "latents": latents,
            "hidden_states": hidden_states,
            "style": style.z,
            "style_log_q": style.log_q,
            "style_kl": style.kl,
        }

    @torch.no_grad()
    def encode(self, pixel_values: Tensor) -> Tensor:
        """pixel_values (B, 3, H, W) in [0, 1] -> codes (B, h, w) int64, by argmax: two encodes agree."""
        self.check_pixels(pixel_values)
        return self.posterior.encode(self.encoder(pixel_values))

    @torch.no_grad()
    def encode_style(self, pixel_values: Tensor) -> Tensor:
        """pixel_values (B, 3, H, W) in [0, 1] -> style (B, S), without noise; S = 0 for a dVAE of codes alone."""
        self.check_pixels(pixel_values)
        return self.style.encode(self.encoder(pixel_values))

    @torch.no_grad()
    def decode(self, codes: Tensor, style: Tensor | None = None) -> Tensor:
        """
        codes (B, h, w) int64 in 0..K−1 -> pixel_values (B, 3, H, W) in [0, 1], float32.

        style: (B, S); None takes the centre of the style's prior.
        """
        side = self.config.grid_size
        if codes.ndim != 3 or tuple(codes.shape[1:]) != (side, side):
            raise ValueError(f"codes {tuple(codes.shape)} must be (B, {side}, {side}) for grid_size={side}")
        return self.likelihood.unmap(self.decoder(self.style.add(self.posterior.embed(codes), style)))

    @torch.no_grad()
    def reconstruct(self, pixel_values: Tensor) -> Tensor:
        """pixel_values (B, 3, H, W) in [0, 1] -> the same through the codes, and the style where there is one."""
        self.check_pixels(pixel_values)
        hidden_states = self.encoder(pixel_values)
        return self.decode(self.posterior.encode(hidden_states), self.style.encode(hidden_states))

    @torch.no_grad()
    def log_posterior(self, pixel_values: Tensor) -> Tensor:
        """pixel_values (B, 3, H, W) in [0, 1] -> ln q(c | x), (B, K, h, w), as the posterior says it without noise."""
        self.check_pixels(pixel_values)
        return self.posterior.log_posterior(self.encoder(pixel_values))

    @torch.no_grad()
    def elbo(self, pixel_values: Tensor, generator: torch.Generator | None = None) -> ELBOOutput:
        """
        One-sample estimate of log p(x) ≥ E_q[log p(x | c)] − KL(q(c | x) ‖ uniform), (B,) each, in nats a picture.

        The sample is a hard one, by Gumbel-max: the bound of the discrete model, not of its relaxation. Pixels of 8
        bits must come dequantised (x = (level + U) / 256) for bits per dimension to bound those of the 256 levels:
        bits_per_dim = −elbo / (3HW log 2) + 8; binary pixels need neither. Of an implicit posterior's KL it takes the
        closed upper bound, of codes and of style.
        """
        self.check_pixels(pixel_values)
        hidden_states = self.encoder(pixel_values)
        logits = self.posterior.draw_logits(hidden_states, generator)
        codes = self.posterior.sample(logits, generator)
        style = self.style(hidden_states, generator)
        maps = self.decoder(self.style.add(self.posterior.embed(codes), style.z))
        log_likelihood, kl = self.likelihood.log_prob(pixel_values, maps).sum((1, 2, 3)), self.posterior.kl(logits)
        elbo = log_likelihood - kl - style.kl
        bits = -elbo / (self.config.num_pixel_channels * math.log(2)) + self.likelihood.level_bits
        return ELBOOutput(elbo, log_likelihood, kl, bits, codes, logits, style.kl)


DVAE.register_for_auto_class("AutoModel")  # its code is saved beside the weights
