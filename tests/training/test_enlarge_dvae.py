"""A dVAE of pictures twice as large, whose codes are those of the one that it was made of."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch.nn import functional as F

from dvae import DVAE, DVAEConfig, DVAEImageProcessor
from training import enlarge_dvae
from training.enlarge_dvae import enlarge
from training.loop.fingerprints import codes_digests

SIZES = {"image_size": 16, "downsample_factor": 4, "codebook_size": 12, "codebook_dim": 6, "widths": [8, 12, 16]}


@pytest.fixture(params=["pool", "shuffle"])
def small(request):
    torch.manual_seed(0)
    return DVAE(DVAEConfig(**SIZES, blocks_per_group=[1, 2, 1], resampling=request.param, posterior="vq")).eval()


def test_a_picture_has_the_codes_of_its_half(small):
    """To the code, by whatever padding both have; twice enlarged those of its quarter."""
    pictures = F.interpolate(torch.rand(5, 3, 16, 16), scale_factor=4) + torch.rand(5, 3, 64, 64) / 8
    large, largest = enlarge(small, width=8, blocks=2), enlarge(enlarge(small, width=8, blocks=2), width=4, blocks=1)
    codes = small.encode(F.avg_pool2d(pictures, 4))
    assert len(codes.unique()) > 1, "of pictures that differ"
    assert torch.equal(large.encode(F.avg_pool2d(pictures, 2)), codes) and torch.equal(largest.encode(pictures), codes)
    assert large.decode(codes).shape == (5, 3, 32, 32) and largest.decode(codes).shape == (5, 3, 64, 64)


def test_the_decoder_goes_on_from_what_was_learned(small):
    """All of it but its last layer: what reaches the new group is what reached the last layer."""
    large = enlarge(small, width=8, blocks=1)
    latents = torch.randn(2, 6, 4, 4)
    learned = len(small.decoder.blocks) - 2  # before a ReLU and the last layer
    before = small.decoder.blocks[:learned](latents)
    assert torch.equal(large.decoder.blocks[:learned](latents), before) and before.std() > 0
    assert large.config.gain == small.config.gain, "which the paper's rule would make smaller by one group more"


def test_one_code_for_a_flat_ground_where_that_is_asked_for(small):
    flat = torch.rand(4, 3, 1, 1).expand(-1, -1, 32, 32)
    large = enlarge(small, width=8, blocks=1, encoder_padding="replicate")
    assert [len(codes.unique()) for codes in large.encode(flat)] == [1] * 4
    assert any(len(codes.unique()) > 1 for codes in enlarge(small, width=8, blocks=1).encode(flat))


def test_by_command(small, tmp_path, capsys):
    small.save_pretrained(tmp_path / "small")
    enlarge_dvae.main([str(tmp_path / "small"), "--output_dir", str(tmp_path / "large"), "--width", "8"])
    assert "pictures of 32 px in 4² codes" in capsys.readouterr().out
    large, pictures = DVAE.from_pretrained(tmp_path / "large"), torch.rand(3, 3, 32, 32)
    assert torch.equal(large.encode(pictures), small.encode(F.avg_pool2d(pictures, 2)))
    assert DVAEImageProcessor.from_pretrained(tmp_path / "large").size == 32
    assert codes_digests(large) != codes_digests(small), "a cache of the one is none of the other"


def test_more_halvings_than_there_are_cannot_be_pooled():
    with pytest.raises(StrictDataclassError, match=r"pooled_halvings=3 must be 0 to 2.*downsample_factor=4"):
        DVAEConfig(**SIZES, pooled_halvings=3)
    everything = DVAE(DVAEConfig(**SIZES, pooled_halvings=2))
    assert everything.encode(torch.rand(2, 3, 16, 16)).shape == (2, 4, 4)
