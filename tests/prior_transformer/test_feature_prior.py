"""Text as features of an encoder: padded on the left, read by the prior through an MLP, no part of its weights."""

import copy

import torch
from huggingface_hub.errors import StrictDataclassError
from messages import refused
from small_priors import GRID, K, N, T, V, make_prior

from prior_transformer import LlamaPriorConfig, TextEncoder

PAD, NULL = 0, V - 1


def rows(*prompts: list[int], length: int = T) -> torch.Tensor:
    return torch.tensor([[PAD] * (length - len(prompt)) + prompt for prompt in prompts])


def random_codes(count: int) -> torch.Tensor:
    return torch.randint(0, K, (count, N), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_features_are_those_of_each_prompt_alone():
    """transformers' own of what is not padded, whatever the others' lengths are; zeros before."""
    prior, prompts = make_prior("features"), ([3, 1], [2, 4, 3, 1], [5, 2, 4, 3, 1])
    features = prior.embeddings.features(rows(*prompts))
    for found, prompt in zip(features, prompts, strict=True):
        output = prior.embeddings.encoder.model(input_ids=torch.tensor([prompt])).last_hidden_state[0]
        torch.testing.assert_close(found[-len(prompt) :], output, atol=1e-5, rtol=0)
        assert (found[: -len(prompt)] == 0).all()


@torch.no_grad()
def test_no_text_has_features_of_its_own_at_as_many_positions():
    prior, codes, batch = make_prior("features"), random_codes(3), rows([3, 1], [2, 4, 3, 1], [5, 2, 4, 3, 1])
    null = prior.null(batch)
    assert torch.equal(null, rows([NULL] * 2, [NULL] * 4, [NULL] * 5)) and torch.equal(prior.null(null), null)
    features = prior.embeddings.features(torch.cat([batch, null]))[3:]
    own = prior.embeddings.null_features
    assert torch.equal(features, torch.stack([torch.cat([0 * own[:-n], own[-n:]]) for n in (2, 4, 5)]))
    prefixes = prior.embed_text(batch)
    torch.testing.assert_close(prior.null(prefixes), prior.embed_text(null), atol=1e-6, rtol=0)
    logits = [prior(prior.join(text, codes)).image_logits for text in (batch, null)]
    assert (logits[0] - logits[1]).abs().amax(dim=(1, 2)).min() > 1e-2
    by_ids, by_prefixes = (prior.read(captions)[0] for captions in (batch, prefixes))
    torch.testing.assert_close(by_ids, by_prefixes)


@torch.no_grad()
def test_codes_give_every_text_the_same_weight_and_each_other_one_by_distance():
    """With queries and keys of the text 0, a score of code and text is 0; two codes' knows their distance alone."""
    prior = make_prior("features")
    cos, sin = prior._turns(0, T + N, torch.device("cpu"))
    assert not cos[:T].any() and not sin[:T].any()
    turns = torch.complex(cos, sin)[T:].view(GRID, GRID, -1)
    for step in ((0, 1), (1, 0)):
        a, b = turns[: GRID - step[0], : GRID - step[1]], turns[step[0] :, step[1] :]
        torch.testing.assert_close(b * a.conj(), (b[0, 0] * a[0, 0].conj()).expand_as(a), atol=1e-6, rtol=0)
    torch.testing.assert_close(turns.abs(), torch.ones(GRID, GRID, turns.shape[2]), atol=1e-6, rtol=0)


def test_the_encoder_learns_nothing_and_is_no_part_of_the_prior():
    prior, codes = make_prior("features").train(), random_codes(1)
    encoder = prior.embeddings.encoder.model
    assert type(encoder)(encoder.config).training, "as a model is made"
    input_ids = prior.join(rows([2, 4, 3, 1]), codes)
    prior(input_ids, labels=input_ids).loss.backward()
    assert not any(weight.requires_grad for weight in encoder.parameters()) and not encoder.training
    owned = {id(weight) for weight in prior.parameters()}
    assert not any(id(weight) in owned for weight in encoder.parameters())
    assert not any("encoder" in name for name in prior.state_dict())
    twin = copy.deepcopy(prior).eval()
    assert torch.equal(twin(input_ids).image_logits, prior.eval()(input_ids).image_logits)
    prior.embeddings.encoder = None
    with refused(ValueError, "read_through"):
        prior(input_ids)
    for kind in ("chat", "full"):
        with refused(ValueError, "text encoder"):
            make_prior(kind).read_through(TextEncoder(encoder, PAD))


def test_what_does_not_fit_is_refused():
    with refused(StrictDataclassError, "text_feature_size=None", "'features'"):
        LlamaPriorConfig(text="features", text_loss_weight=0)
    with refused(StrictDataclassError, "text_feature_size=8", "'chat'"):
        LlamaPriorConfig(text="chat", text_loss_weight=0, text_feature_size=8)
    with refused(StrictDataclassError, "text_feature_size=0", 1):
        LlamaPriorConfig(text="features", text_loss_weight=0, text_feature_size=0)
    with refused(StrictDataclassError, "hidden_size=6", "'cells'", 4):
        LlamaPriorConfig(
            text="features",
            text_loss_weight=0,
            text_feature_size=8,
            rope="cells",
            hidden_size=6,
            num_attention_heads=1,
        )
    with refused(StrictDataclassError, "'cells'", "'caption'"):
        LlamaPriorConfig(rope="cells")
    config = LlamaPriorConfig(text="features", text_loss_weight=0, text_feature_size=8, text_length=5, grid_size=3)
    assert config.stream_length == 5 + 9 and config.feature_size == 8
