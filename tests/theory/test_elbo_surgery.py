"""ELBO surgery (rows 1 and 2): exact identities on tables and on all grids, and the estimate against enumeration."""

import math

import pytest
import torch
from messages import refused
from torch.distributions import Categorical, kl_divergence

from dvae import DVAE, DVAEConfig, kl_to_uniform
from prior_transformer import PriorTransformer, PriorTransformerConfig
from training.evaluation.surgery import aggregated_log_prob, estimate_surgery, prior_log_prob
from training.theory.exact_surgery import elbo_surgery, enumerate_grids, grid_log_probs, grid_surgery


def random_tables(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q (n, K), log p(x | c) (n, K), p (K,) in float64, of sizes that the seed decides."""
    generator = torch.Generator().manual_seed(seed)
    n, size = (int(torch.randint(2, 12, (), generator=generator)) for _ in range(2))
    q = (2 * torch.randn(n, size, generator=generator, dtype=torch.float64)).softmax(-1)
    loglik = -5 * torch.rand(n, size, generator=generator, dtype=torch.float64)
    return q, loglik, torch.randn(size, generator=generator, dtype=torch.float64).softmax(-1)


@pytest.mark.parametrize("seed", range(20))
def test_the_mean_kl_is_mutual_information_and_marginal_kl(seed):
    """Row 1. Entropies and KLs from torch.distributions; the elbo does not come from its parts."""
    q, loglik, prior = random_tables(seed)
    parts = elbo_surgery(q, loglik, prior)
    kl = kl_divergence(Categorical(q), Categorical(prior)).mean()
    aggregated = Categorical(q.mean(0))
    information = aggregated.entropy() - Categorical(q).entropy().mean()
    assert abs(kl - parts.mutual_information - parts.marginal_kl) < 1e-12
    assert abs(parts.mutual_information - information) < 1e-12
    assert abs(parts.elbo - (parts.reconstruction - parts.mutual_information - parts.marginal_kl)) < 1e-12
    assert 0 <= parts.mutual_information <= min(math.log(len(q)), aggregated.entropy()) + 1e-12
    assert parts.marginal_kl >= 0


@pytest.mark.parametrize("seed", range(20))
def test_at_the_exact_posterior_the_elbo_is_the_evidence(seed):
    """Row 1. And any other q is below it, by KL(q ‖ posterior)."""
    q, loglik, prior = random_tables(seed)
    joint = prior.log() + loglik
    evidence, posterior = joint.logsumexp(-1).mean(), joint.softmax(-1)
    assert abs(elbo_surgery(posterior, loglik, prior).elbo - evidence) < 1e-12
    gap = kl_divergence(Categorical(q), Categorical(posterior)).mean()
    assert abs(evidence - elbo_surgery(q, loglik, prior).elbo - gap) < 1e-12


def test_sure_codes_tell_all_and_zeros_do_no_harm():
    """One-hot q, each picture its own code: I = log n, and −inf where q is 0 enters nowhere."""
    q, loglik = torch.eye(4, 6, dtype=torch.float64), torch.full((4, 6), -math.inf, dtype=torch.float64)
    loglik[q > 0] = -1.5
    uniform = torch.full((6,), 1 / 6, dtype=torch.float64)
    parts = torch.stack(elbo_surgery(q, loglik, uniform))
    expected = torch.tensor([-1.5, math.log(4), math.log(6 / 4), -1.5 - math.log(6)], dtype=torch.float64)
    torch.testing.assert_close(parts, expected, atol=1e-14, rtol=0)
    with refused(ValueError, "(4, 6)", "(4, 5)"):
        elbo_surgery(q, loglik[:, :5], uniform)


@pytest.mark.parametrize("seed", range(5))
def test_on_grids_the_closed_kl_is_that_of_all_81(seed):
    """Row 2. 2 × 2, K = 3: summed over positions as over grids, then the parts of the marginal KL."""
    logits = 2 * torch.randn(7, 3, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    grids = enumerate_grids(3, 2, 2)
    assert grids.shape == (81, 2, 2) and len(grids.flatten(1).unique(dim=0)) == 81
    q = grid_log_probs(logits, grids).exp()
    uniform = torch.full((81,), 1 / 81, dtype=torch.float64)
    torch.testing.assert_close(q.sum(1), torch.ones(7, dtype=torch.float64), atol=1e-14, rtol=0)
    enumerated = kl_divergence(Categorical(q), Categorical(uniform.expand(7, -1)))
    torch.testing.assert_close(kl_to_uniform(logits), enumerated, atol=1e-13, rtol=0)
    torch.testing.assert_close(kl_to_uniform(logits[:1]), enumerated[:1], atol=1e-13, rtol=0)

    parts, table = grid_surgery(logits), elbo_surgery(q, torch.zeros_like(q), uniform)
    assert abs(parts.marginal_kl - parts.position_kl - parts.total_correlation) < 1e-12
    assert abs(parts.mutual_information + parts.marginal_kl - enumerated.mean()) < 1e-12
    assert abs(parts.mutual_information - table.mutual_information) < 1e-12
    assert abs(parts.marginal_kl - table.marginal_kl) < 1e-12
    assert parts.total_correlation > 0.01  # pictures that differ make codes depend on each other


def test_two_sure_grids_have_a_known_total_correlation():
    """All 0 or all 1 of K = 3 on 2 × 2: I = log 2, each position log 3 − log 2, total correlation 3 log 2."""
    logits = torch.full((2, 3, 2, 2), -1e3, dtype=torch.float64)
    logits[0, 0], logits[1, 1] = 0, 0
    expected = [math.log(2), 4 * math.log(3) - math.log(2), 4 * math.log(3 / 2), 3 * math.log(2)]
    torch.testing.assert_close(
        torch.stack(grid_surgery(logits)), torch.tensor(expected, dtype=torch.float64), atol=1e-13, rtol=0
    )


def test_the_aggregated_posterior_is_the_mean_over_pictures_in_chunks_of_any_size():
    logits = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grids = enumerate_grids(3, 2, 2)
    expected = grid_log_probs(logits, grids).exp().mean(0)
    for chunk_size in (7, 81, 512):
        torch.testing.assert_close(aggregated_log_prob(logits, grids, chunk_size).exp(), expected)


@pytest.fixture(scope="module")
def models() -> tuple[DVAE, PriorTransformer]:
    """2 × 2 codes of 3, from 4 × 4 pixels: every grid can be enumerated. The posterior is neither sure nor uniform."""
    torch.manual_seed(0)
    dvae = DVAE(
        DVAEConfig(image_size=4, downsample_factor=2, codebook_size=3, codebook_dim=4, widths=[8, 8], post_gain=1.0)
    ).eval()
    with torch.no_grad():
        dvae.posterior.head.weight *= 3
    config = PriorTransformerConfig(
        text_vocab_size=5,
        codebook_size=3,
        text_length=1,
        grid_size=2,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=0.5,
    )
    return dvae, PriorTransformer(config).eval()


def test_the_estimate_on_pictures_is_the_enumerated_one(models):
    """
    Three pictures, 1,000 times each: then the n pictures' q_agg is known, up to the noise of dequantising, and each
    part's mean over 3,000 drawn grids is within 0.05 of its sum over all 81. `log n` is not near.
    """
    dvae, prior = models
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 2, (3, 3, 4, 4), generator=generator, dtype=torch.uint8) * 255
    text_ids = torch.tensor([[1], [2], [3]])
    numbers = estimate_surgery(
        dvae, prior, images.repeat(1000, 1, 1, 1), text_ids.repeat(1000, 1), torch.device("cpu")
    )

    grids = enumerate_grids(3, 2, 2)
    with torch.no_grad():
        logits = dvae.posterior.logits(dvae.encoder((images.float() + 0.5) / 256))
        codes = dvae.encode(images.float() / 255)
        q = grid_log_probs(logits, grids).exp()
        priors = [prior_log_prob(prior, text.expand(81, 1), grids) for text in (prior.null_text_ids(1), *text_ids)]
        exact = elbo_surgery(q, torch.zeros_like(q), priors[0].exp())
    assert exact.mutual_information > 0.2 and exact.marginal_kl > 0.2
    assert numbers["mutual_information"] == pytest.approx(exact.mutual_information.item(), abs=0.05)
    assert numbers["marginal_kl_prior"] == pytest.approx(exact.marginal_kl.item(), abs=0.05)
    assert numbers["marginal_kl_uniform"] == pytest.approx(grid_surgery(logits).marginal_kl.item(), abs=0.05)
    captioned = -sum(row @ log_p for row, log_p in zip(q, priors[1:], strict=True)) / 3
    assert 4 * numbers["nll_captioned"] == pytest.approx(captioned.item(), abs=0.05)
    argmax = [log_p[grids.eq(c).all(-1).all(-1)] for c, log_p in zip(codes, priors[1:], strict=True)]
    assert 4 * numbers["argmax_nll_captioned"] == pytest.approx(-torch.cat(argmax).mean().item(), abs=0.05)


def test_the_estimate_adds_up_and_keeps_its_bound(models):
    """Parts of one sum; mutual information at most log n; the same seed the same numbers, another seed others."""
    dvae, prior = models
    images = torch.randint(0, 256, (20, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    text_ids = torch.ones(20, 1, dtype=torch.long)
    numbers = estimate_surgery(dvae, prior, images, text_ids, torch.device("cpu"), batch_size=7)
    assert numbers["pictures"] == 20 and numbers["log_n"] == pytest.approx(math.log(20))
    assert numbers["mutual_information"] <= numbers["log_n"]
    assert numbers["kl_uniform"] == pytest.approx(numbers["mutual_information"] + numbers["marginal_kl_uniform"])
    for name in ("prior", "captioned"):
        saved = numbers["marginal_kl_uniform"] - numbers[f"marginal_kl_{name}"]
        assert numbers[f"saved_by_{name}"] == pytest.approx(saved)
        assert saved == pytest.approx(4 * (math.log(3) - numbers[f"nll_{name}"]))
        bits = numbers["bits_per_dim_uniform"] - numbers[f"bits_per_dim_{name}"]
        assert bits == pytest.approx(saved / (48 * math.log(2)), abs=1e-5)
    elbo = numbers["reconstruction"] - numbers["kl_uniform"]
    assert numbers["bits_per_dim_uniform"] == pytest.approx(8 - elbo / (48 * math.log(2)))
    again = [estimate_surgery(dvae, prior, images, text_ids, torch.device("cpu"), 7, seed) for seed in (0, 1)]
    assert again[0] == numbers and again[1] != numbers


def test_a_styles_kl_is_in_the_bits(models):
    """Of a dVAE with a style −ELBO is more by its KL: what `DVAE.elbo` says of the same draws."""
    torch.manual_seed(0)
    config = {name: getattr(models[0].config, name) for name in ("image_size", "downsample_factor", "widths")}
    dvae = DVAE(DVAEConfig(**config, codebook_size=3, codebook_dim=4, style_size=2)).eval()
    images = torch.randint(0, 256, (9, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    ids = torch.ones(9, 1, dtype=torch.long)
    numbers = estimate_surgery(dvae, models[1], images, ids, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(images.shape, generator=generator)
    bound = dvae.elbo((images.float() + noise) / 256, generator)
    assert bound.style_kl.mean() > 0.01
    assert numbers["bits_per_dim_uniform"] == pytest.approx(bound.bits_per_dim.mean().item(), abs=1e-5)


def test_what_q_never_says_may_be_impossible_and_has_no_gradient():
    q = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    loglik = torch.tensor([[-1.0, -math.inf], [-2.0, -3.0]], requires_grad=True)
    q.requires_grad_()
    parts = elbo_surgery(q, loglik, torch.tensor([0.5, 0.5]))
    assert parts.reconstruction.item() == pytest.approx((-1 - 2.5) / 2)
    assert all(g.isfinite().all() for g in torch.autograd.grad(parts.reconstruction, (q, loglik)))


def test_grids_of_another_shape_are_refused():
    with refused(ValueError, "(1, 3, 2)", "(m, 2, 3)"):
        grid_log_probs(torch.zeros(1, 4, 2, 3), torch.zeros(1, 3, 2, dtype=torch.long))


def test_a_probability_that_underflows_leaves_the_gradient_finite():
    """In q, and in q and the prior at once; an empty code of the prior alone still makes the KL infinite."""
    logits = torch.tensor([[0.0, -200.0, 1.0], [0.0, 1.0, -2.0]], requires_grad=True)
    prior = torch.tensor([0.0, -200.0, 0.0]).softmax(0)
    for target in (torch.full((3,), 1 / 3), prior):
        q = logits.softmax(-1)
        elbo = elbo_surgery(q[:1], torch.zeros(1, 3), target).elbo
        (gradient,) = torch.autograd.grad(elbo, logits)
        assert gradient.isfinite().all() and gradient[0].abs().sum() > 0
    assert elbo_surgery(logits.softmax(-1)[1:], torch.zeros(1, 3), prior).marginal_kl == torch.inf
