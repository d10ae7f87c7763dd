"""The model in the repository: used by default, small, and painting the same picture every time."""

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from pipelines import TextToImagePipeline, pipeline
from pipelines.folder.locate import EMBEDDED
from pipelines.folder.model_card import write_model_card

PROMPTS = ["avocado", "an armchair shaped like an avocado"]


@pytest.fixture(scope="module")
def embedded() -> TextToImagePipeline:
    return TextToImagePipeline.from_pretrained()


def test_it_is_small_and_safe():
    """At most 40 MB in all, weights in half precision, no file but JSON, safetensors, the card and its picture."""
    files = [path for path in EMBEDDED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md", ".png"}
    for part in ("dvae", "prior", "reranker"):
        weights = load_file(EMBEDDED / part / "model.safetensors")
        assert weights.pop("posterior.codebook.weight", torch.zeros(0)).dtype == torch.float32
        assert {tensor.dtype for tensor in weights.values()} <= {torch.float16, torch.bfloat16, torch.int64}
        assert all(tensor.isfinite().all() for tensor in weights.values())


def test_its_card_holds_its_numbers(embedded):
    card = ModelCard.load(EMBEDDED / "README.md")
    assert card.data.pipeline_tag == "text-to-image"
    assert embedded.metrics
    assert ModelCard(write_model_card(embedded)).data.language == "en"
    assert embedded.data
    assert all(source in card.content for source in embedded.data)


def test_it_paints_pictures_of_its_size(embedded):
    size = embedded.dvae.config.image_size
    output = embedded(PROMPTS, seed=0, progress_bar=False)
    assert [image.size for image in output.images] == [(size, size)] * 2
    assert all(np.asarray(image).std() > 8 for image in output.images)  # in levels of 0..255: no blank sheet
    assert not torch.equal(output.codes[0], output.codes[1])


def test_it_paints_the_same_picture_every_time(embedded):
    batch = embedded(PROMPTS, seed=0, num_images_per_prompt=2, progress_bar=False)
    again = embedded(PROMPTS[1], seed=1, progress_bar=False)
    assert torch.equal(again.codes[0], batch.codes[3])
    assert again.images[0].tobytes() == embedded(PROMPTS[1], seed=1, progress_bar=False).images[0].tobytes()


def test_the_function_uses_it(embedded):
    """`from pipelines import pipeline; pipeline("an armchair shaped like an avocado")`, with nothing before it."""
    expected = embedded("avocado", seed=3, progress_bar=False)
    for _ in range(2):  # the second call finds it loaded
        output = pipeline("avocado", seed=3, progress_bar=False)
        assert torch.equal(output.codes, expected.codes)
        assert output.images[0].tobytes() == expected.images[0].tobytes()


def test_its_reconstructions_are_its_own(embedded):
    """Its dVAE knows the pictures that it paints: encoded and decoded again, they stay close."""
    pixel_values = embedded("avocado", seed=0, output_type="pt", progress_bar=False).images
    error = (embedded.dvae.reconstruct(pixel_values) - pixel_values).square().mean()
    assert error < 0.02


def test_it_tells_its_pictures_apart(embedded):
    """Each picture has the most information on its own prompt of four, and each prompt ranks its own picture first."""
    prompts = ["avocado", "red apple", "sun", "armchair"]
    codes = embedded(prompts, seed=0, progress_bar=False).codes
    pmi = torch.stack([embedded.score(prompt, codes).pmi for prompt in prompts])  # (prompt, picture)
    assert pmi.argmax(dim=0).tolist() == [0, 1, 2, 3]
    for by in ("pmi", "reranker"):
        assert [embedded.rank(prompt, codes, by=by).order[0] for prompt in prompts] == [0, 1, 2, 3]


def test_it_goes_on_from_a_picture(embedded):
    """An avocado's upper half becomes one: what its name paints below is nearer to it than what another paints."""
    picture = embedded("avocado", seed=0, progress_bar=False).images[0]
    own, other = (
        embedded.complete(prompt, picture, rows=8, seed=0, output_type="pt", progress_bar=False).images
        for prompt in ("avocado", "sailboat")
    )
    target = embedded.reconstruct(picture, output_type="pt")
    assert (own - target).square().mean() < (other - target).square().mean() / 2
