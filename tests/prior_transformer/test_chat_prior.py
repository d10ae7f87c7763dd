"""Prompts of unequal length, padded on the left: nobody sees what is padded, and each prompt has a null row."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from messages import refused
from small_priors import K, N, V, make_prior

from prior_transformer import LlamaPriorConfig

PAD = 0


def rows(*prompts: list[int], length: int = 5) -> torch.Tensor:
    return torch.tensor([[PAD] * (length - len(prompt)) + prompt for prompt in prompts])


def random_codes(count: int) -> torch.Tensor:
    return torch.randint(0, K, (count, N), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_what_stands_before_a_prompt_is_seen_by_nobody():
    """By its sequence of tokens alone: in a batch, and in a prior with room for more text."""
    prior, roomy = make_prior("chat"), make_prior("chat", text_length=9)
    roomy.load_state_dict(prior.state_dict())
    codes = random_codes(2)
    batch = rows([1, 5, 3], [1, 2, 6, 4, 3])
    together = prior(prior.join(batch, codes)).image_logits
    for i in range(2):
        alone = prior(prior.join(batch[i : i + 1], codes[i : i + 1])).image_logits
        torch.testing.assert_close(alone[0], together[i], atol=1e-4, rtol=0)
    wide = roomy.join(torch.nn.functional.pad(batch, (4, 0), value=PAD), codes)
    torch.testing.assert_close(roomy(wide).image_logits, together, atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_pad_inside_a_prompt_is_seen():
    prior, codes, prompts = make_prior("chat"), random_codes(1), ([1, PAD, 3], [1, 3], [1, PAD, PAD, 3])
    logits = [prior(prior.join(rows(prompt), codes)).image_logits for prompt in prompts]
    assert (logits[0] - logits[1]).abs().max() > 1e-2 and (logits[0] - logits[2]).abs().max() > 1e-2


@torch.no_grad()
def test_looks_of_rows_whose_prompts_are_read_apart_go_on_together():
    """Caches of a short and of a long prompt, joined either way, give what one pass over everything gives."""
    prior, codes = make_prior("chat"), random_codes(2)
    batch = rows([1, 3], [1, 2, 6, 4, 3])
    expected = prior(prior.join(batch, codes)).image_logits[:, 1:]
    for order in ([0, 1], [1, 0]):
        _, cache = prior.read(batch[order[:1]])
        cache = cache.expand(torch.tensor([0, 0]))
        _, other = prior.read(batch[order[1:]])
        cache.put(torch.tensor([1]), other, torch.tensor([0]))
        for start in range(0, N - 1, 3):
            part = codes[order, start : start + 3]
            logits = prior.look(part, torch.tensor([start, start]), cache)
            length = min(3, N - 1 - start)
            torch.testing.assert_close(logits[:, :length], expected[order, start : start + length], atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_null_row_is_made_of_its_prompt_in_either_form():
    prior = make_prior("chat")
    batch = rows([1, 5, 3], [1, 2, 6, 4, 3], [1, 3])
    empty = rows([1, PAD, 3], [1, PAD, PAD, PAD, 3], [1, 3])
    assert torch.equal(prior.null(batch), empty) and torch.equal(prior.null(empty), empty)
    prefixes = prior.embed_text(batch)
    assert (prefixes[0, :2] == 0).all(), "what nobody sees is zeros"
    assert torch.equal(prior.null(prefixes)[:, 2:], prior.embed_text(empty)[:, 2:])
    by_ids, by_prefixes = (prior.read(captions)[0] for captions in (batch, prefixes))
    assert torch.equal(by_ids, by_prefixes)


def test_the_loss_is_of_codes_alone_and_reaches_every_parameter():
    prior, codes = make_prior("chat").train(), random_codes(8)
    text = torch.randint(1, V, (8, 5), generator=torch.Generator().manual_seed(1))
    codes[0, : K - N] = torch.arange(K - N)
    input_ids = prior.join(text, codes)
    output = prior(input_ids, labels=input_ids)
    assert output.text_loss is None and output.text_logits is None and output.loss is output.image_loss
    output.loss.backward()
    still = [name for name, weight in prior.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not still and not hasattr(prior.text_head, "weight") and prior.embeddings.bos is None


def test_what_does_not_fit_is_refused():
    with refused(StrictDataclassError, "text_loss_weight=1.0", 0, "'chat'"):
        LlamaPriorConfig(text="chat")
    with refused(StrictDataclassError, "image_head_size=0", 1):
        LlamaPriorConfig(image_head_size=0)
    assert LlamaPriorConfig(text_length=5, grid_size=3).stream_length == 1 + 5 + 9
    assert LlamaPriorConfig(text_length=5, grid_size=3, text="chat", text_loss_weight=0).stream_length == 5 + 9
    assert pytest.approx(0) == LlamaPriorConfig(text="chat", text_loss_weight=0).text_loss_weight
