"""Everything works on a checkpoint brought in: prompts of unequal length, guided and not, alone and among others."""

import base64
import io
from pathlib import Path

import pytest
import torch
from messages import refused
from PIL import Image
from running_server import client_of, running_server
from tiny_janus import save_transformers, tiny_janus
from tiny_llamagen import save_llamagen
from tiny_mindalle import GPT, save_mindalle
from tiny_rudalle import RuDALLE, save_rudalle

from pipelines import TextToImagePipeline
from pipelines.judges.likelihood import score_codes

PROMPTS = ["a cat", "a fat cat, and at"]
SAVED = {
    "janus": lambda folder: save_transformers(tiny_janus(), folder),
    "llamagen": save_llamagen,
    "mindalle": lambda folder: save_mindalle(GPT(), folder),
    "rudalle": lambda folder: save_rudalle(RuDALLE(), folder),
}
PICTURES = [Image.effect_mandelbrot((16, 16), (-2, -1, 1, 1), 50).convert("RGB"), Image.new("RGB", (16, 16), "red")]
HOLE = Image.new("L", (16, 16))
HOLE.paste(255, (4, 4, 12, 16))


@pytest.fixture(scope="module", params=SAVED)
def folder(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    SAVED[request.param](folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(folder) -> TextToImagePipeline:
    return TextToImagePipeline.from_pretrained(folder)


def quiet(method, *arguments, **options):
    return method(*arguments, output_type="pt", progress_bar=False, **options)


def brute_force(pipeline, ids: torch.Tensor, others: torch.Tensor, scale: float) -> torch.Tensor:
    """Greedy codes by whole passes, nothing cached, each prompt without its padding."""
    codes = torch.zeros(1, 0, dtype=torch.int64)
    prior = pipeline.prior
    for _ in range(16):
        own, other = (prior(prior.join(text, codes)).image_logits[:, -1] for text in (ids, others))
        codes = torch.cat([codes, (other + scale * (own - other)).argmax(-1, keepdim=True)], dim=1)
    return codes.view(1, 4, 4)


@torch.no_grad()
@pytest.mark.parametrize(("scale", "negative"), [(1, None), (5, None), (5, "a tea at a cat")])
@pytest.mark.parametrize("window", [1, 8])
def test_codes_are_those_of_whole_passes(pipeline, scale, negative, window):
    """At any window; what is steered away from is the prompt's own null row, or another prompt of another length."""
    options = {"negative_prompt": negative} if negative else {}
    output = quiet(pipeline, PROMPTS, temperature=0, guidance_scale=scale, window=window, seed=0, **options)
    ids = pipeline.encode_prompt(PROMPTS)
    others = pipeline.encode_prompt([negative] * 2) if negative else pipeline.prior.null(ids)
    for i in range(2):
        expected = brute_force(pipeline, ids[i : i + 1], others[i : i + 1], scale)
        assert torch.equal(output.codes[i : i + 1], expected)


WAYS = {
    "plain": lambda pipeline, prompts, images, **options: quiet(pipeline, prompts, **options),
    "unguided": lambda pipeline, prompts, images, **options: quiet(pipeline, prompts, guidance_scale=1, **options),
    "negative": lambda pipeline, prompts, images, **options: quiet(
        pipeline, prompts, negative_prompt="at", guidance_scale=3, **options
    ),
    "inpaint": lambda pipeline, prompts, images, **options: quiet(pipeline.inpaint, prompts, images, HOLE, **options),
    "complete": lambda pipeline, prompts, images, **options: quiet(pipeline.complete, prompts, images, **options),
    "vary": lambda pipeline, prompts, images, **options: quiet(pipeline.vary, images, prompts, **options),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_picture_is_the_same_alone_and_among_others(pipeline, way):
    paint = WAYS[way]
    together = paint(pipeline, PROMPTS, PICTURES, seed=[3, 9])
    for i, seed in enumerate((3, 9)):
        alone = paint(pipeline, PROMPTS[i], PICTURES[i], seed=seed)
        assert torch.equal(alone.codes[0], together.codes[i]) and torch.equal(alone.images[0], together.images[i])
    assert not torch.equal(together.codes[0], together.codes[1])


def test_given_codes_stay(pipeline):
    codes = pipeline.encode_images(PICTURES)
    inpainted = quiet(pipeline.inpaint, PROMPTS, PICTURES, HOLE, seed=0).codes
    hole = torch.zeros(4, 4, dtype=torch.bool)
    hole[1:, 1:3] = True
    assert torch.equal(inpainted[:, ~hole], codes[:, ~hole]) and not torch.equal(inpainted, codes)
    completed = quiet(pipeline.complete, PROMPTS, PICTURES, rows=3, seed=0).codes
    assert torch.equal(completed[:, :3], codes[:, :3]) and not torch.equal(completed, codes)
    varied = quiet(pipeline.vary, PICTURES, PROMPTS, strength=0.5, seed=0).codes
    assert torch.equal(varied, codes) == (pipeline.dvae.config.posterior != "gumbel"), "a quantiser is sure"


@torch.no_grad()
def test_scores_are_log_probabilities_and_the_best_is_the_likeliest(pipeline):
    codes = quiet(pipeline, PROMPTS, seed=1).codes
    score = pipeline.score(PROMPTS, codes)
    ids = pipeline.encode_prompt(PROMPTS)
    for said, text in ((score.log_likelihood, ids), (score.log_prior, pipeline.prior.null(ids))):
        logits = pipeline.prior(pipeline.prior.join(text, codes.flatten(1))).image_logits
        expected = logits.log_softmax(-1).gather(2, codes.flatten(1)[..., None]).sum(dim=(1, 2))
        torch.testing.assert_close(said, expected, atol=1e-3, rtol=0)
    assert [one.size for one in score.heat_maps(size=32)] == [(32, 32)] * 2
    best = quiet(pipeline, PROMPTS, best_of=3, seed=4)
    drawn = quiet(pipeline, PROMPTS, num_images_per_prompt=3, seed=4).codes
    for i, prompt in enumerate(PROMPTS):
        likely = score_codes(pipeline.prior, pipeline.encode_prompt([prompt] * 3), drawn[3 * i : 3 * i + 3])
        assert torch.equal(best.codes[i], drawn[3 * i + int(likely.log_likelihood.argmax())])


def test_a_stream_ends_with_the_picture(pipeline):
    expected = quiet(pipeline, PROMPTS, seed=2)
    *before, last = pipeline.stream(PROMPTS, seed=2, output_type="pt", progress_bar=False)
    assert [output.step for output in before] == [4, 8, 12] and torch.equal(last.images, expected.images)


def test_between_two_prompts(pipeline):
    outputs = quiet(pipeline.interpolate, *PROMPTS, 3, seed=5)
    ends = quiet(pipeline, PROMPTS, seed=[5, 5])
    assert torch.equal(outputs.codes[[0, 2]], ends.codes)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_quantised(folder, kind):
    """In int4 codes that are no whole blocks, which no public checkpoint has, are refused."""
    pytest.importorskip("torchao")
    smaller = TextToImagePipeline.from_pretrained(folder)
    if kind == "int4" and smaller.prior.config.codebook_size == 24:
        with refused(ValueError, 24, 16, "'int8'"):
            smaller.quantize(kind)
        return
    smaller.quantize(kind)
    together, alone = quiet(smaller, PROMPTS, seed=[1, 2]), quiet(smaller, PROMPTS[1], seed=2)
    assert torch.equal(together.codes[1], alone.codes[0])


def test_saved_and_loaded_it_paints_the_same(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    loaded = TextToImagePipeline.from_pretrained(tmp_path)
    assert loaded.sampling == pipeline.sampling and loaded.data == pipeline.data
    output, expected = quiet(loaded, PROMPTS, seed=6), quiet(pipeline, PROMPTS, seed=6)
    assert torch.equal(output.images, expected.images)


def test_served_it_paints_the_same(pipeline):
    """Prompts of unequal length by requests of their own, by OpenAI's client; limits are the model's."""
    with running_server(pipeline) as address, client_of(address) as client:
        for prompt in PROMPTS:
            answer = client.images.generate(prompt=prompt, extra_body={"seed": 7})
            picture = Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json)))
            expected = pipeline(prompt, seed=7, progress_bar=False).images[0]
            assert picture.tobytes() == expected.tobytes() and answer.size == "16x16"
            ids = pipeline.encode_prompt(prompt)
            assert answer.data[0].revised_prompt == pipeline.tokenizer.decode_captions(ids)[0]
            assert (
                answer.usage.input_tokens == int((ids != pipeline.tokenizer.pad_token_id).sum())
                and answer.usage.output_tokens == 16
            )
