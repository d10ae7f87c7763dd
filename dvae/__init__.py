"""pixels <-> codes: the discrete VAE, its posteriors and likelihoods."""

from .configuration_dvae import DVAEConfig
from .density_ratio import CodeDiscriminator, CodeDiscriminatorConfig
from .discriminators import PatchDiscriminator, PatchDiscriminatorConfig
from .generator import GANGenerator, GANGeneratorConfig
from .image_processing_dvae import DVAEImageProcessor
from .likelihoods import LIKELIHOODS, Bernoulli, Gaussian, Laplace, LogitLaplace
from .modeling_dvae import DVAE, DVAEOutput, ELBOOutput, codebook_usage, count_codes
from .posteriors import (
    POSTERIORS,
    CodebookGumbelPosterior,
    GumbelPosterior,
    ImplicitPosterior,
    LatentPosterior,
    PosteriorOutput,
    VectorQuantizedPosterior,
    gumbel_softmax,
    kl_to_uniform,
    sample_codes,
)

__all__ = [
    "DVAE",
    "LIKELIHOODS",
    "POSTERIORS",
    "Bernoulli",
    "CodeDiscriminator",
    "CodeDiscriminatorConfig",
    "CodebookGumbelPosterior",
    "DVAEConfig",
    "DVAEImageProcessor",
    "DVAEOutput",
    "ELBOOutput",
    "GANGenerator",
    "GANGeneratorConfig",
    "Gaussian",
    "GumbelPosterior",
    "ImplicitPosterior",
    "Laplace",
    "LatentPosterior",
    "LogitLaplace",
    "PatchDiscriminator",
    "PatchDiscriminatorConfig",
    "PosteriorOutput",
    "VectorQuantizedPosterior",
    "codebook_usage",
    "count_codes",
    "gumbel_softmax",
    "kl_to_uniform",
    "sample_codes",
]
