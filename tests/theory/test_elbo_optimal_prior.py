"""The optimal prior is the aggregated posterior (row 3): fitted as a table and as an autoregressive transformer."""

import torch

from prior_transformer import PriorTransformer, PriorTransformerConfig
from training.evaluation.surgery import prior_log_prob
from training.theory.exact_surgery import elbo_surgery, enumerate_grids, grid_log_probs


def total_variation(p: torch.Tensor, q: torch.Tensor) -> float:
    return 0.5 * (p - q).abs().sum().item()


def fit(parameters: list[torch.Tensor], loss, iterations: int) -> None:
    """Full-batch L-BFGS: the expectation is exact, so there is no noise to average over."""
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=iterations, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)


def test_a_learnable_table_becomes_the_aggregated_posterior():
    """q fixed, the ELBO raised by its prior alone: it gains KL(q_agg ‖ p₀), what the marginal KL was."""
    generator = torch.Generator().manual_seed(0)
    q = (2 * torch.randn(6, 9, generator=generator, dtype=torch.float64)).softmax(-1)
    loglik = -torch.rand(6, 9, generator=generator, dtype=torch.float64)
    table = torch.randn(9, generator=generator, dtype=torch.float64).requires_grad_()
    before = elbo_surgery(q, loglik, table.detach().softmax(0))
    fit([table], lambda: -elbo_surgery(q, loglik, table.softmax(0)).elbo, iterations=200)
    after = elbo_surgery(q, loglik, table.detach().softmax(0))
    assert total_variation(table.detach().softmax(0), q.mean(0)) < 1e-5
    assert before.marginal_kl > 0.3
    assert abs(after.elbo - before.elbo - before.marginal_kl) < 1e-8
    assert abs(after.mutual_information - before.mutual_information) < 1e-12


def test_an_autoregressive_prior_becomes_the_aggregated_posterior_of_grids():
    """2 × 2, K = 3, four pictures whose mixture no prior of independent codes can be: total variation < 1e-3."""
    generator = torch.Generator().manual_seed(0)
    logits = 1.5 * torch.randn(4, 3, 2, 2, generator=generator, dtype=torch.float64)
    grids = enumerate_grids(3, 2, 2)
    q = grid_log_probs(logits, grids).exp()
    aggregated = q.mean(0)
    torch.manual_seed(0)
    config = PriorTransformerConfig(
        text_vocab_size=2,
        codebook_size=3,
        text_length=1,
        grid_size=2,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.2,
    )
    prior = PriorTransformer(config).double().eval()
    text_ids = prior.null_text_ids(len(grids))
    before = elbo_surgery(q, torch.zeros_like(q), prior_log_prob(prior, text_ids, grids).detach().exp())
    fit(
        [p for name, p in prior.named_parameters() if not name.startswith("text_head")],
        lambda: -(aggregated * prior_log_prob(prior, text_ids, grids)).sum(),
        iterations=400,
    )
    learned = prior_log_prob(prior, text_ids, grids).detach().exp()
    after = elbo_surgery(q, torch.zeros_like(q), learned)
    assert abs(learned.sum() - 1) < 1e-9
    assert total_variation(learned, aggregated) < 1e-3
    assert before.marginal_kl > 0.3
    assert 0 <= after.marginal_kl < 1e-5
    assert abs(after.elbo - before.elbo - (before.marginal_kl - after.marginal_kl)) < 1e-9
