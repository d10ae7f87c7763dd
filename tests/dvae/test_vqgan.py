"""What every first stage has, and the VQGAN's own: angles, sides, halvings, saving."""

import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from lattices import LATTICES
from messages import refused

from dvae import DVAE, FIRST_STAGES, POSTERIORS, VQGAN, DVAEConfig, VQGANConfig, load_first_stage
from dvae import load_first_stage_config as load_config

VQGAN_SIZES = {
    "image_size": 16,
    "channels": 8,
    "channel_multipliers": [1, 2, 2],
    "blocks_per_level": 1,
    "attention_levels": [1],
    "latent_channels": 10,
    "codebook_dim": 6,
    "codebook_size": 12,
    "norm_groups": 4,
}
DVAE_SIZES = {"image_size": 16, "downsample_factor": 4, "codebook_size": 12, "codebook_dim": 6, "widths": [8, 12, 16]}


def vqgan(**changes) -> VQGAN:
    torch.manual_seed(0)
    return VQGAN(VQGANConfig(**VQGAN_SIZES | changes)).eval()


def first_stage(kind: str, posterior: str) -> DVAE | VQGAN:
    torch.manual_seed(0)
    if kind == "vqgan":
        return vqgan(posterior=posterior)
    return DVAE(DVAEConfig(**DVAE_SIZES | LATTICES.get(posterior, {}), posterior=posterior)).eval()


def pixels(batch_size: int = 3, height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.rand(batch_size, 3, height, width, generator=torch.Generator().manual_seed(1))


ALL = [("dvae", name) for name in POSTERIORS] + [("vqgan", name) for name in ("vq", "normalised_vq", "gumbel")]


@pytest.mark.parametrize(("kind", "posterior"), ALL)
def test_a_first_stage_has_what_a_pipeline_asks_for(kind, posterior):
    model = first_stage(kind, posterior)
    codes = model.encode(pixels())
    assert codes.dtype == torch.int64 and codes.shape == (3, *model.config.grid) == (3, 4, 4)
    assert codes.min() >= 0 and codes.max() < model.config.codebook_size
    decoded = model.decode(codes)
    assert decoded.dtype == torch.float32 and decoded.shape == pixels().shape
    assert 0 <= decoded.min() < decoded.max() <= 1
    assert torch.equal(model.reconstruct(pixels()), decoded)
    said = model.log_posterior(pixels())
    assert said.shape == (3, model.config.codebook_size, 4, 4) and torch.equal(said.argmax(1), codes)
    torch.testing.assert_close(said.logsumexp(1), torch.zeros(3, 4, 4))
    assert model.config.style_size == 0 and posterior in model.config.summary


@pytest.mark.parametrize(("kind", "posterior"), [("dvae", "gumbel"), ("vqgan", "normalised_vq")])
def test_a_folder_says_which_first_stage_it_holds(tmp_path, kind, posterior):
    model = first_stage(kind, posterior)
    model.save_pretrained(tmp_path)
    again = load_first_stage(tmp_path)
    assert type(again) is type(model) is FIRST_STAGES[model.config.model_type]
    assert torch.equal(again.reconstruct(pixels()), model.reconstruct(pixels()))
    assert load_config(tmp_path).codebook_size == 12
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    with refused(ValueError, "gpt2", *FIRST_STAGES):
        load_first_stage(tmp_path)


def test_lengths_count_for_the_nearest_entry_and_not_for_the_nearest_angle():
    lengths = torch.linspace(0.1, 10, 12)[:, None]
    for posterior, alike in (("vq", False), ("normalised_vq", True)):
        model = vqgan(posterior=posterior)
        before = model.encode(pixels()), model.decode(model.encode(pixels()))
        with torch.no_grad():
            model.posterior.codebook.weight.mul_(lengths)
        assert torch.equal(model.encode(pixels()), before[0]) == alike
        assert torch.allclose(model.decode(before[0]), before[1], atol=1e-5) == alike


def test_it_takes_rectangles():
    model = vqgan()
    codes = model.encode(pixels(2, 8, 20))
    assert codes.shape == (2, 2, 5) and model.decode(codes).shape == (2, 3, 8, 20)
    with refused(ValueError, "(2, 3, 10, 16)", 4):
        model.encode(pixels(2, 10, 16))
    with refused(ValueError, "(3, 16)"):
        model.decode(torch.zeros(3, 16, dtype=torch.int64))


def test_a_picture_has_the_same_codes_whatever_its_neighbours():
    model = vqgan()
    assert torch.equal(model.encode(pixels())[:1], model.encode(pixels()[:1]))


def test_in_half_precision_its_codebook_stays_exact(tmp_path):
    model = vqgan()
    model.save_pretrained(tmp_path)
    for half in (load_first_stage(tmp_path, dtype=torch.bfloat16), vqgan().to(torch.bfloat16)):
        assert half.dtype == torch.bfloat16 and half.posterior.codebook.weight.dtype == torch.float32
        assert (half.encode(pixels()) == model.encode(pixels())).float().mean() > 0.8
        torch.testing.assert_close(
            half.decode(model.encode(pixels())), model.reconstruct(pixels()), atol=0.05, rtol=0.0
        )


@pytest.mark.parametrize(
    ("wrong", "numbers"),
    [
        ({"image_size": 18}, [18, 4]),
        ({"channels": 10}, [10, 4]),
        ({"attention_levels": [3]}, [3, 2]),
        ({"channel_multipliers": [], "attention_levels": []}, ["[]"]),
        ({"codebook_size": 1}, [1, 2]),
    ],
)
def test_sizes_that_do_not_fit_are_refused(wrong, numbers):
    with refused(StrictDataclassError, *numbers):
        VQGANConfig(**VQGAN_SIZES | wrong)


def test_the_published_sizes_have_the_published_numbers_of_parameters():
    """minDALL-E's first stage has 76.07 M parameters in 343 tensors; the one of LlamaGen and Janus is 71.9 M."""
    with torch.device("meta"):
        own, of_llamagen = VQGAN(VQGANConfig()), VQGAN(VQGANConfig(posterior="normalised_vq", codebook_dim=8))
    assert len(own.state_dict()) == 343 and round(own.num_parameters() / 1e4) == 7607
    assert 71.5e6 < of_llamagen.num_parameters() < 72.2e6
