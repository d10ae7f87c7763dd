"""The dVAE: shapes, gradients, bounds, saving."""

import math

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from lattices import LATTICES
from messages import refused
from PIL import ExifTags, Image

from dvae import DVAE, POSTERIORS, DVAEConfig, DVAEImageProcessor, LatentPosterior, codebook_usage, count_codes
from dvae.modeling_dvae import ResidualBlock
from training.codes.kmeans import kmeans
from training.loop.losses import dvae_losses

SIZES = {"image_size": 16, "downsample_factor": 4, "codebook_size": 12, "codebook_dim": 6, "widths": [8, 12, 16]}


def tiny(**changes) -> DVAE:
    torch.manual_seed(0)
    return DVAE(DVAEConfig(**{**SIZES, **LATTICES.get(changes.get("posterior"), {}), **changes})).eval()


def pixels(batch_size: int = 3) -> torch.Tensor:
    return torch.rand(batch_size, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_codes_and_pixels_have_their_shapes_and_ranges(posterior):
    dvae = tiny(posterior=posterior)
    codes = dvae.encode(pixels())
    assert codes.shape == (3, 4, 4) and codes.dtype == torch.int64
    assert codes.min() >= 0 and codes.max() < dvae.config.codebook_size
    decoded = dvae.decode(codes)
    assert decoded.shape == (3, 3, 16, 16) and decoded.min() >= 0 and decoded.max() <= 1
    torch.testing.assert_close(dvae.reconstruct(pixels()), decoded)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_two_encodes_of_one_picture_agree_whatever_its_neighbours(posterior):
    dvae = tiny(posterior=posterior)
    assert torch.equal(dvae.encode(pixels())[:1], dvae.encode(pixels()[:1]))


def test_shuffling_tells_the_pixels_under_one_code_apart():
    """Nearest-neighbour upsampling cannot, inside a constant grid of codes: there every pixel sees the same."""
    torch.manual_seed(0)
    shuffle, pool = (tiny(resampling=kind, posterior="vq") for kind in ("shuffle", "pool"))
    same = torch.zeros(1, 4, 4, dtype=torch.int64)
    inside = (slice(None), slice(None), slice(6, 10), slice(6, 10))  # far from the border of a 16×16 picture
    with torch.no_grad():
        assert shuffle.decoder(shuffle.posterior.embed(same))[inside].flatten(2).std(-1).min() > 0.01
        assert pool.decoder(pool.posterior.embed(same))[inside].flatten(2).std(-1).max() < 0.01
    assert shuffle.encode(pixels()).shape == (3, 4, 4)
    with refused(StrictDataclassError, "[8, 14, 16]", 4, "shuffle"):
        DVAEConfig(**{**SIZES, "widths": [8, 14, 16], "resampling": "shuffle"})


def test_a_flat_ground_is_one_code_at_the_border_as_inside_where_the_encoder_repeats_it():
    flat = torch.tensor([0.2, 0.7, 0.4])[None, :, None, None].expand(1, 3, 16, 16)
    zeros, repeated = (tiny(encoder_padding=padding, posterior="vq") for padding in ("zeros", "replicate"))
    inside, border = zeros.encoder(flat)[0, :, 1, 1], zeros.encoder(flat)[0, :, 0, 0]
    assert (inside - border).abs().max() > 1e-3
    hidden = repeated.encoder(flat)
    torch.testing.assert_close(hidden, hidden[:, :, :1, :1].expand_as(hidden), atol=1e-5, rtol=1e-4)
    assert len(repeated.encode(flat).unique()) == 1
    assert DVAEConfig(**SIZES).encoder_padding == "zeros", "as dVAEs of before were trained"
    assert zeros.state_dict().keys() == repeated.state_dict().keys()


@pytest.mark.parametrize("way", ["autoencode", "decode_argmax", "forward"])
def test_a_grid_put_together_of_cells_is_decoded_as_if_it_were_a_pictures_own(way):
    dvae = tiny(posterior="gumbel_codebook")
    cells = torch.arange(3 * 16).view(3, 4, 4)[[2, 0]]
    torch.manual_seed(5)
    whole = getattr(dvae, way)(pixels())
    torch.manual_seed(5)
    chosen = getattr(dvae, way)(pixels(), cells=cells)
    torch.testing.assert_close(chosen.maps, whole.maps[[2, 0]])
    torch.testing.assert_close(chosen.kl, whole.kl)
    mixed = torch.where(torch.arange(4) < 2, cells[0], cells[1])[None]
    torch.manual_seed(5)
    latents = getattr(dvae, way)(pixels(), cells=mixed).latents
    torch.testing.assert_close(latents[0, :, :, :2], whole.latents[2, :, :, :2])
    torch.testing.assert_close(latents[0, :, :, 2:], whole.latents[0, :, :, 2:])
    with refused(ValueError, "style_size=2"):
        tiny(style_size=2)(pixels(), cells=cells)


def test_an_implicit_posterior_draws_noise_and_encodes_without():
    dvae = tiny(posterior="implicit")
    torch.nn.init.normal_(dvae.posterior.noise_out.weight)
    with torch.no_grad():
        hidden_states = dvae.encoder(pixels())
        drawn = [dvae.posterior.draw_logits(hidden_states, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
        assert torch.equal(drawn[0], drawn[1]) and not torch.allclose(drawn[0], drawn[2])
        marginals = dvae.posterior.marginal_log_probs(hidden_states, draws=5)
        torch.testing.assert_close(marginals.exp().sum(1), torch.ones(3, 4, 4))
        assert torch.equal(marginals, dvae.posterior.marginal_log_probs(hidden_states, draws=5))  # a function of x
        torch.testing.assert_close(dvae.posterior.marginal_log_probs(hidden_states[:1], draws=5), marginals[:1])
        assert torch.equal(dvae.posterior.encode(hidden_states), dvae.posterior.logits(hidden_states).argmax(1))


@pytest.mark.parametrize("likelihood", ["logit_laplace", "laplace", "gaussian"])
@pytest.mark.parametrize("posterior", POSTERIORS)
def test_a_gradient_reaches_every_parameter(posterior, likelihood):
    dvae = tiny(posterior=posterior, likelihood=likelihood).train()
    output = dvae(pixels(), temperature=0.9)
    dvae_losses(pixels(), output, dvae.likelihood, kl_weight=1.0)["loss"].backward()
    without = [name for name, p in dvae.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_a_uniform_posterior_has_kl_zero_and_a_sure_one_log_k_for_each_position():
    dvae = tiny()
    torch.nn.init.zeros_(dvae.posterior.head.weight)
    assert dvae(pixels()).kl.abs().max() < 1e-5
    torch.nn.init.zeros_(dvae.posterior.head.bias)
    with torch.no_grad():
        dvae.posterior.head.bias[3] = 1000.0
    torch.testing.assert_close(dvae(pixels()).kl, torch.full((3,), 16 * math.log(12)))


def test_the_kl_of_a_picture_does_not_depend_on_the_batch():
    dvae = tiny()
    torch.testing.assert_close(dvae(pixels(1)).kl, dvae(pixels(1).repeat(16, 1, 1, 1)).kl[:1])
    one = dvae_losses(pixels(1), dvae(pixels(1)), dvae.likelihood, 1.0)["kl"]
    many = dvae_losses(pixels(1).repeat(16, 1, 1, 1), dvae(pixels(1).repeat(16, 1, 1, 1)), dvae.likelihood, 1.0)["kl"]
    torch.testing.assert_close(one, many)


def test_the_loss_at_kl_weight_one_is_the_elbo_over_the_pixel_channels():
    dvae = tiny()
    output = dvae(pixels())
    losses = dvae_losses(pixels(), output, dvae.likelihood, kl_weight=1.0)
    log_likelihood = dvae.likelihood.log_prob(pixels(), output.maps).sum(dim=(1, 2, 3))
    torch.testing.assert_close(losses["loss"], -(log_likelihood - output.kl).mean() / (3 * 16 * 16))


def test_the_elbo_is_its_parts_and_bits_count_256_levels():
    bound = tiny().elbo(pixels(), torch.Generator().manual_seed(0))
    torch.testing.assert_close(bound.elbo, bound.log_likelihood - bound.kl)
    torch.testing.assert_close(bound.bits_per_dim, 8 - bound.elbo / (768 * math.log(2)))


def test_a_temperature_near_zero_decodes_a_code_itself():
    dvae = tiny(posterior="gumbel_codebook").train()
    output = dvae(pixels(), temperature=1e-4)
    distances = torch.cdist(output.latents.movedim(1, -1).flatten(0, 2), dvae.posterior.codebook.weight)
    assert distances.min(dim=1).values.max() < 1e-3


def test_the_vector_quantizer_copies_the_gradient_straight_through():
    dvae = tiny(posterior="vq").train()
    hidden_states = torch.randn(2, 16, 4, 4, requires_grad=True)
    q = dvae.posterior(hidden_states, temperature=1.0)
    weights = torch.randn_like(q.latents)
    (through,) = torch.autograd.grad((q.latents * weights).sum(), hidden_states, retain_graph=True)
    (direct,) = torch.autograd.grad((dvae.posterior.project(hidden_states) * weights).sum(), hidden_states)
    torch.testing.assert_close(through, direct)
    codebook = dvae.posterior.codebook.weight
    assert torch.autograd.grad((q.latents * weights).sum(), codebook, allow_unused=True, retain_graph=True) == (None,)
    (moved,) = torch.autograd.grad(q.auxiliary_loss, codebook)
    assert moved.abs().sum() > 0


def test_the_warm_up_needs_a_latent():
    assert tiny(posterior="vq").train().autoencode(pixels()).maps.shape == (3, 6, 16, 16)
    with refused(ValueError, "gumbel", "gumbel_codebook", "vq"):
        tiny(posterior="gumbel").train().autoencode(pixels())


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_on_argmax_codes_the_decoder_alone_learns(posterior):
    dvae = tiny(posterior=posterior).train()
    output = dvae.decode_argmax(pixels())
    assert torch.equal(output.codes, dvae.encode(pixels()))
    torch.testing.assert_close(dvae.likelihood.unmap(output.maps), dvae.reconstruct(pixels()))
    dvae_losses(pixels(), output, dvae.likelihood, kl_weight=1.0)["loss"].backward()
    learning = {name.split(".")[0] for name, p in dvae.named_parameters() if p.grad is not None}
    assert learning == {"decoder"}


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_in_half_precision_all_of_it_computes(posterior):
    """The posterior in float32 between an encoder and a decoder that are not."""
    dvae = tiny(posterior=posterior, style_size=3).to(torch.bfloat16)
    warms_up = isinstance(dvae.posterior, LatentPosterior)
    for phase in ["forward", "elbo", "reconstruct", *(["autoencode"] if warms_up else [])]:
        getattr(dvae, phase)(pixels().bfloat16())
    output = dvae.decode_argmax(pixels())
    assert torch.equal(dvae.likelihood.unmap(output.maps), dvae.decode(output.codes, output.style))
    dvae(pixels().bfloat16()).maps.float().square().mean().backward()
    assert 0 < dvae.encoder.blocks[0].weight.grad.norm() < torch.inf


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_what_a_picture_says_of_its_codes_sums_to_one(posterior):
    dvae = tiny(posterior=posterior)
    log_posterior = dvae.posterior.log_posterior(dvae.encoder(pixels()))
    torch.testing.assert_close(log_posterior.exp().sum(1), torch.ones(3, 4, 4))
    assert torch.equal(log_posterior.argmax(1), dvae.encode(pixels()))


def test_a_gain_of_nothing_is_refused_and_none_is_the_papers():
    assert tiny().config.gain == 1 / 36 and tiny(post_gain=0.5).config.gain == 0.5
    with refused(StrictDataclassError, "post_gain=0", 36):
        tiny(post_gain=0)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_saved_and_loaded_gives_the_same_pixels(posterior, tmp_path):
    dvae = tiny(posterior=posterior)
    dvae.save_pretrained(tmp_path)
    files = sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".py")  # its code lies beside it
    assert files == ["config.json", "model.safetensors"]
    loaded = DVAE.from_pretrained(tmp_path)
    assert not loaded.training
    assert torch.equal(loaded.reconstruct(pixels()), dvae.reconstruct(pixels()))


def test_each_width_may_have_blocks_of_its_own():
    def groups(half):  # channels of each block's output
        return [block.res_path[-1].out_channels for block in half.blocks if isinstance(block, ResidualBlock)]

    dvae = tiny(blocks_per_group=[1, 2, 3])
    assert groups(dvae.encoder) == [8, 12, 12, 16, 16, 16]
    assert groups(dvae.decoder) == [16, 16, 16, 12, 12, 8]
    assert dvae.encoder.blocks[1].post_gain == 1 / 6**2
    same, each = tiny(blocks_per_group=2), tiny(blocks_per_group=[2, 2, 2])
    torch.testing.assert_close(same.reconstruct(pixels()), each.reconstruct(pixels()), rtol=0, atol=0)


@pytest.mark.seeds(1)
def test_two_pictures_can_be_overfitted(seed, record_property):
    """An autoencoder first, whose latents' k-means is the codebook; the mean of the two would leave a third."""
    config = tiny(posterior="gumbel_codebook", widths=[32] * 3, blocks_per_group=1).config
    torch.manual_seed(seed)
    dvae = DVAE(config).train()
    optimizer = torch.optim.AdamW(dvae.parameters(), lr=3e-3)
    target = torch.zeros(2, 3, 16, 16)
    target[0, 0, :8], target[1, 1, :, 4:12] = 1, 1  # a red upper half, a green pillar
    first = (dvae.reconstruct(target) - target).square().mean()
    for step in range(300):
        if step == 200:
            latents = dvae.posterior.project(dvae.encoder(target)).detach().movedim(1, -1).flatten(0, 2)
            dvae.posterior.set_codebook(*kmeans(latents, config.codebook_size, seed=seed))
        output = dvae.autoencode(target) if step < 200 else dvae.decode_argmax(target)
        loss = dvae_losses(target, output, dvae.likelihood, kl_weight=0.0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    share = ((dvae.reconstruct(target) - target).square().mean() / first).item()
    record_property("share of the error left", share)
    assert share < 0.02


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"image_size": 30}, ["image_size=30", "downsample_factor=4"]),
        ({"widths": [8, 16]}, ["[8, 16]", 2, "downsample_factor=4"]),
        ({"codebook_size": 1}, ["codebook_size=1", 2]),
        ({"blocks_per_group": [1, 2]}, ["blocks_per_group=[1, 2]", 3]),
        ({"blocks_per_group": [1, 0, 2]}, ["blocks_per_group=[1, 0, 2]"]),
        ({"widths": [2, 16, 16]}, ["[2, 16, 16]", "bottleneck=4"]),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_both_numbers(changes, parts):
    with refused(StrictDataclassError, *parts):
        DVAEConfig(**{**SIZES, **changes})


def test_an_unknown_key_is_refused_by_name():
    with refused(TypeError, "codebok_size", "codebook_size"):
        DVAEConfig(codebok_size=3)


def test_a_wrong_size_of_picture_or_grid_is_refused():
    with refused(ValueError, "(1, 3, 8, 8)", "(B, 3, 16, 16)"):
        tiny().encode(torch.rand(1, 3, 8, 8))
    with refused(ValueError, "(1, 5, 4)", "(B, 4, 4)"):
        tiny().decode(torch.zeros(1, 5, 4, dtype=torch.long))


def test_usage_of_even_codes_is_the_number_of_codes():
    usage = codebook_usage(count_codes(torch.tensor([0, 1, 2, 0, 1, 2]), codebook_size=6))
    assert usage["perplexity"] == pytest.approx(3) and usage["codes_used"] == 0.5


def test_the_image_processor_keeps_pixels_in_the_unit_interval_and_goes_back(tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    processor = DVAEImageProcessor(16)
    pixel_values = processor(picture)["pixel_values"]
    assert pixel_values.shape == (1, 3, 16, 16) and pixel_values.min() >= 0 and pixel_values.max() <= 1
    (back,) = processor.postprocess(pixel_values)
    assert np.array_equal(np.asarray(back), np.asarray(picture))
    processor.save_pretrained(tmp_path)
    assert DVAEImageProcessor.from_pretrained(tmp_path).size == 16


def test_transparent_pixels_are_laid_on_the_background_and_sides_are_cropped():
    picture = Image.new("RGBA", (40, 20), (0, 0, 0, 0))
    picture.paste((255, 0, 0, 255), (10, 0, 30, 20))
    pixel_values = DVAEImageProcessor(8)(picture)["pixel_values"]
    torch.testing.assert_close(pixel_values[0, :, 4, 4], torch.tensor([1.0, 0.0, 0.0]))
    empty = DVAEImageProcessor(8)(Image.new("RGBA", (20, 40), (0, 0, 0, 0)))["pixel_values"]
    torch.testing.assert_close(empty, torch.ones(1, 3, 8, 8))


def test_a_picture_is_turned_as_its_camera_was(tmp_path):
    upright = Image.new("RGB", (8, 8), "blue")
    upright.paste("red", (0, 0, 8, 4))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # what is stored is to be turned clockwise by 90°
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as turned:
        assert DVAEImageProcessor(8).fit(turned).tobytes() == upright.tobytes()


@pytest.mark.parametrize(
    ("image", "error", "parts"),
    [
        (3, TypeError, ["int", "PIL", "uint8"]),
        ([], ValueError, []),
        (np.full((8, 8, 3), 200.0), ValueError, [200, "[0, 1]", "uint8"]),
        (np.full((8, 8, 3), np.nan), ValueError, ["nan", "[0, 1]"]),
        (np.zeros((8, 8, 3), dtype=np.int64), TypeError, ["int64", "uint8", "[0, 1]"]),
        (torch.zeros(8, 8, 3), TypeError, ["(8, 8, 3)", "(3, H, W)"]),
        (np.zeros((8, 8), dtype=bool), TypeError, ["bool", "uint8"]),
        (np.zeros((3, 8, 8), dtype=np.uint8), TypeError, ["(3, 8, 8)", "(H, W)", "(H, W, 3)"]),
        (np.zeros(8, dtype=np.uint8), TypeError, ["(8,)", "(H, W)"]),
    ],
)
def test_what_is_no_image_is_refused(image, error, parts):
    with refused(error, *parts):
        DVAEImageProcessor(8)(image)


@pytest.mark.parametrize("posterior", ["gumbel_codebook", "vq"])
def test_a_loaded_codebook_can_be_filled_anew(posterior, tmp_path):
    tiny(posterior=posterior).save_pretrained(tmp_path)
    loaded = DVAE.from_pretrained(tmp_path)
    centres = torch.randn(12, 6)
    loaded.posterior.set_codebook(centres, torch.tensor(0.5))
    assert torch.equal(loaded.posterior.codebook.weight, centres)
    if posterior == "gumbel_codebook":
        assert loaded.posterior.log_scale.exp().item() == pytest.approx(16 / 0.5)


@pytest.mark.parametrize(("mode", "white"), [("I;16", 65535), ("I", 65535), ("I", 255), ("F", 1.0), ("F", 255.0)])
def test_a_picture_of_more_than_8_bits_keeps_its_greys(mode, white):
    ramp = np.linspace(0, 1, 16 * 16).reshape(16, 16)
    kinds = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
    picture = Image.fromarray((ramp * white).astype(kinds[mode]))
    assert picture.mode == mode
    found = DVAEImageProcessor(16)(picture)["pixel_values"][0, 0]
    np.testing.assert_allclose(found, ramp, atol=1 / 255)


@pytest.mark.parametrize("posterior", ["gumbel_codebook", "vq", "normalised_vq", "ibq"])
def test_under_autocast_codes_are_told_apart_in_float32(posterior):
    """Rounded to bf16 some entries would tie, and the first of them be taken."""
    model = tiny(posterior=posterior)
    hidden_states = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        q = model.posterior(hidden_states, 1.0)
    assert q.logits.dtype == torch.float32
    assert torch.equal(q.codes, model.posterior.codes_of(q.logits)) and not torch.equal(q.logits, q.logits.bfloat16())
