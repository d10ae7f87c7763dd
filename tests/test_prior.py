"""The prior is causal, the same under a cache, and trained at every place that is sampled from."""

import math

import pytest
import torch
import torch.nn.functional as F

from prior_transformer import PriorTransformer, PriorTransformerConfig

T, GRID, K, V = 5, 3, 11, 7  # text length, side of the grid, codes, text ids
N = GRID**2
PATTERNS = ["full", "dalle"]


def make_prior(attention_pattern: str = "full", **settings) -> PriorTransformer:
    """Five layers, so that "dalle" has every mask; weights wide enough that attention matters."""
    torch.manual_seed(0)
    sizes = {"text_vocab_size": V, "image_vocab_size": K, "text_length": T, "grid_size": GRID}
    sizes |= {"hidden_size": 16, "num_hidden_layers": 5, "num_attention_heads": 2, "conv_kernel_size": 3}
    settings = {"initializer_range": 0.3} | sizes | settings
    return PriorTransformer(PriorTransformerConfig(attention_pattern=attention_pattern, **settings)).eval()


def make_batch(prior: PriorTransformer, batch_size: int = 2, seed: int = 0) -> torch.Tensor:
    """Joint ids whose captions end in pads."""
    generator = torch.Generator().manual_seed(seed)
    text_ids = torch.randint(1, V, (batch_size, T), generator=generator)
    text_ids[:, T - 2 :] = prior.config.pad_token_id
    return prior.join(text_ids, torch.randint(0, K, (batch_size, N), generator=generator))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_later_token_changes_no_earlier_logit(pattern, attention):
    prior = make_prior(pattern, attn_implementation=attention)
    input_ids = make_batch(prior, batch_size=1)
    with torch.no_grad():
        before = prior(input_ids)
        before = torch.cat([before.text_logits.flatten(), before.image_logits.flatten()]).split([V] * T + [K] * N)
        for place in range(T + N):
            changed = input_ids.clone()
            first, size = (K, V) if place < T else (0, K)
            changed[0, place] = first + (changed[0, place] - first + 1) % size
            after = prior(changed)
            after = torch.cat([after.text_logits.flatten(), after.image_logits.flatten()]).split([V] * T + [K] * N)
            for i in range(place + 1):
                assert torch.equal(before[i], after[i])
            if place < T + N - 1:
                assert not torch.equal(before[place + 1], after[place + 1])


@pytest.mark.parametrize("pattern", PATTERNS)
@torch.no_grad()
def test_the_two_ways_to_attend_agree(pattern):
    prior = make_prior(pattern)
    input_ids = make_batch(prior)
    fused = prior(input_ids).image_logits
    prior.set_attn_implementation("eager")
    assert prior.config._attn_implementation == "eager"
    assert torch.allclose(prior(input_ids).image_logits, fused, rtol=0, atol=1e-4)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_gradient_reaches_every_parameter(pattern):
    prior = make_prior(pattern).train()
    input_ids = make_batch(prior)
    prior(input_ids, labels=input_ids).loss.backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    pads = prior.embeddings.text_pad.weight.grad.abs().sum(dim=1) > 0
    assert pads.tolist() == [False] * (T - 2) + [True] * 2  # each place of its own
    assert (prior.embeddings.text_position.weight.grad.abs().sum(dim=1) > 0).all()


def test_the_code_after_the_last_text_token_is_trained():
    prior = make_prior().train()
    input_ids = make_batch(prior)
    labels = torch.full_like(input_ids, -100)
    labels[:, T] = input_ids[:, T]  # the first code alone
    output = prior(input_ids, labels=labels)
    output.image_logits.retain_grad()
    output.loss.backward()
    reached = output.image_logits.grad.abs().sum(dim=(0, 2)) > 0
    assert reached.tolist() == [True] + [False] * (N - 1)
    assert output.text_loss == 0
    first = F.cross_entropy(output.image_logits[:, 0], input_ids[:, T])
    assert math.isclose(output.image_loss.item(), first.item(), rel_tol=1e-5)


@torch.no_grad()
def test_the_loss_is_one_eighth_text_and_seven_eighths_image():
    prior = make_prior()
    input_ids = make_batch(prior)
    output = prior(input_ids, labels=input_ids)
    text_ids, codes = prior.split(input_ids)
    text = F.cross_entropy(output.text_logits.transpose(1, 2), text_ids)
    image = F.cross_entropy(output.image_logits.transpose(1, 2), codes)
    assert math.isclose(output.text_loss, text, rel_tol=1e-5)
    assert math.isclose(output.image_loss, image, rel_tol=1e-5)
    assert math.isclose(output.loss, text / 8 + image * 7 / 8, rel_tol=1e-5)
    weighted = make_prior(text_loss_weight=3, image_loss_weight=1)(input_ids, labels=input_ids)
    assert math.isclose(weighted.loss, text * 3 / 4 + image / 4, rel_tol=1e-5)


@torch.no_grad()
def test_two_heads_equal_the_masked_joint_softmax():
    """The paper's one head over both vocabularies, with the other modality's logits at −∞."""
    prior = make_prior()
    input_ids = make_batch(prior)
    embeds = torch.cat([prior.embed_text(prior.split(input_ids)[0]), prior.embed_codes(input_ids[:, T:-1])], dim=1)
    hidden_states = prior.transform(embeds)
    joint = torch.cat([prior.image_logits(hidden_states), prior.text_logits(hidden_states)], dim=2)  # codes first
    is_text = torch.arange(T + N)[:, None] < T
    is_text_id = torch.arange(K + V)[None, :] >= K
    joint = joint.masked_fill(is_text != is_text_id, float("-inf"))
    nll = F.cross_entropy(joint.transpose(1, 2), input_ids, reduction="none").mean(dim=0)
    output = prior(input_ids, labels=input_ids)
    assert math.isclose(output.text_loss, nll[:T].mean(), rel_tol=1e-5)
    assert math.isclose(output.image_loss, nll[T:].mean(), rel_tol=1e-5)


@torch.no_grad()
def test_an_untrained_prior_is_nearly_uniform():
    prior = make_prior(initializer_range=0.02)
    input_ids = make_batch(prior, batch_size=64)
    output = prior(input_ids, labels=input_ids)
    assert abs(output.text_loss.item() - math.log(V)) < 0.05
    assert abs(output.image_loss.item() - math.log(K)) < 0.05


def test_the_scale_of_the_first_weights():
    prior = make_prior(initializer_range=0.02, hidden_size=64, num_hidden_layers=8)
    weights = dict(prior.named_parameters())
    for name, weight in weights.items():
        if "norm" in name or name.endswith("bias"):
            assert torch.equal(weight, torch.full_like(weight, float("norm.weight" in name))), name
        else:
            std = 0.02 / 4 if "output" in name else 0.02
            assert abs(weight.std().item() / std - 1) < (0.35 if weight.numel() < 500 else 0.1), name


@torch.no_grad()
def test_join_is_the_only_offset_and_an_image_logit_is_a_code():
    prior = make_prior()
    text_ids, codes = torch.tensor([[0, 1, 2, 3, 6]]), torch.tensor([[0, 10]])
    before = text_ids.clone()
    joint = prior.join(text_ids, codes)
    assert joint.tolist() == [[11, 12, 13, 14, 17, 0, 10]]
    assert [part.tolist() for part in prior.split(joint)] == [text_ids.tolist(), codes.tolist()]
    assert prior(joint).image_logits.shape == (1, 3, K)
    assert prior(joint[:, :T]).image_logits.shape == (1, 1, K)
    assert prior(make_batch(prior)).image_logits.shape == (2, N, K)
    assert torch.equal(text_ids, before)


@torch.no_grad()
def test_the_empty_caption_is_all_pads_at_places_of_their_own():
    prior = make_prior()
    null = prior.null_text_ids(2)
    assert null.tolist() == [[prior.config.pad_token_id] * T] * 2
    embeds = prior.embed_text(null)
    assert embeds.shape == (2, 1 + T, 16)
    expected = prior.embeddings.text_pad.weight + prior.embeddings.text_position.weight
    assert torch.equal(embeds[0, 1:], expected)
    assert torch.equal(embeds[0, 0], prior.embeddings.bos)


@pytest.mark.parametrize("pattern", PATTERNS)
@torch.no_grad()
def test_save_and_load_keep_the_logits(pattern, tmp_path):
    prior = make_prior(pattern)
    prior.save_pretrained(tmp_path)
    loaded = PriorTransformer.from_pretrained(tmp_path)
    assert not loaded.training
    input_ids = make_batch(prior)
    assert torch.equal(loaded(input_ids).image_logits, prior(input_ids).image_logits)
    assert torch.equal(loaded(input_ids).text_logits, prior(input_ids).text_logits)
    half = PriorTransformer.from_pretrained(tmp_path, dtype=torch.bfloat16, attn_implementation="eager")
    assert half.dtype == torch.bfloat16 and half.config._attn_implementation == "eager"


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_bf16_autocast_is_close(pattern, attention):
    prior = make_prior(pattern, initializer_range=0.1, attn_implementation=attention).train()
    input_ids = make_batch(prior)
    exact = prior(input_ids, labels=input_ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close = prior(input_ids, labels=input_ids)
    assert close.loss.dtype == torch.float32
    assert abs(close.loss.item() - exact.loss.item()) < 0.02
    close.loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in prior.parameters())


def test_gradient_checkpointing_changes_nothing():
    prior = make_prior("dalle").train()
    input_ids = make_batch(prior)
    gradients = []
    for checkpoint in (False, True):
        if checkpoint:
            prior.gradient_checkpointing_enable()
        prior.zero_grad()
        prior(input_ids, labels=input_ids).loss.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in prior.parameters()]))
    assert torch.allclose(*gradients, rtol=0, atol=1e-6)


def test_dropout_acts_in_training_alone():
    prior = make_prior(dropout=0.5)
    input_ids = make_batch(prior)
    assert torch.equal(prior(input_ids).image_logits, prior(input_ids).image_logits)
    prior.train()
    assert not torch.equal(prior(input_ids).image_logits, prior(input_ids).image_logits)


@pytest.mark.seeds(1)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_two_examples_can_be_overfitted(pattern, seed, record_property):
    config = make_prior(pattern, initializer_range=0.02, hidden_size=32).config
    torch.manual_seed(seed)
    prior = PriorTransformer(config).train()
    input_ids = make_batch(prior, seed=seed)
    optimizer = torch.optim.AdamW(prior.parameters(), lr=1e-2)
    for _ in range(120):
        loss = prior(input_ids, labels=input_ids).image_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    record_property("loss", loss.item())
    assert loss.item() < 0.02
    prior.eval()
    text_ids, codes = prior.split(input_ids)
    drawn = codes[:, :0]
    for _ in range(N):
        best = prior(prior.join(text_ids, drawn)).image_logits[:, -1].argmax(dim=-1, keepdim=True)
        drawn = torch.cat([drawn, best], dim=1)
    assert torch.equal(drawn, codes)


@torch.no_grad()
def test_what_does_not_fit_is_refused():
    prior = make_prior()
    input_ids = make_batch(prior)
    text_ids, codes = prior.split(input_ids)
    with pytest.raises(ValueError, match=r"4 text ids .* text_length=5"):
        prior.embed_text(text_ids[:, :4])
    with pytest.raises(ValueError, match=r"9 codes from position 1 .*grid_size²=9"):
        prior.embed_codes(codes, start=1)
    with pytest.raises(ValueError, match=r"10 codes from position 0"):
        prior(torch.cat([input_ids, codes[:, :1]], dim=1))
    with pytest.raises(ValueError, match="codes from 0 to 11 are outside 0 to 10"):
        prior.embed_codes(torch.tensor([[0, K]]))
    with pytest.raises(ValueError, match=r"text ids .* prior.join"):
        prior(torch.cat([text_ids, codes], dim=1))
    with pytest.raises(ValueError, match=r"start=6 needs a cache"):
        prior.transform(prior.embed_codes(codes), start=6)
    with pytest.raises(ValueError, match=r"labels .2, 13. must have the shape of input_ids .2, 14."):
        prior(input_ids, labels=input_ids[:, 1:])
    cache = prior.make_cache(2)
    prior(input_ids, cache=cache)
    with pytest.raises(ValueError, match="1 codes from position 9"):
        prior(codes[:, :1], cache=cache)
