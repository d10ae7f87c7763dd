"""The patch discriminator and the generator: shapes, receptive field, independence in the batch, saving, errors."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from messages import refused

from dvae import GANGenerator, GANGeneratorConfig, PatchDiscriminator, PatchDiscriminatorConfig


def discriminator(num_layers: int = 2, width: int = 4) -> PatchDiscriminator:
    torch.manual_seed(0)
    return PatchDiscriminator(PatchDiscriminatorConfig(num_layers=num_layers, width=width))


def generator() -> GANGenerator:
    torch.manual_seed(0)
    sizes = {"image_size": 16, "downsample_factor": 4, "codebook_dim": 8, "widths": [8, 8, 8], "blocks_per_group": 1}
    return GANGenerator(GANGeneratorConfig(latent_size=5, **sizes))


@pytest.mark.parametrize(("num_layers", "side"), [(1, 16), (2, 34), (3, 70)])
def test_the_receptive_field_is_the_gradients_support(num_layers, side):
    """A logit of the middle depends on a square of pix2pix's size and on nothing outside: norms do not widen it."""
    model = discriminator(num_layers).double()
    images = torch.rand(1, 3, 160, 160, dtype=torch.float64, requires_grad=True)
    logits = model(images)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    touched = images.grad[0].abs().sum(0) > 0
    for along in (touched.any(0), touched.any(1)):
        places = along.nonzero().flatten()
        assert len(places) == side == places[-1] - places[0] + 1
    assert model.config.receptive_field == side


@pytest.mark.parametrize(("num_layers", "height", "width"), [(1, 16, 24), (2, 32, 12), (3, 24, 64), (3, 37, 50)])
def test_a_map_of_logits(num_layers, height, width):
    logits = discriminator(num_layers)(torch.rand(2, 3, height, width))
    assert logits.shape == (2, 1, height // 2**num_layers - 2, width // 2**num_layers - 2)


def test_a_picture_is_judged_alike_whatever_stands_beside_it():
    model, images = discriminator(), torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(model.train()(images)[1:2], model.eval()(images[1:2]), atol=1e-6, rtol=1e-5)


def test_a_gradient_reaches_every_parameter():
    for model, inputs in ((discriminator(), torch.rand(2, 3, 32, 32)), (generator(), torch.randn(3, 5))):
        model(inputs).square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad.abs().sum() > 0, name


def test_a_generator_makes_pixels_that_follow_the_noise():
    images = generator()(torch.randn(6, 5, generator=torch.Generator().manual_seed(0)))
    assert images.shape == (6, 3, 16, 16)
    assert images.min() >= 0 and images.max() <= 1 and images.std(0).mean() > 0.01


@pytest.mark.parametrize("make", [discriminator, generator])
def test_saved_alone_and_loaded_gives_the_same(make, tmp_path):
    model = make()
    inputs = torch.rand(2, 3, 32, 32) if isinstance(model, PatchDiscriminator) else torch.randn(2, 5)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert torch.equal(loaded(inputs), model(inputs))
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


@pytest.mark.parametrize(
    ("config", "fields", "error", "parts"),
    [
        (PatchDiscriminatorConfig, {"num_layer": 2}, TypeError, ["num_layer", "num_layers"]),
        (PatchDiscriminatorConfig, {"num_layers": 0}, StrictDataclassError, ["num_layers=0", 1]),
        (PatchDiscriminatorConfig, {"width": "wide"}, StrictDataclassError, ["width", "wide"]),
        (GANGeneratorConfig, {"latent_size": 0}, StrictDataclassError, ["latent_size=0", 1]),
        (GANGeneratorConfig, {"image_size": 30}, StrictDataclassError, ["image_size=30", "downsample_factor=8"]),
        (GANGeneratorConfig, {"latent": 3}, TypeError, ["latent"]),
    ],
)
def test_a_wrong_config_is_refused(config, fields, error, parts):
    with refused(error, *parts):
        config(**fields)


def test_wrong_inputs_are_refused_with_both_numbers():
    with refused(ValueError, "8×40", "num_layers=2", 12):
        discriminator()(torch.rand(1, 3, 8, 40))
    with refused(ValueError, "(1, 4, 32, 32)", "(B, 3, H, W)"):
        discriminator()(torch.rand(1, 4, 32, 32))
    with refused(ValueError, "(2, 6)", "(B, 5)"):
        generator()(torch.randn(2, 6))
