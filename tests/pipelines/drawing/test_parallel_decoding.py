"""A window of guessed codes paints the pictures of the loop that draws one code after the other, code for code."""

import copy

import pytest
import torch
from drawing import generate_codes
from other_prior import RecurrentPrior
from torch import Tensor

from pipelines import TextToImagePipeline
from pipelines.drawing.keys import draw_by_keys, draw_keys
from pipelines.drawing.pace import Pace, forget_pace, pace_of
from pipelines.drawing.rows import Rows
from pipelines.drawing.sampling import filter_logits, guide
from pipelines.drawing.settings import SamplingSettings

SETTINGS = [
    SamplingSettings(),
    SamplingSettings(guidance_scale=3.0),
    SamplingSettings(temperature=0.3, top_k=7, guidance_scale=1.5),
    SamplingSettings(temperature=(1.5, 0, 0.5), min_p=0.1, guidance_scale=4, guidance_region=(1, 0, 3, 2)),
    SamplingSettings(temperature=0.7, top_p=0.8),
]
WINDOWS = [1, 2, 3, 8, 16, 64, None]


@pytest.fixture(scope="module")
def embedded() -> TextToImagePipeline:
    return TextToImagePipeline.from_pretrained()


@pytest.fixture
def other_prior(tiny_tokenizer) -> RecurrentPrior:
    torch.manual_seed(3)
    return RecurrentPrior(len(tiny_tokenizer), codebook_size=32, grid_size=4).eval()


@pytest.fixture(params=["tiny_prior", "tiny_llama_prior", "other_prior"])
def prior(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def text_ids(tiny_tokenizer) -> Tensor:
    return tiny_tokenizer.encode_captions(["an armchair", "a red apple", "two cats"])


@torch.inference_mode()
def one_by_one(prior, captions: Tensor, keys: Tensor, settings: SamplingSettings, codes: Tensor, given: Tensor):
    """The loop of old: a look at one code of all rows at one place, guided over caches of their own."""
    hidden_states, caches = zip(*[prior.read(each) for each in (captions, prior.null(captions))], strict=True)
    logits = [prior.image_logits(hidden) for hidden in hidden_states]
    codes = codes.clone()
    for i, (temperature, scale) in enumerate(
        zip(settings.temperatures(codes.shape[1]), settings.guidance_scales(prior.config.grid_size), strict=True)
    ):
        if i > 0:
            place = torch.full((len(codes),), i - 1)
            logits = [prior.look(codes[:, [i - 1]], place, cache)[:, 0] for cache in caches]
        filtered = filter_logits(guide(*logits, scale), temperature, settings.top_k, settings.top_p, settings.min_p)
        codes[:, i] = codes[:, i].where(given[:, i], draw_by_keys(filtered, keys[:, i]))
    return codes


@pytest.mark.parametrize("given", ["nothing", "top", "anywhere"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_every_window_paints_the_same_pictures(prior, text_ids, settings, given):
    masks = {"nothing": torch.zeros(3, 16) > 0, "top": torch.arange(16).expand(3, 16) < 5}
    masks["anywhere"] = torch.rand(3, 16, generator=torch.Generator().manual_seed(4)) < 0.5
    keys, mask = draw_keys([5, 6, 7], 16), masks[given]
    codes = torch.randint(32, (3, 16), generator=torch.Generator().manual_seed(2))
    expected = one_by_one(prior, text_ids, keys, settings, codes, mask)
    for window in WINDOWS:
        drawn = generate_codes(prior, text_ids, keys, settings, fixed_codes=codes, fixed_mask=mask, window=window)
        assert torch.equal(drawn, expected), window


def test_a_callback_sees_each_code_in_order_in_any_window(prior, text_ids):
    keys = draw_keys([0, 1, 2], 16)
    for window in (1, 5, None):
        seen: list[tuple[int, Tensor]] = []
        codes = generate_codes(prior, text_ids, keys, window=window, callback=lambda *a, seen=seen: seen.append(a))
        assert [i for i, _ in seen] == list(range(16))
        assert all(torch.equal(partial, codes[:, : i + 1]) for i, partial in seen)


def test_good_guesses_save_passes(tiny_prior, text_ids):
    """Given codes guess themselves: of 16 in two columns of four every window stands as a whole."""
    keys, codes = draw_keys([0, 1, 2], 16), torch.ones(3, 16, dtype=torch.long)
    rows = Rows(tiny_prior, window=4)
    given = torch.arange(16).expand(3, 16) % 16 != 15
    given[:, 0] = False
    rows.add(text_ids, keys, SamplingSettings(), codes=codes, given=given)
    while len(rows):
        progress = rows.collect()
        if len(rows):
            rows.step()
    assert rows.passes == 4  # 1, then 4 each, and the last three
    assert progress.done == [16] * 3


def test_rows_join_and_leave_at_any_pass(prior, text_ids):
    """
    Of any settings, guided or not, given or free, some at rest for a while or for good: each picture is as it would be
    alone.
    """
    keys = draw_keys(list(range(8)), 16)
    mask = torch.arange(16) < 3
    nothing = torch.zeros(1, 16, dtype=torch.bool)
    rows, expected, drawn, resting = Rows(prior), {}, {}, []
    for i in range(8):
        settings, given = SETTINGS[i % 5], nothing if i % 3 else mask[None]
        caption, codes = text_ids[[i % 3]], torch.full((1, 16), i)
        others = None if settings.guidance_scale == 1 else prior.null(caption)
        one = {"codes": codes, "given": given, "other_captions": others}
        (name,) = rows.add(caption, keys[[i]], settings, **one)
        expected[name] = generate_codes(
            prior, caption, keys[[i]], settings, window=1, fixed_codes=codes, fixed_mask=given
        )[0]
        if i == 4:
            rows.take(name)
            del expected[name]
        if i in (2, 5):
            resting.append(rows.take(name))
        if i == 6:
            assert [rows.put(one) for one in resting] == [one.row.name for one in resting]
        for _ in range(2):
            progress = rows.collect()
            for name, done, codes in zip(*progress, strict=True):
                assert torch.equal(codes[:done], expected[name][:done])
                drawn |= {name: codes} if done == 16 else {}
            if len(rows):
                rows.step()
    while len(rows):
        progress = rows.collect()
        drawn |= {name: codes for name, done, codes in zip(*progress, strict=True) if done == 16}
        if len(rows):
            rows.step()
    assert drawn.keys() == expected.keys()
    assert all(torch.equal(drawn[name], expected[name]) for name in expected)


def test_the_noise_of_large_pictures_is_drawn_in_each_pass(tiny_prior, text_ids, monkeypatch):
    keys = draw_keys([0, 1, 2], 16)
    expected = generate_codes(tiny_prior, text_ids, keys)
    monkeypatch.setattr("pipelines.drawing.state.NOISE_BYTES", 2 * 16 * 32 * 4)
    assert torch.equal(generate_codes(tiny_prior, text_ids, keys), expected)


def test_a_prior_of_another_family_runs_the_whole_pipeline(tiny_pipeline, other_prior):
    pipeline = TextToImagePipeline(
        **tiny_pipeline.components | {"prior": other_prior}, sampling={"guidance_scale": 2.0, "top_k": 20}
    )
    options = {"seed": 3, "progress_bar": False}
    output = pipeline(["an armchair", "a red apple"], num_images_per_prompt=2, **options)
    assert torch.equal(pipeline("a red apple", **options).codes[0], output.codes[2])
    steered = pipeline("a red apple", negative_prompt="two cats", guidance_scale=8, **options)
    assert not torch.equal(steered.codes, pipeline("a red apple", guidance_scale=8, **options).codes)
    image, hole = output.images[0], torch.zeros(16, 16, dtype=torch.bool).numpy()
    hole[4:12, 4:12] = True
    kept = torch.ones(4, 4, dtype=torch.bool)
    kept[1:3, 1:3] = False
    codes = pipeline.encode_images(image)[0]
    assert torch.equal(pipeline.inpaint("a cat", image, hole, **options).codes[0][kept], codes[kept])
    assert torch.equal(pipeline.complete("a cat", image, rows=2, **options).codes[0, :2], codes[:2])
    assert pipeline.vary(image, strength=0.5, **options).codes.shape == (1, 4, 4)
    parts = list(pipeline.stream("a red apple", **options))
    assert [part.step for part in parts] == [4, 8, 12, 16] and torch.equal(parts[-1].codes[0], output.codes[2])
    score = pipeline.score("a red apple", output.codes)
    best = pipeline("a red apple", best_of=2, reranker="likelihood", **options)
    assert best.seeds[0] == 3 + int(score.log_likelihood[2:].argmax())
    assert best.scores[0] == pytest.approx(score.log_likelihood[2:].max().item(), abs=1e-3)


def dark(level: int) -> int:
    return 255 if level < 128 else 0


def painted(pipe):
    """What it knows: how an unfamiliar picture goes on it foresees less, and takes four fifths of the passes."""
    return pipe("cat face", seed=0, progress_bar=False).images[0]


CALLS = {
    "a name": lambda pipe, **o: pipe("rocket", **o),
    "names": lambda pipe, **o: pipe(["avocado", "red apple", "cat face", "octopus"], **o),
    "a composed prompt": lambda pipe, **o: pipe("a cat face beside a red apple", **o),
    "plain": lambda pipe, **o: pipe("rocket", guidance_scale=1, temperature=1.0, **o),
    "filtered": lambda pipe, **o: pipe("rocket", guidance_scale=3, top_k=50, top_p=0.9, min_p=0.02, **o),
    "a schedule": lambda pipe, **o: pipe("sailboat", temperature=[1.0, 0.3], negative_prompt="water", **o),
    "complete": lambda pipe, **o: pipe.complete("cat face", painted(pipe), **o),
    "inpaint": lambda pipe, **o: pipe.inpaint("cat face", pipe.samples, pipe.samples.convert("L").point(dark), **o),
    "vary": lambda pipe, **o: pipe.vary(pipe.samples, **o),
    "interpolate": lambda pipe, **o: pipe.interpolate("avocado", "armchair", steps=2, **o),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "a name" else pytest.mark.slow) for name in CALLS]
)
def test_the_embedded_model_paints_the_same_in_fewer_passes(embedded, name):
    outputs = {w: CALLS[name](embedded, seed=0, progress_bar=False, window=w) for w in (1, 8, 64, None)}
    assert all(torch.equal(output.codes, outputs[1].codes) for output in outputs.values())
    assert 0 < outputs[64].passes <= outputs[8].passes < 0.7 * outputs[1].passes
    assert 0 < outputs[1].passes <= 255 and 0 < outputs[None].passes <= 255


def test_the_window_is_the_fastest_of_those_measured():
    """A look whose time does not depend on its width takes the widest; one that costs each code, the narrowest."""
    for cost, best in ((lambda width: 1.0, 64), (lambda width: float(width), 1), (lambda width: 8.0 + width, 4)):
        pace, widths = Pace(), []
        for _ in range(200):
            width = pace.width(2, limit=256, telling=True)
            gain = width if best == 64 else min(4, width)
            if not pace.is_timed(2, width):
                pace.time(2, width, cost(width))
            pace.record(width, [gain])
            widths.append(width)
        assert widths[-160:].count(best) >= 130  # but for a glance now and then
        assert pace.width(2, limit=1, telling=True) == pace.width(99, limit=256, telling=False) == 1


def test_a_pace_is_one_priors_and_forgotten_when_it_changes(tiny_pipeline):
    prior = copy.deepcopy(tiny_pipeline.prior)
    assert pace_of(prior) is pace_of(prior) is not pace_of(tiny_pipeline.prior)
    before = pace_of(prior)
    forget_pace(prior)
    assert pace_of(prior) is not before


def test_outside_float32_a_picture_waits_for_no_measurement(tiny_pipeline):
    """Looks of other widths round otherwise, so that what is measured would decide what is painted."""
    half = copy.deepcopy(tiny_pipeline).to(torch.bfloat16)
    output, again, one_by_one = (
        half("an armchair", seed=0, window=window, progress_bar=False) for window in (None, None, 1)
    )
    assert output.passes == again.passes == one_by_one.passes == half.prior.config.grid_size**2 - 1
    assert torch.equal(output.codes, again.codes) and torch.equal(output.codes, one_by_one.codes)
    assert Rows(tiny_pipeline.prior).window is None and Rows(half.prior, window=8).window == 8
    with torch.autocast("cpu", torch.bfloat16):
        assert Rows(tiny_pipeline.prior).window == 1, "its weights are float32, its products are not"
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")  # TF32, on a GPU that has it
        assert Rows(tiny_pipeline.prior).window == 1
    finally:
        torch.set_float32_matmul_precision(precision)


def test_a_clock_that_tells_no_time_breaks_nothing():
    pace = Pace()
    for _ in range(40):
        width = pace.width(2, limit=256, telling=True)
        pace.time(2, width, 0.0)
        pace.record(width, [width])
    assert pace.width(2, limit=256, telling=True) >= 1


def test_rows_that_are_done_keep_no_memory(tiny_prior, text_ids):
    rows, given = Rows(tiny_prior), torch.zeros(3, 16) > 0
    names = rows.add(text_ids, draw_keys([0, 1, 2], 16), SamplingSettings(), codes=given.long(), given=given)
    resting = [rows.take(name) for name in names]
    assert len(rows) == 0 and not hasattr(rows, "_cache") and not hasattr(rows, "_state")
    assert [rows.put(each) for each in resting] == names and len(rows) == 3
