"""The mean of two priors' weights, as a model and by command."""

import pytest
import torch
from messages import refused
from small_priors import KINDS, make_batch, make_prior

from prior_transformer import StreamPrior, load_prior
from training.average_priors import average, main
from training.loop.provenance import read_provenance, save_provenance


def make_pair(kind: str = "full") -> list[StreamPrior]:
    """Two of a kind, whose weights have nothing in common."""
    priors = [make_prior(kind), make_prior(kind)]
    with torch.no_grad():
        for parameter in priors[1].parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    return priors


@pytest.mark.parametrize("kind", KINDS)
def test_each_weight_lies_between_the_two(kind):
    priors = make_pair(kind)
    own, other = ({name: t.clone() for name, t in prior.state_dict().items()} for prior in priors)
    mean = average(*priors, weight=0.25).state_dict()
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, 0.75 * own[name] + 0.25 * other[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_of_all_of_one_nothing_is_the_others(weight):
    first, second = make_pair()
    input_ids = make_batch(first)
    alone = (second if weight else first)(input_ids).image_logits
    torch.testing.assert_close(average(first, second, weight)(input_ids).image_logits, alone, rtol=1e-5, atol=1e-6)


def test_by_command(tmp_path, capsys):
    for prior, dvae in zip(make_pair(), ("a", "b"), strict=True):
        prior.save_pretrained(tmp_path / dvae)
        save_provenance(
            tmp_path / dvae, {"tokenizer": "t", "dvae": [dvae], "text_encoder" if dvae == "b" else "data": "d"}
        )
    flags = [str(tmp_path / "a"), str(tmp_path / "b"), "--output_dir", str(tmp_path / "mean")]
    mean = main([*flags, "--weight", "0.25"])
    assert "0.75 of" in capsys.readouterr().out
    loaded = load_prior(tmp_path / "mean")
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in mean.state_dict().items())
    assert read_provenance(tmp_path / "mean") == {"tokenizer": "t", "data": "d", "text_encoder": "d"}, "no dvae"
    save_provenance(tmp_path / "b", {"tokenizer": "u"})
    with refused(ValueError, tmp_path / "a", tmp_path / "b", "two tokenizers"):
        main(flags)


def test_what_has_no_mean_is_refused():
    first = make_prior()
    for weight in (-0.1, 1.5, float("nan")):
        with refused(ValueError, weight):
            average(first, make_prior(), weight)
    with refused(ValueError, "one size"):
        average(first, make_prior("full", hidden_size=64))
    with refused(ValueError, "one size"):
        average(first, make_prior("sequence"))
    with refused(ValueError, "attention_pattern is full and dalle", "one architecture"):
        average(first, make_prior("full", attention_pattern="dalle"))
