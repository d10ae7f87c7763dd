"""What the training benchmark reports: its count of operations, and that its steps learn."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from prior_transformer import PriorTransformer, PriorTransformerConfig
from tests.benchmarks.training import joint_ids, model_flops, prior_step


@pytest.fixture
def prior() -> PriorTransformer:
    torch.manual_seed(0)
    sizes = {"text_vocab_size": 50, "codebook_size": 30, "text_length": 5, "grid_size": 3}
    return PriorTransformer(
        PriorTransformerConfig(**sizes, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
    )


def test_the_count_is_torchs_own_but_for_the_masked_half_of_attention(prior):
    """Written-out attention multiplies all 14² pairs, of which causal attention needs 14 · 15 / 2."""
    prior.set_attn_implementation("eager")
    input_ids = joint_ids(prior, batch_size=3)
    with FlopCounterMode(display=False) as counter:
        prior(input_ids, labels=input_ids).loss.backward()
    masked = 3 * 12 * 2 * 16 * (14**2 - 14 * 15 / 2)
    assert counter.get_total_flops() == model_flops(prior.config, batch_size=3) + masked


def test_a_step_in_bf16_learns_its_batch(prior):
    step = prior_step(prior, batch_size=2, dtype=torch.bfloat16)
    losses = [step().item() for _ in range(30)]
    assert 3.0 < losses[0] < 4.0 and losses[-1] < losses[0] - 0.1
