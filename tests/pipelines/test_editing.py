"""From given pictures: what is kept stays, what is not is painted as a call paints, and what is refused."""

import copy

import numpy as np
import pytest
import torch
from messages import refused
from PIL import ExifTags, Image

from dvae import DVAE, DVAEConfig, DVAEImageProcessor
from pipelines import TextToImagePipeline
from pipelines.editing import touched_cells
from pipelines.steps import NOT_DRAWN
from prior_transformer import PriorTransformer, PriorTransformerConfig

QUIET = {"progress_bar": False, "output_type": "pt"}


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """Wider than high: fitted, its middle is what counts."""
    levels = np.random.default_rng(0).integers(0, 256, size=(5, 8, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((32, 20), Image.Resampling.NEAREST)


@pytest.fixture(scope="module", params=[0, 2], ids=["codes", "codes and style"])
def pipeline(request, tiny_pipeline) -> TextToImagePipeline:
    config = {key: getattr(tiny_pipeline.dvae.config, key) for key in ("image_size", "downsample_factor", "widths")}
    torch.manual_seed(0)
    dvae = DVAE(DVAEConfig(codebook_size=32, codebook_dim=8, **config, style_size=request.param)).eval()
    return TextToImagePipeline(**tiny_pipeline.components | {"dvae": dvae}, sampling={"guidance_scale": 2.0})


def test_reconstruct(pipeline, picture):
    pixel_values = pipeline.image_processor([picture, picture])["pixel_values"]
    images = pipeline.reconstruct([picture, np.asarray(picture)], output_type="pt")
    torch.testing.assert_close(images, pipeline.dvae.reconstruct(pixel_values))
    assert pipeline.reconstruct(picture)[0].size == (16, 16)


def test_one_prompt_for_many_pictures_and_many_prompts_for_one(pipeline, picture):
    """Each as it is alone."""
    other = picture.transpose(Image.Transpose.ROTATE_180)
    both = pipeline.complete("an armchair", [picture, other], seed=2, **QUIET)
    walk = pipeline.complete(["an armchair", "a red apple"], picture, seed=2, **QUIET)
    for output, i, prompt, image in (
        (both, 0, "an armchair", picture),
        (both, 1, "an armchair", other),
        (walk, 1, "a red apple", picture),
    ):
        alone = pipeline.complete(prompt, image, seed=2, **QUIET)
        assert torch.equal(alone.codes[0], output.codes[i])
        torch.testing.assert_close(alone.images[0], output.images[i], atol=1e-5, rtol=0)
        assert output.prompts[i] == prompt


@pytest.mark.parametrize("rows", [None, 1, 3, 4])
def test_complete_keeps_the_rows(pipeline, picture, rows):
    output = pipeline.complete(["an armchair", ""], picture, rows=rows, seed=0, **QUIET)
    codes, kept = pipeline.encode_images(picture), rows or 2
    assert torch.equal(output.codes[:, :kept], codes[:, :kept].expand(2, -1, -1))
    assert output.images.shape == (2, 3, 16, 16)
    assert kept == 4 or not torch.equal(output.codes[0, kept:], output.codes[1, kept:])


def test_of_a_grid_of_one_code_complete_keeps_this_one(tiny_tokenizer, picture):
    sizes = {"image_size": 4, "downsample_factor": 4, "codebook_dim": 8, "widths": [8, 8, 8], "blocks_per_group": 1}
    dvae = DVAE(DVAEConfig(codebook_size=32, **sizes)).eval()
    texts = {"text_vocab_size": len(tiny_tokenizer), "text_length": 6}
    layers = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    prior = PriorTransformer(PriorTransformerConfig(codebook_size=32, grid_size=1, **texts, **layers)).eval()
    one = TextToImagePipeline(dvae, prior, tiny_tokenizer, DVAEImageProcessor(size=4))
    assert torch.equal(one.complete("an armchair", picture, seed=0, **QUIET).codes, one.encode_images(picture))


def test_a_mask_lies_on_black_and_is_turned_with_its_picture(tiny_pipeline, picture):
    """White that is transparent is no hole; a picture and a mask that a camera turned are turned before they meet."""
    clear = Image.new("RGBA", picture.size, (255, 255, 255, 0))
    clear.paste((255, 255, 255, 255), (0, 10, 32, 20))
    white = np.arange(20)[:, None].repeat(32, axis=1) >= 10
    turned = []
    for upright in (picture, clear):
        stored = upright.transpose(Image.Transpose.ROTATE_90)
        stored.getexif()[ExifTags.Base.Orientation] = 6
        turned.append(stored)
    expected, *others = (
        tiny_pipeline.inpaint("an armchair", *pair, seed=0, **QUIET).codes
        for pair in ((picture, white), (picture, clear), turned)
    )
    assert all(torch.equal(codes, expected) for codes in others)


def test_inpaint_with_a_full_mask_is_the_call(pipeline, picture):
    mask = np.ones((20, 32), dtype=bool)
    options = {"num_images_per_prompt": 2, "seed": 3, "temperature": 0.9}
    output = pipeline.inpaint("an armchair", picture, mask, **options, **QUIET)
    assert torch.equal(output.codes, pipeline("an armchair", **options, **QUIET).codes)


def test_inpaint_repaints_where_the_mask_touches(pipeline, picture):
    """Of the 20 × 20 middle a cell has 5 pixels: columns 11 and 15 are of cells 1, rows 4 and 5 of cells 0 and 1."""
    mask = np.zeros((20, 32), dtype=np.uint8)
    mask[4:6, 6 + 5] = 255
    hole = torch.zeros(4, 4, dtype=torch.bool)
    hole[0:2, 1] = True
    assert torch.equal(torch.from_numpy(touched_cells(mask == 255, 4)), hole)
    outputs = [
        pipeline.inpaint("an armchair", picture, mask, num_images_per_prompt=8, seed=3, **options, **QUIET)
        for options in ({}, {"temperature": 2.0})
    ]
    codes = pipeline.encode_images(picture).expand(8, -1, -1)
    assert torch.equal(outputs[0].codes[:, ~hole], codes[:, ~hole])
    assert not torch.equal(outputs[0].codes[:, hole], outputs[1].codes[:, hole])


@pytest.mark.parametrize(("size", "side"), [(16, 4), (17, 4), (5, 4), (4, 4), (3, 4), (50, 7)])
def test_touched_cells_equals_brute_force(size, side):
    """A cell and a pixel touch where their squares overlap, at any size of the mask."""
    mask = np.random.default_rng(1).random((size, size)) < 0.05
    expected = np.zeros((side, side), dtype=bool)
    for y, x in zip(*mask.nonzero(), strict=True):
        for i in range(side):
            for j in range(side):
                overlaps = [a * size < (n + 1) * side and n * side < (a + 1) * size for a, n in ((i, y), (j, x))]
                expected[i, j] |= all(overlaps)
    assert np.array_equal(touched_cells(mask, side), expected)


def test_best_of_the_hole_is_the_likeliest_picture(pipeline, picture):
    """What lies below the hole has a say: the candidates differ in the hole, and the whole is judged."""
    mask = Image.new("L", picture.size)
    mask.paste(255, (6, 5, 26, 10))
    candidates = pipeline.inpaint("an armchair", picture, mask, num_images_per_prompt=6, seed=1, **QUIET)
    likelihood = pipeline.score("an armchair", candidates.codes).log_likelihood
    best = pipeline.inpaint("an armchair", picture, mask, best_of=6, seed=1, **QUIET)
    assert best.seeds == [candidates.seeds[likelihood.argmax()]]
    assert torch.equal(best.codes[0], candidates.codes[likelihood.argmax()])


def test_a_reranker_sees_the_pictures_that_are_returned(pipeline, picture, monkeypatch):
    """In the style of the given picture, and decoded once."""
    seen, decoded, decode = [], [], pipeline.decode_codes
    monkeypatch.setattr(pipeline, "decode_codes", lambda codes, *style: decoded.append(codes) or decode(codes, *style))

    def brightness(prompts, pictures):
        seen.extend(pictures)
        return torch.tensor([np.asarray(image).mean() for image in pictures])

    best = pipeline.vary(picture, best_of=4, seed=1, reranker=brightness, progress_bar=False)
    place = best.seeds[0] - 1
    assert place == max(range(4), key=lambda i: np.asarray(seen[i]).mean())
    assert best.images[0].tobytes() == seen[place].tobytes()
    assert len(decoded) == 1
    expected = pipeline.postprocess(decode(best.codes, pipeline.dvae.encode_style(pipeline.preprocess(picture))))
    assert np.abs(np.asarray(expected[0], int) - np.asarray(seen[place], int)).max() <= 1  # rounding


def test_vary(pipeline, picture):
    """strength 1 is the call; 0 at temperature 0 the picture; in between nearer to it the lower."""
    options = {"seed": 3, "num_images_per_prompt": 4}
    call = pipeline("an armchair", **options, **QUIET)
    other = pipeline.vary(picture, "an armchair", strength=1, **options, **QUIET)
    assert torch.equal(other.codes, call.codes) and torch.equal(other.images, call.images)
    kept = pipeline.vary(picture, strength=0, temperature=0, seed=0, **QUIET)
    torch.testing.assert_close(kept.images, pipeline.reconstruct(picture, output_type="pt"))
    codes = pipeline.encode_images(picture)
    shares = [
        (pipeline.vary(picture, strength=s, temperature=0.1, **options, **QUIET).codes == codes).float().mean()
        for s in (0.01, 0.3, 1)
    ]
    assert shares[0] > shares[1] >= shares[2]


def test_codes_that_are_sure_are_kept_by_any_share_of_the_picture(tiny_pipeline, picture):
    """A vector quantiser's q(code | picture) is 1 at the nearest code."""
    config = tiny_pipeline.dvae.config
    sizes = {name: getattr(config, name) for name in ("image_size", "downsample_factor", "codebook_size", "widths")}
    dvae = DVAE(DVAEConfig(**sizes, posterior="vq")).eval()
    pipeline = TextToImagePipeline(**tiny_pipeline.components | {"dvae": dvae})
    codes = pipeline.encode_images(picture)
    for strength in (0, 0.4, 0.9):
        assert torch.equal(pipeline.vary(picture, strength=strength, seed=0, **QUIET).codes, codes)


@pytest.mark.parametrize("method", ["complete", "inpaint", "vary"])
def test_what_a_picture_says_is_carried_where_it_is_asked_for_alone(pipeline, picture, method):
    """(R, N, K) numbers otherwise, 2 GB at 64 pictures of 1024 of 8192 codes."""
    planned = {
        "complete": lambda: pipeline._completion("", picture, None),
        "inpaint": lambda: pipeline._inpainting("", picture, np.ones((20, 32), bool)),
        "vary": lambda: pipeline._variation("", picture, 0.5),
    }[method]()
    assert (planned.given.posterior_logits is None) == (method != "vary")


@pytest.mark.parametrize("method", ["call", "best_of", "complete", "inpaint", "vary", "interpolate", "rank"])
def test_another_default_device_changes_nothing(pipeline, picture, method):
    """As where a notebook says torch.set_default_device("cuda"), and the pipeline is on the CPU."""
    do = {
        "call": lambda: pipeline("an armchair", seed=0, **QUIET).codes,
        "best_of": lambda: pipeline("an armchair", best_of=2, seed=0, **QUIET).codes,
        "complete": lambda: pipeline.complete("an armchair", picture, seed=0, **QUIET).codes,
        "inpaint": lambda: pipeline.inpaint("an armchair", picture, np.ones((20, 32), bool), seed=0, **QUIET).codes,
        "vary": lambda: pipeline.vary(picture, seed=0, **QUIET).codes,
        "interpolate": lambda: pipeline.interpolate("an armchair", "a red apple", steps=2, seed=0, **QUIET).codes,
        "rank": lambda: pipeline.rank("an armchair", [picture]).scores,
    }[method]
    expected = do()
    with torch.device("meta"):
        found = do()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_vary_in_another_dtype(tiny_pipeline, picture, dtype):
    other = TextToImagePipeline(**copy.deepcopy(tiny_pipeline.components)).to(dtype)
    output = other.vary(picture, strength=0, temperature=0, seed=0, **QUIET)
    assert torch.equal(output.codes, other.encode_images(picture))


def test_interpolate_goes_from_prompt_to_prompt(tiny_pipeline):
    """Its ends are the two calls, with guidance and against a negative prompt too; the middle is neither's mix-up."""
    for options in (
        {"guidance_scale": 1},
        {"guidance_scale": 3},
        {"guidance_scale": 3, "negative_prompt": "two cats"},
    ):
        walk = tiny_pipeline.interpolate("an armchair", "a red apple", steps=5, seed=4, **options, **QUIET)
        ends = tiny_pipeline(["an armchair", "a red apple"], seed=4, **options, **QUIET)
        assert torch.equal(walk.codes[[0, -1]], ends.codes)
        assert walk.seeds == [4] * 5
        assert walk.prompts[1] == "0.75 an armchair + 0.25 a red apple"
    same = tiny_pipeline.interpolate("an armchair", "an armchair", steps=3, seed=4, **QUIET)
    assert torch.equal(same.codes, same.codes[:1].expand(3, -1, -1))
    assert len(set(tiny_pipeline.interpolate("an armchair", "a red apple", steps=3, **QUIET).seeds)) == 1


def test_an_interpolation_drops_nothing_out(tiny_pipeline):
    """Whatever mode the prior is in, and its guidance's empty caption too."""
    pipeline = TextToImagePipeline(**copy.deepcopy(tiny_pipeline.components))
    for module in pipeline.prior.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    expected = pipeline.interpolate("an armchair", "a red apple", steps=3, seed=4, guidance_scale=3, **QUIET)
    pipeline.prior.train()
    walk = pipeline.interpolate("an armchair", "a red apple", steps=3, seed=4, guidance_scale=3, **QUIET)
    assert torch.equal(walk.codes, expected.codes)


HOLE = np.zeros((20, 32), dtype=bool)
HOLE[5:15, 6 + 5 : 6 + 15] = True  # the middle 2 × 2 of 4 × 4 cells


@pytest.mark.parametrize(
    ("method", "start", "steps"),
    [
        ("complete", {}, [12, 16]),
        ("complete", {"rows": 1}, [8, 12, 16]),
        ("complete", {"rows": 4}, [16]),
        ("inpaint", {"mask": HOLE}, [7, 16]),
        ("inpaint", {"mask": HOLE, "best_of": 2}, [7, 16]),
        ("inpaint", {"mask": HOLE, "every": 1}, [6, 7, 10, 16]),
        ("vary", {"strength": 0.5}, [4, 8, 12, 16]),
    ],
)
def test_an_edit_streams(pipeline, picture, method, start, steps):
    """Given codes are shown from the first picture on, grey is where a code is missing, the last is the method's."""
    arguments = {"prompt": ["an armchair", ""], "image": picture, "seed": 3, **start, **QUIET}
    parts = list(pipeline.stream(**arguments))
    whole = getattr(pipeline, method)(**{name: value for name, value in arguments.items() if name != "every"})
    assert torch.equal(parts[-1].images, whole.images) and torch.equal(parts[-1].codes, whole.codes)
    assert (parts[-1].seeds, parts[-1].sampling) == (whole.seeds, whole.sampling)
    assert [part.step for part in parts] == steps
    codes = pipeline.encode_images(picture)
    hole = torch.from_numpy(touched_cells(HOLE, 4)) if method == "inpaint" else torch.ones(4, 4, dtype=torch.bool)
    hole[: start.get("rows", 2) if method == "complete" else 0] = False
    for part in parts[:-1]:
        assert len(part.images) == 2 * start.get("best_of", 1)
        missing = hole & (torch.arange(16).view(4, 4) >= part.step)
        assert torch.equal(part.codes == -1, missing.expand_as(part.codes))
        assert torch.equal(part.codes[:, ~hole], codes[:, ~hole].expand(len(part.codes), -1))
        pixels = missing.repeat_interleave(4, 0).repeat_interleave(4, 1)  # (16, 16)
        assert (part.images[:, :, pixels] == NOT_DRAWN).all()
        assert (part.images[:, :, ~pixels] != NOT_DRAWN).float().mean() > 0.9


@pytest.mark.parametrize(
    ("arguments", "error", "parts"),
    [
        ({"rows": 1}, TypeError, ["rows", "image"]),
        ({"mask": HOLE}, TypeError, ["mask", "image"]),
        ({"image": HOLE, "mask": HOLE, "strength": 0.5}, TypeError, ["mask", "strength"]),
        ({"image": Image.new("L", (32, 20)), "rows": 5}, ValueError, ["rows=5", 4]),
        ({"image": Image.new("L", (32, 20)), "strength": 2}, ValueError, ["strength=2", 1]),
        ({"image": Image.new("L", (32, 20)), "mask": np.zeros_like(HOLE)}, ValueError, ["mask", "(32, 20)"]),
    ],
)
def test_a_stream_of_an_edit_refuses_at_once(tiny_pipeline, arguments, error, parts):
    with refused(error, *parts):
        tiny_pipeline.stream("a cat", **arguments)


MASK = Image.new("L", (32, 20), 255)


@pytest.mark.parametrize(
    ("method", "arguments", "error", "parts"),
    [
        ("complete", {"rows": 0}, ValueError, ["rows=0", 1]),
        ("complete", {"rows": 5}, ValueError, ["rows=5", 4]),
        ("complete", {"rows": 1.5}, TypeError, ["rows=1.5", "float"]),
        ("complete", {"image": "cat.png"}, TypeError, ["PIL", "str"]),
        ("complete", {"image": [MASK] * 3, "prompt": ["a cat", ""]}, ValueError, [3, 2]),
        ("complete", {"prompt": None}, TypeError, ["prompt=None"]),
        ("complete", {"tempreature": 1}, TypeError, ["tempreature", "temperature"]),
        ("complete", {"tempreature": None}, TypeError, ["tempreature"]),
        ("inpaint", {"mask": Image.new("L", (20, 32))}, ValueError, ["(20, 32)", "(32, 20)"]),
        ("inpaint", {"mask": np.zeros((20, 32))}, TypeError, ["float64", "bool", "uint8"]),
        ("inpaint", {"mask": np.zeros((20, 32, 3), dtype=np.uint8)}, TypeError, ["(20, 32, 3)", "(H, W)"]),
        ("inpaint", {"mask": np.ones((20, 32), dtype=np.uint8)}, ValueError, ["(32, 20)", "bool", 255]),
        ("inpaint", {"mask": Image.new("1", (32, 20))}, ValueError, ["mask", "(32, 20)"]),
        ("inpaint", {"mask": "hole.png"}, TypeError, ["'hole.png'", "str", "PIL"]),
        ("inpaint", {"mask": MASK, "image": "cat.png"}, TypeError, ["str", "PIL"]),
        ("inpaint", {"mask": MASK, "image": np.zeros((20, 32, 3), int)}, TypeError, ["int64", "uint8"]),
        ("inpaint", {}, TypeError, ["mask=None"]),
        ("inpaint", {"mask_image": MASK}, TypeError, ["mask_image", "mask="]),
        ("inpaint", {"mask": MASK, "best_of": 0}, ValueError, ["best_of=0", 1]),
        ("vary", {"strength": 1.5}, ValueError, ["strength=1.5", 1]),
        ("vary", {"strength": "1"}, TypeError, ["strength='1'", "str"]),
    ],
)
def test_what_cannot_be_used_is_refused(tiny_pipeline, picture, method, arguments, error, parts):
    with refused(error, *parts):
        getattr(tiny_pipeline, method)(**{"prompt": "a cat", "image": picture, **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "parts"),
    [
        ({"steps": 1}, ValueError, ["steps=1", 2]),
        ({"steps": 2.5}, TypeError, ["steps=2.5"]),
        ({"num_images_per_prompt": 2}, TypeError, ["num_images_per_prompt"]),
        ({"best_of": 2}, TypeError, ["best_of"]),
        ({"seed": -1}, ValueError, ["seed=-1", "2^63"]),
        ({"seed": [1, 2]}, ValueError, [2, 1]),
        ({"prompt_b": ["a"]}, TypeError, ["prompt", 1, "['a']"]),
    ],
)
def test_interpolate_refuses(tiny_pipeline, arguments, error, parts):
    with refused(error, *parts):
        tiny_pipeline.interpolate(**{"prompt_a": "a cat", "prompt_b": "a dog", **arguments})
