"""From a prompt to pictures with tiny real parts: seeds, settings, each step alone, and what is refused."""

import copy
import inspect
import pickle
import re
import subprocess
import sys
from dataclasses import fields
from functools import partial

import numpy as np
import pytest
import torch
from messages import refused
from PIL import Image
from processes import ROOT

import pipelines
from dvae import DVAE, POSTERIORS, DVAEConfig, DVAEImageProcessor
from pipelines import TextToImagePipeline
from pipelines.calls import Call
from pipelines.drawing.settings import SamplingSettings

PROMPTS = ["an armchair", "a red apple"]


def paint(pipeline, prompt, **arguments):
    return pipeline(prompt, progress_bar=False, **arguments)


def test_output(tiny_pipeline):
    output = paint(tiny_pipeline, PROMPTS, num_images_per_prompt=2, seed=3)
    assert output.prompts == ["an armchair", "an armchair", "a red apple", "a red apple"]
    assert output.seeds == [3, 4, 3, 4]
    assert output.codes.shape == (4, 4, 4)
    assert output.codes.dtype == torch.int64
    assert output.sampling == tiny_pipeline.sampling
    assert [(image.size, image.mode) for image in output.images] == [((16, 16), "RGB")] * 4


@pytest.mark.parametrize(
    ("posterior", "style"),
    [*((name, {}) for name in POSTERIORS), ("gumbel", {"style_size": 2, "style_prior": "flow"})],
    ids=[*POSTERIORS, "codes and style"],
)
def test_it_paints_with_a_dvae_of_each_posterior_as_saved(tiny_pipeline, posterior, style, tmp_path):
    """And of what trained the dVAE nothing is in the folder but the dVAE."""
    sizes = {key: getattr(tiny_pipeline.dvae.config, key) for key in ("image_size", "downsample_factor", "widths")}
    torch.manual_seed(0)
    dim = 5 if posterior in ("fsq", "lfq") else 8  # 2⁵ points of a lattice
    dvae = DVAE(DVAEConfig(codebook_size=32, codebook_dim=dim, **sizes, posterior=posterior, **style)).eval()
    pipeline = TextToImagePipeline(dvae, tiny_pipeline.prior, tiny_pipeline.tokenizer, tiny_pipeline.image_processor)
    pipeline.save_pretrained(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if "discriminator" in path.name or "adversar" in path.name]
    loaded = TextToImagePipeline.from_pretrained(tmp_path)
    painted = [paint(each, PROMPTS, seed=0, output_type="pt").images for each in (pipeline, loaded)]
    assert torch.equal(*painted) and painted[0].shape == (2, 3, 16, 16)
    assert painted[0][0].sub(painted[0][1]).abs().max() > 1e-4


def test_output_types_agree(tiny_pipeline):
    tensor = paint(tiny_pipeline, PROMPTS, seed=0, output_type="pt").images
    array = paint(tiny_pipeline, PROMPTS, seed=0, output_type="np").images
    images = paint(tiny_pipeline, PROMPTS, seed=0).images
    assert tensor.shape == (2, 3, 16, 16)
    assert tensor.dtype == torch.float32
    assert tensor.min() >= 0
    assert tensor.max() <= 1
    np.testing.assert_allclose(array, tensor.permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(np.stack([np.asarray(image) for image in images]) / 255, array, atol=0.5 / 255 + 1e-6)


def test_same_seed_same_picture_alone_or_in_a_batch(tiny_pipeline):
    batch = paint(tiny_pipeline, PROMPTS, num_images_per_prompt=3, seed=10, output_type="pt")
    for i, (prompt, seed) in enumerate(zip(batch.prompts, batch.seeds, strict=True)):
        alone = paint(tiny_pipeline, prompt, seed=seed, output_type="pt")
        assert torch.equal(alone.codes[0], batch.codes[i])
        torch.testing.assert_close(alone.images[0], batch.images[i], atol=1e-5, rtol=0)


def test_a_seed_an_image(tiny_pipeline):
    output = paint(tiny_pipeline, PROMPTS, num_images_per_prompt=2, seed=[7, 1, 1, 5])
    assert output.seeds == [7, 1, 1, 5]
    for i, (prompt, seed) in enumerate(zip(output.prompts, output.seeds, strict=True)):
        assert torch.equal(paint(tiny_pipeline, prompt, seed=[seed]).codes[0], output.codes[i])


def test_without_a_seed_pictures_differ_and_can_be_painted_again(tiny_pipeline):
    torch.manual_seed(0)
    first = paint(tiny_pipeline, "an armchair", num_images_per_prompt=2)
    torch.manual_seed(0)  # the pipeline's chance is its own: it neither reads nor moves the global one
    state = torch.get_rng_state()
    second = paint(tiny_pipeline, "an armchair", num_images_per_prompt=2)
    assert torch.equal(state, torch.get_rng_state())
    assert len({*first.seeds, *second.seeds}) == 4
    again = paint(tiny_pipeline, "an armchair", num_images_per_prompt=2, seed=first.seeds)
    assert torch.equal(again.codes, first.codes)
    assert not torch.equal(first.codes, second.codes)


def test_steps_alone_equal_the_call(tiny_pipeline):
    output = paint(tiny_pipeline, PROMPTS, num_images_per_prompt=2, seed=1, temperature=0.8)
    text_ids = tiny_pipeline.encode_prompt(PROMPTS)
    assert text_ids.shape == (2, 6)
    codes = tiny_pipeline.generate_codes(text_ids, num_images_per_prompt=2, seed=1, temperature=0.8)
    assert torch.equal(codes, output.codes)
    images = tiny_pipeline.postprocess(tiny_pipeline.decode_codes(codes))
    assert [image.tobytes() for image in images] == [image.tobytes() for image in output.images]


def test_one_negative_caption_is_for_all(tiny_pipeline):
    text_ids, other = tiny_pipeline.encode_prompt(PROMPTS), tiny_pipeline.encode_prompt("two cats")
    options = {"num_images_per_prompt": 2, "seed": 1}
    each = tiny_pipeline.generate_codes(text_ids, negative_text_ids=other.repeat(2, 1), **options)
    assert torch.equal(tiny_pipeline.generate_codes(text_ids, negative_text_ids=other, **options), each)
    with refused(ValueError, "negative_text_ids", 3, 2):
        tiny_pipeline.generate_codes(text_ids, negative_text_ids=other.repeat(3, 1))
    for nothing in ({"negative_text_ids": other}, {"guidance_region": (0, 0, 1, 1)}):
        with refused(ValueError, *nothing, "guidance_scale=1"):
            tiny_pipeline.generate_codes(text_ids, guidance_scale=1, **nothing)


def test_the_pipelines_own_settings_are_the_default(tiny_pipeline):
    own = paint(tiny_pipeline, PROMPTS, seed=2)
    given = paint(tiny_pipeline, PROMPTS, seed=2, temperature=1.0, top_k=20, top_p=1.0, guidance_scale=2.0)
    assert torch.equal(own.codes, given.codes)
    plain = paint(tiny_pipeline, PROMPTS, seed=2, top_k=0, guidance_scale=1)
    assert (plain.sampling.top_k, plain.sampling.guidance_scale) == (0, 1)
    assert tiny_pipeline.sampling.top_k == 20
    assert not torch.equal(own.codes, plain.codes)


def test_completion_of_a_given_picture(tiny_pipeline):
    """The top rows of a picture's codes are kept, the rest is drawn to go with them."""
    known = tiny_pipeline.encode_images([Image.new("RGB", (40, 30), "red")] * 2).flatten(1)
    text_ids, mask = tiny_pipeline.encode_prompt(PROMPTS), (torch.arange(16) < 8).expand(2, 16)
    codes = tiny_pipeline.generate_codes(text_ids, seed=0, fixed_codes=known, fixed_mask=mask)
    assert torch.equal(codes.flatten(1)[:, :8], known[:, :8])


def test_callback_and_progress_bar(tiny_pipeline, capsys):
    seen = []
    output = tiny_pipeline("an armchair", seed=0, callback=lambda i, codes: seen.append((i, codes)))
    assert [i for i, _ in seen] == list(range(16))
    assert torch.equal(seen[-1][1], output.codes.flatten(1))
    assert "16/16" in capsys.readouterr().err
    paint(tiny_pipeline, "an armchair", seed=0)
    assert capsys.readouterr().err == ""


def test_dropout_is_off_while_painting_and_the_mode_is_kept(tiny_pipeline):
    expected = paint(tiny_pipeline, PROMPTS, seed=0).codes
    pipeline = TextToImagePipeline(
        **copy.deepcopy(tiny_pipeline.components), sampling={"guidance_scale": 2, "top_k": 20}
    )
    pipeline.prior.train()
    assert torch.equal(paint(pipeline, PROMPTS, seed=0).codes, expected)
    assert pipeline.prior.training


def test_between_two_items_of_a_stream_the_model_is_in_its_own_mode(tiny_pipeline):
    """Two streams of one model in training: the end of the first would give the second its dropout back."""
    pipeline = copy.deepcopy(tiny_pipeline)
    pipeline.prior.train()
    pipeline.prior.norm.eval()
    first, second = (pipeline.stream("a red apple", seed=0, every=4, progress_bar=False) for _ in range(2))
    items = [next(first), next(second)]
    assert pipeline.prior.training and not pipeline.prior.norm.training
    first.close()
    items += list(second)
    assert torch.equal(items[-1].codes, paint(tiny_pipeline, "a red apple", seed=0).codes)
    assert pipeline.prior.training and not pipeline.prior.norm.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_picture_is_the_same_to_the_bit_whatever_its_neighbours_are(tiny_pipeline, dtype):
    """Of a dVAE wide enough for kernels that sum otherwise in a batch."""
    torch.manual_seed(0)
    sizes = {"image_size": 16, "downsample_factor": 4, "codebook_size": 32, "codebook_dim": 8}
    dvae = DVAE(DVAEConfig(**sizes, widths=[32, 128, 320])).eval()
    pipeline = copy.deepcopy(TextToImagePipeline(**tiny_pipeline.components | {"dvae": dvae})).to(dtype)
    codes = torch.randint(32, (5, 4, 4), generator=torch.Generator().manual_seed(0))
    together = pipeline.decode_codes(codes)
    for i in range(5):
        assert torch.equal(pipeline.decode_codes(codes[[i]])[0], together[i])
    images = pipeline.postprocess(together)
    again = pipeline.reconstruct(images, output_type="pt")
    assert torch.equal(pipeline.reconstruct(images[3], output_type="pt")[0], again[3])


def test_to_and_components(tiny_pipeline):
    pipeline = TextToImagePipeline(**copy.deepcopy(tiny_pipeline.components))
    assert list(pipeline.components) == ["dvae", "prior", "tokenizer", "image_processor"]
    assert pipeline.to(torch.bfloat16) is pipeline
    assert (pipeline.dtype, pipeline.dvae.dtype, pipeline.device.type) == (torch.bfloat16, torch.bfloat16, "cpu")
    output = paint(pipeline, PROMPTS, seed=0, guidance_scale=3, output_type="pt")
    assert output.images.dtype == torch.float32
    assert output.images.isfinite().all()


def test_another_pipeline_of_the_same_components_paints_the_same(tiny_pipeline):
    other = TextToImagePipeline(**tiny_pipeline.components)
    assert other.sampling == tiny_pipeline.sampling != SamplingSettings()
    assert torch.equal(paint(other, PROMPTS, seed=0).codes, paint(tiny_pipeline, PROMPTS, seed=0).codes)
    assert TextToImagePipeline(**tiny_pipeline.components, sampling={}).sampling == SamplingSettings()


def test_a_compiled_pipeline_is_pickled_and_copied_compiled(tiny_pipeline):
    compiled = copy.deepcopy(tiny_pipeline).compile(mode="reduce-overhead")
    for other in (pickle.loads(pickle.dumps(compiled)), copy.deepcopy(compiled)):
        assert other.prior._compiled_look is not None and other.prior._compile_options == {"mode": "reduce-overhead"}
        assert len(other.prior.state_dict()) == len(tiny_pipeline.prior.state_dict())
    assert pickle.loads(pickle.dumps(tiny_pipeline)).prior._compiled_look is None


@pytest.mark.parametrize("prompt", ["ARMCHAIR", "アボカド", "🥑", "a\nb", "<pad>", "é" * 3])
def test_any_text_is_painted(tiny_pipeline, prompt):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *args, **kwargs: None)
        assert len(paint(tiny_pipeline, prompt, seed=0).images) == 1


@pytest.mark.parametrize(
    ("prompt", "arguments", "error", "parts"),
    [
        (" \n", {}, ValueError, ["prompt", 0, r"' \n'"]),
        ([], {}, ValueError, ["prompt=[]"]),
        (["a cat", " "], {}, ValueError, ["prompt", 1, "' '"]),
        (None, {}, TypeError, ["prompt=None"]),
        (7, {}, TypeError, ["prompt=7", "int"]),
        (["a cat", 7], {}, TypeError, ["prompt", 1, 7, "int"]),
        ("a cat", {"num_images_per_prompt": 0}, ValueError, ["num_images_per_prompt=0", 1]),
        ("a cat", {"num_images_per_prompt": 1.5}, TypeError, ["num_images_per_prompt=1.5", "float"]),
        ("a cat", {"seed": "0"}, TypeError, ["seed='0'", "str"]),
        ("a cat", {"seed": 0.5}, TypeError, ["seed=0.5", "float"]),
        ("a cat", {"seed": -1}, ValueError, ["seed=-1", "2^63"]),
        ("a cat", {"seed": 2**63}, ValueError, [f"seed={2**63}", "2^63"]),
        ("a cat", {"seed": 2**63 - 1, "num_images_per_prompt": 2}, ValueError, [f"seed={2**63}", "2^63"]),
        ("a cat", {"seed": [1, 2], "num_images_per_prompt": 3}, ValueError, [2, 3]),
        ("a cat", {"seed": [True]}, TypeError, ["seed=True", "bool"]),
        ("a cat", {"temperature": -1}, ValueError, ["temperature=-1", 0]),
        ("a cat", {"top_k": 33}, ValueError, ["top_k=33", 32]),
        ("a cat", {"top_p": 0}, ValueError, ["top_p=0", 1]),
        ("a cat", {"guidance_scale": "3"}, TypeError, ["guidance_scale='3'", "str"]),
        ("a cat", {"output_type": "jpg"}, ValueError, ["output_type='jpg'", "'pil'", "'np'", "'pt'"]),
        ("a cat", {"tempreature": 1}, TypeError, ["tempreature"]),
    ],
)
def test_what_cannot_be_used_is_refused(tiny_pipeline, prompt, arguments, error, parts):
    with refused(error, *parts) as caught:
        tiny_pipeline(prompt, **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "attribute", "value", "numbers"),
    [
        ("dvae", "codebook_size", 64, ["codebook_size=64", "codebook_size=32"]),
        ("dvae", "downsample_factor", 8, ["grid_size=2", "grid_size=4"]),
        ("prior", "text_vocab_size", 1, ["(tokenizer)=", "text_vocab_size=1"]),
        ("prior", "text_length", 7, ["model_max_length=6", "text_length=7"]),
        ("prior", "pad_token_id", 1, ["pad_token_id=0", "pad_token_id=1"]),
    ],
)
def test_parts_that_do_not_fit_are_refused(tiny_pipeline, part, attribute, value, numbers):
    parts = tiny_pipeline.components | {part: copy.deepcopy(tiny_pipeline.components[part])}
    object.__setattr__(parts[part].config, attribute, value)  # past the config's own checks
    with refused(ValueError, *numbers):
        TextToImagePipeline(**parts)


def test_a_picture_size_that_does_not_fit_is_refused(tiny_pipeline):
    with refused(ValueError, "size=8", "image_size=16"):
        TextToImagePipeline(**tiny_pipeline.components | {"image_processor": DVAEImageProcessor(size=8)})
    with refused(TypeError, "guidance"):
        TextToImagePipeline(**tiny_pipeline.components, sampling={"guidance": 3.0})


def test_the_imported_package_is_this_one():
    """`pipelines` is a generic name: another package of that name must not be what a user gets."""
    assert pipelines.__file__ == f"{ROOT}/pipelines/__init__.py"
    assert pipelines.TextToImagePipeline.__module__ == "pipelines.text_to_image"
    with refused(AttributeError, "StableDiffusion"):
        pipelines.StableDiffusion  # noqa: B018


def test_help_shows_every_argument_of_a_call():
    """With its default, and explained; and no method shows more of how it is made than self."""
    self, *shown = inspect.signature(TextToImagePipeline.__call__).parameters.values()
    assert self.name == "self"
    assert {p.name: p.default for p in shown[1:]} == {f.name: f.default for f in fields(Call)[1:]}
    assert (
        all(p.kind is p.KEYWORD_ONLY for p in shown[1:]) and shown[0].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    )
    explained = re.split(r"\W+", TextToImagePipeline.__call__.__doc__.split("Args:")[1])
    assert {p.name for p in shown} <= set(explained)
    methods = inspect.getmembers(TextToImagePipeline, inspect.isfunction)
    own = [method for _, method in methods if method.__module__.startswith("pipelines.")]
    assert own and all(next(iter(inspect.signature(method).parameters)) == "self" for method in own)


def test_an_unknown_argument_is_named_and_those_that_are_known(tiny_pipeline):
    for paint in (tiny_pipeline, tiny_pipeline.stream, partial(tiny_pipeline.interpolate, "an armchair")):
        with refused(TypeError, "sed", "negative_prompt", "seed"):
            paint("a cat", sed=0)


@pytest.mark.parametrize(
    ("argument", "remedy"),
    [
        ({"generator": torch.Generator()}, "seed="),
        ({"height": 512, "width": 512}, "image_size"),
        ({"num_inference_steps": 30}, "codes"),
        ({"callback_on_step_end": print}, "callback="),
        ({"image": Image.new("RGB", (16, 16))}, "vary"),
        ({"mask_image": Image.new("L", (16, 16))}, "inpaint"),
    ],
)
def test_what_diffusers_takes_is_answered_with_what_to_do_here(tiny_pipeline, argument, remedy):
    with refused(TypeError, next(iter(argument)), remedy):
        tiny_pipeline("a cat", **argument)


def test_an_output_is_indexed_as_diffusers_outputs_are(tiny_pipeline):
    output = paint(tiny_pipeline, "a cat", seed=0)
    assert output[0] is output.images
    with refused(IndexError, "output[1]", "output.images"):
        output[1]


@pytest.mark.parametrize("output_type", ["np", "pt"])
def test_pictures_of_every_output_type_go_back_in(tiny_pipeline, output_type):
    """A batch, or one of it, is read as the PIL pictures of the same call are."""
    pil, other = (
        paint(tiny_pipeline, "a cat", num_images_per_prompt=2, seed=0, output_type=kind).images
        for kind in ("pil", output_type)
    )
    codes = tiny_pipeline.encode_images(pil)
    assert torch.equal(tiny_pipeline.encode_images(other), codes) and not torch.equal(codes[0], codes[1])
    assert torch.equal(tiny_pipeline.encode_images(list(other)), codes)
    scores = [tiny_pipeline.score("a cat", images).log_likelihood for images in (pil, other, other[0])]
    assert torch.equal(scores[1], scores[0]) and torch.equal(scores[2], scores[0][:1])
    assert tiny_pipeline.rank("a cat", other).order == tiny_pipeline.rank("a cat", pil).order
    hole = np.zeros((16, 16), dtype=bool)
    hole[8:] = True
    painted = [tiny_pipeline.inpaint("a cat", images, hole, seed=3, progress_bar=False) for images in (pil, other)]
    assert torch.equal(painted[0].codes, painted[1].codes)


def test_import_is_light_and_starts_nothing():
    """No torch before a class is asked for; no training, no network, no seed after."""
    code = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("the network was asked for")
socket.socket.connect = socket.getaddrinfo = refuse
import pipelines
assert not {"torch", "transformers", "training", "huggingface_hub"} & set(sys.modules), sys.modules.keys()
import torch
state = torch.get_rng_state()
from pipelines import TextToImagePipeline, TextToImagePipelineOutput, pipeline
assert torch.equal(state, torch.get_rng_state())
assert not {"training", "datasets"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
