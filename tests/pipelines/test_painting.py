"""What steers a call, its stream of partial pictures, and the best of several."""

import copy
from dataclasses import asdict

import numpy as np
import pytest
import torch
from messages import refused

from pipelines import TextToImagePipeline
from pipelines.drawing.settings import SamplingSettings
from pipelines.steps import NOT_DRAWN

PROMPTS = ["an armchair", "a red apple"]


def paint(pipeline, prompt, **arguments):
    return pipeline(prompt, progress_bar=False, **arguments)


def test_the_empty_prompt_is_the_empty_caption(tiny_pipeline):
    text_ids = tiny_pipeline.prior.null_text_ids(2)
    assert torch.equal(tiny_pipeline.encode_prompt(["", ""]), text_ids)
    output = paint(tiny_pipeline, "", num_images_per_prompt=2, seed=1, guidance_scale=3)
    assert torch.equal(output.codes, tiny_pipeline.generate_codes(text_ids, seed=[1, 2], guidance_scale=1))


def test_a_negative_prompt_takes_the_empty_captions_place(tiny_pipeline):
    """At scale 0 it is what is painted; "" is the caption of old; a list has one a prompt."""
    both = paint(tiny_pipeline, PROMPTS, negative_prompt=PROMPTS[::-1], seed=3, guidance_scale=0)
    assert torch.equal(both.codes, paint(tiny_pipeline, PROMPTS[::-1], seed=3, guidance_scale=1).codes)
    one = paint(tiny_pipeline, PROMPTS, negative_prompt="two cats", num_images_per_prompt=2, seed=3)
    ids = tiny_pipeline.encode_prompt([*PROMPTS, "two cats", "two cats"])
    steps = tiny_pipeline.generate_codes(ids[:2], negative_text_ids=ids[2:], num_images_per_prompt=2, seed=3)
    assert torch.equal(one.codes, steps)
    plain = paint(tiny_pipeline, PROMPTS, num_images_per_prompt=2, seed=3)
    assert not torch.equal(one.codes, plain.codes)
    empty = paint(tiny_pipeline, PROMPTS, negative_prompt="", num_images_per_prompt=2, seed=3)
    assert torch.equal(empty.codes, plain.codes)


def test_guidance_holds_in_its_region_alone(tiny_pipeline):
    """Before the region the picture is the unguided one, and over all of the grid the guided one."""
    plain = paint(tiny_pipeline, PROMPTS, seed=0, guidance_scale=1)
    below = paint(tiny_pipeline, PROMPTS, seed=0, guidance_scale=8, guidance_region=(0, 2, 4, 4))
    everywhere = paint(tiny_pipeline, PROMPTS, seed=0, guidance_scale=8, guidance_region=(0, 0, 4, 4))
    assert torch.equal(below.codes[:, :2], plain.codes[:, :2])
    assert not torch.equal(below.codes[:, 2:], plain.codes[:, 2:])
    assert torch.equal(everywhere.codes, paint(tiny_pipeline, PROMPTS, seed=0, guidance_scale=8).codes)


def test_a_temperature_schedule(tiny_pipeline):
    """A list of one value is that value; a schedule that begins at 0 begins with the likeliest code."""
    assert SamplingSettings(temperature=[1, 0.5]).temperatures(5) == [1, 0.875, 0.75, 0.625, 0.5]
    assert SamplingSettings(temperature=[0, 4, 1]).temperatures(5) == [0, 2, 4, 2.5, 1]
    assert SamplingSettings(temperature=[2]).temperatures(1) == [2]
    single = paint(tiny_pipeline, PROMPTS, seed=0, temperature=[0.7])
    assert torch.equal(single.codes, paint(tiny_pipeline, PROMPTS, seed=0, temperature=0.7).codes)
    rising = paint(tiny_pipeline, PROMPTS, seed=0, temperature=[0, 9])
    assert torch.equal(rising.codes[:, 0, 0], paint(tiny_pipeline, PROMPTS, temperature=0).codes[:, 0, 0])


@pytest.mark.parametrize(
    ("every", "steps"), [(None, [4, 8, 12, 16]), (1, [*range(1, 17)]), (7, [7, 14, 16]), (99, [16])]
)
def test_stream(tiny_pipeline, every, steps):
    """Its codes are the start of the call's, the rest −1 and grey; its last item is what the call returns."""
    arguments = {"num_images_per_prompt": 2, "seed": 5, "output_type": "pt"}
    whole = paint(tiny_pipeline, PROMPTS, **arguments)
    parts = list(tiny_pipeline.stream(PROMPTS, every=every, progress_bar=False, **arguments))
    assert [part.step for part in parts] == steps
    for part in parts:
        drawn = torch.arange(16).view(4, 4) < part.step
        assert torch.equal(part.codes, whole.codes.where(drawn, -1))
        assert not part.codes.is_inference()
        pixels = drawn.repeat_interleave(4, 0).repeat_interleave(4, 1)  # (16, 16)
        assert (part.images[:, :, ~pixels] == NOT_DRAWN).all()
        assert (part.images[:, :, pixels] != NOT_DRAWN).float().mean() > 0.9
        assert (part.total, part.prompts, part.seeds, part.sampling) == (
            16,
            whole.prompts,
            whole.seeds,
            whole.sampling,
        )
    assert torch.equal(parts[-1].images, whole.images)


def test_a_stream_left_early_stops_and_leaves_all_as_it_was(tiny_pipeline):
    """No code is drawn after the last one seen; no gradient or dropout mode is changed in the loop's body or after."""
    seen, pipeline = [], copy.deepcopy(tiny_pipeline)
    stream = pipeline.stream("an armchair", seed=0, every=2, callback=lambda i, codes: seen.append(i))
    assert seen == []  # nothing before the first item is asked for
    pipeline.prior.train()
    for output in stream:
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        if output.step == 6:
            break
    stream.close()
    assert seen == [*range(6)]
    assert pipeline.prior.training
    pipeline.prior.eval()


def test_best_of_keeps_the_best_of_each_picture(tiny_pipeline):
    """The argmax of the scores of the pictures painted alone, by each judge; its own seed paints it again."""
    candidates = paint(tiny_pipeline, PROMPTS, num_images_per_prompt=6, seed=20)
    score = tiny_pipeline.score(candidates.prompts, candidates.codes)
    brightness = torch.tensor([np.asarray(image).mean() for image in candidates.images])
    judges = {
        "pmi": score.pmi,
        "likelihood": score.log_likelihood,
        lambda prompts, images: torch.tensor([np.asarray(image).mean() for image in images]): brightness,
    }
    for judge, scores in judges.items():
        best = scores.view(4, 3).argmax(dim=1) + torch.arange(0, 12, 3)
        output = paint(tiny_pipeline, PROMPTS, num_images_per_prompt=2, best_of=3, reranker=judge, seed=20)
        assert output.prompts == ["an armchair"] * 2 + ["a red apple"] * 2
        assert output.seeds == [candidates.seeds[i] for i in best]
        assert torch.equal(output.codes, candidates.codes[best])
        torch.testing.assert_close(output.scores, scores[best].float(), atol=1e-3, rtol=1e-4)
    again = paint(tiny_pipeline, PROMPTS, num_images_per_prompt=2, seed=output.seeds)
    assert torch.equal(again.codes, output.codes) and again.scores is None
    default = paint(tiny_pipeline, PROMPTS, num_images_per_prompt=2, best_of=3, seed=20)
    likeliest = score.log_likelihood.view(4, 3).argmax(dim=1) + torch.arange(0, 12, 3)
    assert default.seeds == [candidates.seeds[i] for i in likeliest]


def test_a_regions_own_pipeline_may_be_unguided(tiny_pipeline):
    """So what an output says of its settings always paints it again."""
    sampling = {"guidance_scale": 2.0, "guidance_region": [0, 0, 2, 2]}
    own = TextToImagePipeline(**tiny_pipeline.components, sampling=sampling)
    output = paint(own, PROMPTS, seed=0, guidance_scale=1)
    assert torch.equal(paint(own, PROMPTS, seed=0, **asdict(output.sampling)).codes, output.codes)


@pytest.mark.parametrize(
    ("arguments", "error", "parts"),
    [
        ({"negative_prompt": "a cat", "guidance_scale": 1}, ValueError, ["'a cat'", "guidance_scale=1"]),
        ({"negative_prompt": 7}, TypeError, [7, "int"]),
        ({"negative_prompt": ["a", "b"]}, ValueError, [2, 1]),
        ({"guidance_region": (0, 0, 5, 4)}, ValueError, ["(0, 0, 5, 4)", "4×4"]),
        ({"min_p": 1.5}, ValueError, ["min_p=1.5", 1]),
        ({"temperature": [1, -1]}, ValueError, ["temperature=-1", 0]),
        ({"best_of": 0}, ValueError, ["best_of=0", 1]),
        ({"best_of": 2.0}, TypeError, ["best_of=2.0", "float"]),
        ({"best_of": 2, "reranker": 7}, TypeError, ["reranker=7", "'pmi'"]),
        ({"reranker": "pmi"}, ValueError, ["reranker='pmi'", "best_of=1"]),
        ({"guidance_region": (0, 0, 2, 2), "guidance_scale": 1}, ValueError, ["(0, 0, 2, 2)", "guidance_scale=1"]),
        ({"best_of": 2, "seed": [1]}, ValueError, [1, 2]),
        ({"best_of": 2, "reranker": lambda prompts, images: torch.zeros(7)}, ValueError, ["(7,)", 2]),
    ],
)
def test_what_cannot_be_used_is_refused(tiny_pipeline, arguments, error, parts):
    with refused(error, *parts):
        tiny_pipeline("a cat", progress_bar=False, **arguments)


def test_a_stream_refuses_at_once(tiny_pipeline):
    for arguments, error, parts in [
        ({"every": 0}, ValueError, ["every=0", 1]),
        ({"every": 1.5}, TypeError, ["every=1.5"]),
        ({"top_k": 33}, ValueError, ["top_k=33", 32]),
        ({"tempreature": 1}, TypeError, ["tempreature"]),
        ({"given": 3}, TypeError, ["given"]),
    ]:
        with refused(error, *parts):
            tiny_pipeline.stream("a cat", **arguments)
    with refused(ValueError, "'pmi'", "'likelihood'"):
        paint(tiny_pipeline, ["a cat", ""], best_of=2, reranker="pmi")
