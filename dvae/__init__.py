"""pixels <-> codes: the discrete VAE, its posteriors and likelihoods."""

from .categoricals import Quantized, gumbel_softmax, kl_to_uniform, sample_codes, vector_quantize
from .codebook_usage import codebook_usage, count_codes
from .configuration_dvae import DVAEConfig
from .continuous_posteriors import LATENT_POSTERIORS, GaussianLatents, ImplicitLatents, LatentDraw, Moments
from .generator import GANGenerator, GANGeneratorConfig
from .image_processing_dvae import DVAEImageProcessor, UnusablePicture, each_picture, read_picture
from .latent_priors import LATENT_PRIORS, FlowPrior, GaussianPrior
from .likelihoods import LIKELIHOODS, Bernoulli, Gaussian, Laplace, LogitLaplace
from .modeling_dvae import DVAE, AutoencoderOutput, DVAEOutput, ELBOOutput
from .patch_discriminator import PatchDiscriminator, PatchDiscriminatorConfig
from .posteriors import (
    POSTERIORS,
    CodebookGumbelPosterior,
    GumbelPosterior,
    ImplicitPosterior,
    LatentPosterior,
    PosteriorOutput,
    VectorQuantizedPosterior,
)
from .ratio_discriminators import (
    CodeDiscriminator,
    CodeDiscriminatorConfig,
    LatentDiscriminator,
    LatentDiscriminatorConfig,
)
from .style import NoStyle, Style

__all__ = [
    "DVAE",
    "LATENT_POSTERIORS",
    "LATENT_PRIORS",
    "LIKELIHOODS",
    "POSTERIORS",
    "AutoencoderOutput",
    "Bernoulli",
    "CodeDiscriminator",
    "CodeDiscriminatorConfig",
    "CodebookGumbelPosterior",
    "DVAEConfig",
    "DVAEImageProcessor",
    "DVAEOutput",
    "ELBOOutput",
    "FlowPrior",
    "GANGenerator",
    "GANGeneratorConfig",
    "Gaussian",
    "GaussianLatents",
    "GaussianPrior",
    "GumbelPosterior",
    "ImplicitLatents",
    "ImplicitPosterior",
    "Laplace",
    "LatentDiscriminator",
    "LatentDiscriminatorConfig",
    "LatentDraw",
    "LatentPosterior",
    "LogitLaplace",
    "Moments",
    "NoStyle",
    "PatchDiscriminator",
    "PatchDiscriminatorConfig",
    "PosteriorOutput",
    "Quantized",
    "Style",
    "UnusablePicture",
    "VectorQuantizedPosterior",
    "codebook_usage",
    "count_codes",
    "each_picture",
    "gumbel_softmax",
    "kl_to_uniform",
    "read_picture",
    "sample_codes",
    "vector_quantize",
]
