"""pixels <-> codes: the discrete VAE, its posteriors and likelihoods."""

from .configuration_dvae import DVAEConfig
from .image_processing_dvae import DVAEImageProcessor
from .likelihoods import LIKELIHOODS, Gaussian, Laplace, LogitLaplace
from .modeling_dvae import DVAE, DVAEOutput, ELBOOutput, codebook_usage, count_codes
from .posteriors import (
    POSTERIORS,
    CodebookGumbelPosterior,
    GumbelPosterior,
    LatentPosterior,
    PosteriorOutput,
    VectorQuantizedPosterior,
    kl_to_uniform,
)

__all__ = [
    "DVAE",
    "LIKELIHOODS",
    "POSTERIORS",
    "CodebookGumbelPosterior",
    "DVAEConfig",
    "DVAEImageProcessor",
    "DVAEOutput",
    "ELBOOutput",
    "Gaussian",
    "GumbelPosterior",
    "Laplace",
    "LatentPosterior",
    "LogitLaplace",
    "PosteriorOutput",
    "VectorQuantizedPosterior",
    "codebook_usage",
    "count_codes",
    "kl_to_uniform",
]
