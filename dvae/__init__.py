"""pixels <-> codes: the discrete VAE, its posteriors and likelihoods."""

from .categoricals import Quantized, gumbel_softmax, kl_to_uniform, sample_codes, vector_quantize
from .codebook_usage import codebook_usage, count_codes
from .configuration_dvae import DVAEConfig
from .configuration_vqgan import VQGANConfig
from .continuous_posteriors import LATENT_POSTERIORS, GaussianLatents, ImplicitLatents, LatentDraw, Moments
from .first_stages import FIRST_STAGES, FirstStage, load_first_stage, load_first_stage_config
from .generator import GANGenerator, GANGeneratorConfig
from .image_processing_dvae import DVAEImageProcessor, UnusablePicture, each_picture, read_picture
from .latent_priors import LATENT_PRIORS, FlowPrior, GaussianPrior
from .likelihoods import LIKELIHOODS, Bernoulli, Gaussian, Laplace, LogitLaplace
from .modeling_dvae import DVAE, AutoencoderOutput, DVAEOutput, ELBOOutput
from .modeling_vqgan import VQGAN
from .patch_discriminator import PatchDiscriminator, PatchDiscriminatorConfig
from .posterior_base import PosteriorOutput
from .posteriors import (
    POSTERIORS,
    CodebookGumbelPosterior,
    FSQPosterior,
    GumbelPosterior,
    IBQPosterior,
    ImplicitPosterior,
    LatentPosterior,
    LFQPosterior,
    NormalisedVQPosterior,
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
    "FIRST_STAGES",
    "LATENT_POSTERIORS",
    "LATENT_PRIORS",
    "LIKELIHOODS",
    "POSTERIORS",
    "VQGAN",
    "AutoencoderOutput",
    "Bernoulli",
    "CodeDiscriminator",
    "CodeDiscriminatorConfig",
    "CodebookGumbelPosterior",
    "DVAEConfig",
    "DVAEImageProcessor",
    "DVAEOutput",
    "ELBOOutput",
    "FSQPosterior",
    "FirstStage",
    "FlowPrior",
    "GANGenerator",
    "GANGeneratorConfig",
    "Gaussian",
    "GaussianLatents",
    "GaussianPrior",
    "GumbelPosterior",
    "IBQPosterior",
    "ImplicitLatents",
    "ImplicitPosterior",
    "LFQPosterior",
    "Laplace",
    "LatentDiscriminator",
    "LatentDiscriminatorConfig",
    "LatentDraw",
    "LatentPosterior",
    "LogitLaplace",
    "Moments",
    "NoStyle",
    "NormalisedVQPosterior",
    "PatchDiscriminator",
    "PatchDiscriminatorConfig",
    "PosteriorOutput",
    "Quantized",
    "Style",
    "UnusablePicture",
    "VQGANConfig",
    "VectorQuantizedPosterior",
    "codebook_usage",
    "count_codes",
    "each_picture",
    "gumbel_softmax",
    "kl_to_uniform",
    "load_first_stage",
    "load_first_stage_config",
    "read_picture",
    "sample_codes",
    "vector_quantize",
]
