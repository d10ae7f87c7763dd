"""Rows 5 and 6: the KL of codes to the uniform prior, and vector quantisation with its gradients, straight through."""

import math

import pytest
import torch
from messages import refused
from torch.nn import functional as F

from dvae import DVAE, DVAEConfig, gumbel_softmax, kl_to_uniform, sample_codes, vector_quantize
from dvae.categoricals import squared_distances


@pytest.mark.parametrize(("codebook_size", "height", "width"), [(8192, 32, 32), (3, 2, 5), (2, 1, 1)])
def test_the_kl_is_zero_for_uniform_logits_and_log_k_a_token_for_one_hot_ones(codebook_size, height, width):
    """log 8192 = 9.010913; of 32×32 tokens 9227.175."""
    flat = torch.full((1, codebook_size, height, width), 3.0)
    assert kl_to_uniform(flat).item() == pytest.approx(0, abs=1e-3)
    one_hot = torch.full_like(flat, -torch.inf)
    one_hot[:, codebook_size // 2] = 0
    assert kl_to_uniform(one_hot).item() == pytest.approx(height * width * math.log(codebook_size), rel=1e-6)


def test_the_kl_of_probabilities_of_zero_and_its_gradient():
    """½, ½, 0, 0: log 4 − log 2."""
    logits = torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64).log().view(1, 4, 1, 1).requires_grad_()
    value = kl_to_uniform(logits)
    torch.testing.assert_close(value, torch.tensor([math.log(2)], dtype=torch.float64))
    assert torch.autograd.grad(value, logits)[0].isfinite().all()


def grid(seed: int, codebook_size: int = 7, dim: int = 5, dtype: torch.dtype = torch.float64):
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(2, dim, 3, 4, generator=rng, dtype=dtype)
    codebook = torch.randn(codebook_size, dim, generator=rng, dtype=dtype)
    return z.requires_grad_(), codebook.requires_grad_()


@pytest.mark.parametrize("seed", range(3))
def test_each_place_takes_its_nearest_entry(seed):
    z, codebook = grid(seed)
    q = vector_quantize(z, codebook)
    brute = ((z.detach()[:, None] - codebook.detach()[None, :, :, None, None]) ** 2).sum(2).argmin(1)
    assert torch.equal(q.codes, brute)
    torch.testing.assert_close(q.latents.movedim(1, -1), codebook[q.codes])


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_goes_straight_through_and_each_loss_to_its_own_side(seed):
    z, codebook = grid(seed)
    q = vector_quantize(z, codebook)
    weights = torch.randn_like(q.latents)
    through = torch.autograd.grad((q.latents * weights).sum(), (z, codebook), retain_graph=True, allow_unused=True)
    torch.testing.assert_close(through[0], weights, rtol=0, atol=1e-15)
    assert through[1] is None, "the reconstruction moves no entry"
    entries = F.embedding(q.codes, codebook).movedim(-1, 1).detach()
    of_codebook = torch.autograd.grad(q.codebook_loss, (z, codebook), retain_graph=True, allow_unused=True)
    assert of_codebook[0] is None
    expected = torch.zeros_like(codebook).index_add(
        0, q.codes.flatten(), (2 * (entries - z.detach()) / z.numel()).movedim(1, -1).flatten(0, 2)
    )
    torch.testing.assert_close(of_codebook[1], expected)
    of_z = torch.autograd.grad(q.commitment_loss, (z, codebook), allow_unused=True)
    assert of_z[1] is None
    torch.testing.assert_close(of_z[0], 2 * (z.detach() - entries) / z.numel())
    torch.testing.assert_close(q.codebook_loss, q.commitment_loss)


def test_an_offset_that_latents_and_codebook_share_changes_no_code():
    z, codebook = grid(0, codebook_size=16, dtype=torch.float32)
    codes = squared_distances(z, codebook).argmin(1)
    assert torch.equal(squared_distances(z + 1000, codebook + 1000).argmin(1), codes)


def test_the_bound_of_a_vector_quantized_dvae_is_that_of_its_own_codes():
    """q is deterministic: the sample is the code that `encode` gives, and the KL is h·w·log K."""
    torch.manual_seed(0)
    sizes = {"image_size": 8, "downsample_factor": 2, "codebook_size": 8, "codebook_dim": 4, "widths": [8, 8]}
    dvae = DVAE(DVAEConfig(**sizes, posterior="vq")).eval()
    pixel_values = torch.rand(5, 3, 8, 8)
    bound, output = dvae.elbo(pixel_values), dvae(pixel_values)
    assert torch.equal(bound.codes, dvae.encode(pixel_values))
    for kl in (bound.kl, output.kl, dvae.decode_argmax(pixel_values).kl):
        torch.testing.assert_close(kl, torch.full((5,), 16 * math.log(8)))


def test_half_precision_logits_are_drawn_as_finely_as_others():
    """Uniform over 8,192 codes: the mean of the indices of 2,500 draws, within 4 standard errors."""
    codes = sample_codes(torch.zeros(1, 8192, 50, 50, dtype=torch.bfloat16), torch.Generator().manual_seed(0))
    assert codes.double().mean().item() == pytest.approx(8191 / 2, abs=4 * 8192 / math.sqrt(12 * 2500))


def test_a_temperature_of_zero_is_refused():
    with refused(ValueError, "temperature=0.0", 0):
        gumbel_softmax(torch.zeros(1, 3, 1, 1), 0.0)


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float32), (torch.float64, torch.float32)], ids=str)
def test_the_quantized_latents_are_the_entries_to_the_bit(dtypes):
    """Also of small entries far from z, where z + (e − z) would round; and z's gradient is that of the latents."""
    rng = torch.Generator().manual_seed(0)
    z = (50 * torch.randn(4, 6, 3, 3, generator=rng)).to(dtypes[0]).requires_grad_()
    codebook = (torch.rand(32, 6, generator=rng) / 16).to(dtypes[1])
    quantized = vector_quantize(z, codebook)
    assert torch.equal(quantized.latents, codebook[quantized.codes].movedim(-1, 1).to(dtypes[0]))
    weights = torch.randn(z.shape, generator=rng).to(dtypes[0])
    (gradient,) = torch.autograd.grad((weights * quantized.latents).sum(), z)
    assert torch.equal(gradient, weights)
