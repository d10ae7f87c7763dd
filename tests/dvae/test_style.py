"""The style: a continuous latent beside the codes, of Gaussian or implicit posterior, of Gaussian or flow prior."""

import pytest
import torch
from accelerate import Accelerator
from messages import refused

from dvae import DVAE, DVAEConfig, LatentDiscriminator
from training.adversaries.adversary_settings import StyleSettings
from training.adversaries.beside_the_dvae import DVAEStep, StyleAdversary, build_adversaries
from training.loop.losses import dvae_losses
from training.presets.trainers import DVAETraining

SIZES = {"image_size": 16, "downsample_factor": 4, "codebook_size": 12, "codebook_dim": 6, "widths": [8, 12, 16]}
KINDS = [(q, p) for q in ("gaussian", "implicit") for p in ("gaussian", "flow")]


def tiny(posterior: str = "implicit", prior: str = "gaussian") -> DVAE:
    torch.manual_seed(0)
    return DVAE(DVAEConfig(**SIZES, style_size=3, style_posterior=posterior, style_prior=prior)).eval()


@pytest.fixture
def pixel_values() -> torch.Tensor:
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("posterior", "prior"), KINDS)
def test_a_gradient_reaches_every_parameter(posterior, prior, pixel_values):
    dvae = tiny(posterior, prior).train()
    dvae_losses(pixel_values, dvae(pixel_values), dvae.likelihood, 1.0)["loss"].backward()
    assert not [name for name, p in dvae.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.mark.parametrize(("posterior", "prior"), KINDS)
def test_saved_and_loaded_gives_the_same(posterior, prior, pixel_values, tmp_path):
    dvae = tiny(posterior, prior)
    dvae.save_pretrained(tmp_path)
    loaded = DVAE.from_pretrained(tmp_path)
    assert torch.equal(dvae.reconstruct(pixel_values), loaded.reconstruct(pixel_values))
    bounds = [model.elbo(pixel_values, torch.Generator().manual_seed(0)) for model in (dvae, loaded)]
    assert torch.equal(bounds[0].elbo, bounds[1].elbo)
    codes = dvae.encode(pixel_values)
    assert torch.equal(dvae.decode(codes), loaded.decode(codes))


def test_the_style_moves_the_picture_and_its_centre_stands_for_none(pixel_values):
    dvae = tiny()
    codes, style = dvae.encode(pixel_values), dvae.encode_style(pixel_values)
    assert style.shape == (4, 3) and torch.equal(style, dvae.encode_style(pixel_values))
    assert torch.equal(dvae.decode(codes), dvae.decode(codes, dvae.style.prior.centre().expand(4, -1)))
    assert not torch.allclose(dvae.decode(codes), dvae.decode(codes, style + 1))
    assert torch.equal(dvae.reconstruct(pixel_values), dvae.decode(codes, style))


@pytest.mark.parametrize("posterior", ["gaussian", "implicit"])
def test_in_half_precision_it_is_what_it_was(posterior, pixel_values):
    dvae = tiny(posterior)
    expected = dvae.reconstruct(pixel_values)
    found = dvae.to(torch.bfloat16).reconstruct(pixel_values.bfloat16())
    assert (found.float() - expected).abs().median() < 0.02  # a code may tip over


def test_without_style_there_is_none(pixel_values):
    dvae = DVAE(DVAEConfig(**SIZES)).eval()
    assert dvae.encode_style(pixel_values).shape == (4, 0)
    assert torch.equal(dvae(pixel_values).style_kl, torch.zeros(4))


def test_the_kl_of_a_gaussian_style_is_the_closed_one(pixel_values):
    """Σ ½ (σ² + μ² − 1) − ln σ, against the mean of 20,000 draws of log q − log p."""
    dvae = tiny("gaussian")
    with torch.no_grad():
        features = dvae.style.features(dvae.encoder(pixel_values))
        mean, log_scale = dvae.style.posterior.given(features, features.new_zeros(4, 0))
        draws = [dvae.style(dvae.encoder(pixel_values[i : i + 1]).expand(20_000, -1, -1, -1)).kl for i in range(4)]
    closed = ((log_scale.mul(2).exp() + mean.square() - 1) / 2 - log_scale).sum(1)
    torch.testing.assert_close(torch.stack([draw.mean() for draw in draws]), closed, atol=0.05, rtol=0)


def test_the_elbo_counts_it(pixel_values):
    bound = tiny().elbo(pixel_values)
    torch.testing.assert_close(bound.elbo, bound.log_likelihood - bound.kl - bound.style_kl)
    assert bound.style_kl.abs().min() > 0


@pytest.mark.parametrize("prior", ["gaussian", "flow"])
def test_its_adversary_moves_the_encoder_and_learns_alone(prior, pixel_values):
    dvae = tiny(prior=prior).train()
    adversary = StyleAdversary(dvae, StyleSettings(width=8), Accelerator(cpu=True))
    output = dvae(pixel_values)
    batch = DVAEStep(pixel_values, output, dvae_losses(pixel_values, output, dvae.likelihood, 1.0), 1.0)
    numbers = adversary.losses(0, batch)
    expected = batch.losses["loss"] + (numbers["style_kl_ratio"] - output.style_kl.mean()) / (3 * 16 * 16)
    torch.testing.assert_close(numbers["loss"], expected)
    numbers["loss"].backward()
    assert all(p.grad is None for p in adversary.network.parameters())
    assert all(p.grad.abs().sum() > 0 for p in [*dvae.style.parameters(), *dvae.encoder.parameters()])
    before = [p.detach().clone() for p in dvae.parameters()]
    own = [p.detach().clone() for p in adversary.network.parameters()]
    adversary.learn(0, batch)
    assert all(map(torch.equal, before, dvae.parameters()))
    assert not all(map(torch.equal, own, adversary.network.parameters()))


def test_the_preset_switches_it_on_and_its_network_loads_alone(tmp_path):
    (adversary,) = build_adversaries(
        tiny(), DVAETraining(style_adversary=StyleSettings(width=8)), Accelerator(cpu=True)
    )
    adversary.network.save_pretrained(tmp_path)
    loaded, features, z = LatentDiscriminator.from_pretrained(tmp_path), torch.randn(5, 16), torch.randn(5, 3)
    assert torch.equal(loaded(features, z), adversary.network.eval()(features, z))
    with refused(ValueError, "(5, 16)", "(5, 4)", "(B, 16)", "(B, 3)"):
        loaded(features, torch.randn(5, 4))


@pytest.mark.parametrize("fields", [{}, {"style_size": 3, "style_posterior": "gaussian"}])
def test_a_style_with_a_closed_kl_needs_no_adversary(fields):
    config = DVAEConfig(**SIZES, **fields)
    parts = f"style_size={config.style_size}", config.style_posterior, "training.style_adversary"
    with refused(ValueError, *parts):
        StyleAdversary(DVAE(config), StyleSettings(), Accelerator(cpu=True))
