"""A pipeline over a VQGAN: whatever it does over a dVAE."""

import numpy as np
import pytest
import torch
from PIL import Image

from dvae import VQGAN, VQGANConfig
from pipelines import TextToImagePipeline

QUIET = {"progress_bar": False, "output_type": "pt"}


@pytest.fixture(scope="module", params=["normalised_vq", "gumbel"])
def pipeline(request, tiny_pipeline) -> TextToImagePipeline:
    torch.manual_seed(0)
    sizes = {"channels": 8, "channel_multipliers": [1, 1, 2], "attention_levels": [2], "norm_groups": 4}
    widths = {"latent_channels": 8, "codebook_dim": 8, "codebook_size": 32, "blocks_per_level": 1}
    vqgan = VQGAN(VQGANConfig(image_size=16, **sizes, **widths, posterior=request.param)).eval()
    return TextToImagePipeline(**tiny_pipeline.components | {"dvae": vqgan})


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))


def test_it_is_saved_and_loaded_with_its_pipeline(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    again = TextToImagePipeline.from_pretrained(tmp_path)
    assert isinstance(again.dvae, VQGAN)
    one, other = (each("an armchair", seed=0, **QUIET) for each in (pipeline, again))
    assert torch.equal(one.images, other.images)
    assert pipeline.dvae.config.summary in (tmp_path / "README.md").read_text()


def test_it_starts_from_pictures(pipeline, picture):
    codes = pipeline.encode_images(picture)
    completed = pipeline.complete("an armchair", picture, rows=2, seed=0, **QUIET).codes
    assert torch.equal(completed[:, :2], codes[:, :2])
    mask = np.zeros((16, 16), bool)
    mask[8:, 8:] = True
    painted = pipeline.inpaint("an armchair", picture, mask, seed=0, **QUIET).codes
    assert torch.equal(painted[:, :2], codes[:, :2]) and torch.equal(painted[:, :, :2], codes[:, :, :2])
    kept = pipeline.vary(picture, strength=0, temperature=0, seed=0, **QUIET)
    torch.testing.assert_close(kept.images, pipeline.reconstruct(picture, output_type="pt"))
    *_, last = pipeline.stream("an armchair", image=picture, rows=2, seed=0, **QUIET)
    assert torch.equal(last.codes, completed)
