"""Every prior is causal, and trained at every place that is sampled from. PriorTransformer's own are here too."""

import math

import pytest
import torch
import torch.nn.functional as F
from messages import refused
from small_priors import KINDS, WITH_TEXT, K, N, T, V, make_batch, make_prior, with_encoder

from prior_transformer import build_prior, load_prior


def logits_of(prior, input_ids: torch.Tensor) -> list[torch.Tensor]:
    """Of each token of one stream, the text's, then the codes'; zeros of a first one that nothing predicts."""
    output = prior(input_ids)
    first = torch.zeros(T - output.text_logits.shape[1], V)
    return [*first, *output.text_logits[0], *output.image_logits[0]]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", WITH_TEXT)
def test_a_later_token_changes_no_earlier_logit(kind, attention):
    prior = make_prior(kind, attn_implementation=attention)
    input_ids = make_batch(prior, batch_size=1)
    with torch.no_grad():
        before = logits_of(prior, input_ids)
        for place in range(T + N):
            changed = input_ids.clone()
            first, size = (K, V) if place < T else (0, K)
            changed[0, place] = first + (changed[0, place] - first + 1) % size
            after = logits_of(prior, changed)
            for i in range(place + 1):
                assert torch.equal(before[i], after[i])
            if place < T + N - 1:
                assert not torch.equal(before[place + 1], after[place + 1])


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_two_ways_to_attend_agree(kind):
    prior = make_prior(kind)
    input_ids = make_batch(prior)
    fused = prior(input_ids).image_logits
    prior.set_attn_implementation("eager")
    assert prior.config._attn_implementation == "eager"
    assert torch.allclose(prior(input_ids).image_logits, fused, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_reaches_every_parameter(kind):
    prior = make_prior(kind).train()
    text_ids, codes = prior.split(make_batch(prior))
    input_ids = prior.join(torch.cat([text_ids, prior.null(text_ids)]), codes.repeat(2, 1))
    prior(input_ids, labels=input_ids).loss.backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_a_gradient_reaches_the_pad_and_the_position_of_each_place():
    prior = make_prior().train()
    input_ids = make_batch(prior)
    prior(input_ids, labels=input_ids).loss.backward()
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


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_an_untrained_prior_is_nearly_uniform(kind):
    prior = make_prior(kind, initializer_range=0.02)
    input_ids = make_batch(prior, batch_size=64)
    output = prior(input_ids, labels=input_ids)
    assert kind not in WITH_TEXT or abs(output.text_loss.item() - math.log(V)) < 0.05
    assert abs(output.image_loss.item() - math.log(K)) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_the_scale_of_the_first_weights(kind):
    prior = make_prior(kind, initializer_range=0.02, hidden_size=64, num_hidden_layers=8)
    weights = dict(prior.named_parameters())
    for name, weight in weights.items():
        if "norm" in name or name.endswith("bias"):
            assert torch.equal(weight, torch.full_like(weight, float(not name.endswith("bias")))), name
        else:
            std = 0.02 / 4 if name.startswith("layers") and "output" in name else 0.02
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


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_save_and_load_keep_the_logits(kind, tmp_path):
    prior = make_prior(kind)
    prior.save_pretrained(tmp_path)
    loaded = load_prior(tmp_path)
    assert type(loaded) is type(prior) and not loaded.training
    if kind == "features":
        loaded.read_through(prior.embeddings.encoder)
    input_ids = make_batch(prior)
    assert torch.equal(loaded(input_ids).image_logits, prior(input_ids).image_logits)
    if kind in WITH_TEXT:
        assert torch.equal(loaded(input_ids).text_logits, prior(input_ids).text_logits)
    half = load_prior(tmp_path, dtype=torch.bfloat16, attn_implementation="eager")
    assert half.dtype == torch.bfloat16 and half.config._attn_implementation == "eager"


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_bf16_autocast_is_close(kind, attention):
    prior = make_prior(kind, initializer_range=0.1, attn_implementation=attention).train()
    input_ids = make_batch(prior)
    exact = prior(input_ids, labels=input_ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close = prior(input_ids, labels=input_ids)
    assert close.loss.dtype == torch.float32
    assert abs(close.loss.item() - exact.loss.item()) < 0.02
    close.loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in prior.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_changes_nothing(kind):
    prior = make_prior(kind).train()
    input_ids = make_batch(prior)
    gradients = []
    for checkpoint in (False, True):
        if checkpoint:
            prior.gradient_checkpointing_enable()
        prior.zero_grad()
        prior(input_ids, labels=input_ids).loss.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in prior.parameters()]))
    assert torch.allclose(*gradients, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_acts_in_training_alone(kind):
    prior = make_prior(kind, dropout=0.5)
    input_ids = make_batch(prior)
    assert torch.equal(prior(input_ids).image_logits, prior(input_ids).image_logits)
    prior.train()
    assert not torch.equal(prior(input_ids).image_logits, prior(input_ids).image_logits)


@pytest.mark.seeds(1)
@pytest.mark.parametrize("kind", KINDS)
def test_two_examples_can_be_overfitted(kind, seed, record_property):
    std, lr = (0.02, 1e-2) if kind in WITH_TEXT else (0.1, 5e-3)  # through two MLPs more
    config = make_prior(kind, initializer_range=std, hidden_size=32).config
    torch.manual_seed(seed)
    prior = with_encoder(build_prior(config)).train()
    input_ids = make_batch(prior, seed=seed)
    optimizer = torch.optim.AdamW(prior.parameters(), lr=lr)
    for _ in range(120):
        loss = prior(input_ids, labels=input_ids).image_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    record_property("loss", loss.item())
    assert loss.item() < 0.05  # some end at 0.03, by how a processor rounds
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
    with refused(ValueError, 4, "text_length=5"):
        prior.embed_text(text_ids[:, :4])
    with refused(ValueError, 10, 9):
        prior(torch.cat([input_ids, codes[:, :1]], dim=1))
    with refused(ValueError, 0, 11, 10):
        prior.embed_codes(torch.tensor([[0, K]]))
    with refused(ValueError, int(text_ids.min()) - K, V - 1, "prior.join"):
        prior(torch.cat([text_ids, codes], dim=1))
    with refused(ValueError, "(2, 13)", "(2, 14)"):
        prior(input_ids, labels=input_ids[:, 1:])
