"""The reranker's trainer: draws that depend on their place alone, a run resumed, and what the pipeline gets of it."""

import json
import os

import numpy as np
import pytest
import torch
import yaml
from messages import holds, refused
from PIL import Image
from processes import run_processes
from safetensors.torch import load_file

from dvae import DVAE
from pipelines import TextToImagePipeline
from pipelines.judges.small_clip import SmallCLIP
from prior_transformer import PriorTokenizer
from training import finish, train_reranker
from training.pictures.data_arguments import DataArguments
from training.pictures.in_memory import Pictures
from training.pictures.splits import load_split

COLOURS = {"red": (255, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 255), "yellow": (240, 220, 0)}


def square(colour: str, height: int = 12) -> Image.Image:
    picture = np.full((20, 20, 3), 255, np.uint8)
    picture[4 : 4 + height, 4:16] = COLOURS[colour]
    return Image.fromarray(picture)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> str:
    """60 squares on white, their colour as caption."""
    folder = tmp_path_factory.mktemp("squares")
    with (folder / "metadata.jsonl").open("w") as metadata:
        for i in range(60):
            colour = list(COLOURS)[i % 4]
            square(colour, height=12 - i % 3).save(folder / f"{i}.png")
            metadata.write(json.dumps({"file_name": f"{i}.png", "text": f"a {colour} square"}) + "\n")
    return str(folder)


@pytest.fixture
def preset(pictures, tiny_dvae: DVAE, tiny_tokenizer: PriorTokenizer, tmp_path) -> list[str]:
    """The arguments of a run of a few seconds."""
    tiny_tokenizer.save_pretrained(tmp_path / "run" / "tokenizer")
    tiny_dvae.save_pretrained(tmp_path / "run" / "dvae")
    loop = {
        "batch_size": 16,
        "lr": 5e-3,
        "warmup_steps": 0,
        "steps": 120,
        "evaluate_every": 100,
        "checkpoint_every": 7,
    }
    sections = {
        "output_dir": str(tmp_path / "run"),
        "data": {"path": pictures},
        "reranker": {
            "model": {"projection_dim": 16, "width": 8},
            "training": {**loop, "bpe_dropout": 0.0, "ema": 0.9},
        },
    }
    (tmp_path / "preset.yaml").write_text(yaml.safe_dump(sections))
    return [str(tmp_path / "preset.yaml")]


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "reranker" / "model.safetensors")


@pytest.mark.seeds(1)
def test_it_learns_and_goes_into_the_pipeline(
    preset, tiny_prior, tiny_tokenizer, tmp_path, capsys, seed, record_property
):
    run = tmp_path / "run"
    train_reranker.main([*preset, "--training.seed", str(seed)])
    told = json.loads((run / "reranker" / "metrics.json").read_text())
    record_property("R-precision", told["validation_r_precision"])
    assert told["step"] == 120 and told["validation_r_precision"] >= 0.75, "chance is 0.25"
    assert json.loads((run / "reranker" / "recipe.json").read_text())["batch_size"] == 16
    tiny_prior.save_pretrained(run / "prior")
    finish.main([preset[0], "--data.path", str(tmp_path)])
    pipeline = TextToImagePipeline.from_pretrained(run / "pipeline")
    assert pipeline.reranker.config.image_size == pipeline.dvae.config.image_size
    assert pipeline.recipe["reranker"]["steps"] == 120 and pipeline.metrics["reranker"] == told
    squares = [square(colour) for colour in COLOURS]
    logits = torch.stack([pipeline.rank(f"a {c} square", squares, by="reranker").scores for c in COLOURS])
    right = (logits.argmax(1) == torch.arange(4)).sum().item()
    record_property("colours told apart", right)
    assert right >= 3
    PriorTokenizer.train(["other words"], vocab_size=300, text_length=6).save_pretrained(run / "reranker")
    capsys.readouterr()
    finish.main([preset[0], "--data.path", str(tmp_path)])
    assert holds(capsys.readouterr().out, run / "reranker"), "learned with another tokenizer"
    without = TextToImagePipeline.from_pretrained(run / "pipeline")
    assert without.reranker is None and "reranker" not in without.metrics | without.recipe
    (run / "reranker" / "tokenizer.json").unlink()  # killed before it was whole
    finish.main([preset[0], "--data.path", str(tmp_path)])


@pytest.mark.parametrize("streaming", ["false", "true"])
def test_a_resumed_run_equals_one_that_never_stopped(streaming, preset, tmp_path):
    preset += ["--data.streaming", streaming]
    train_reranker.main([*preset, "--training.steps", "20"])
    whole = weights(tmp_path / "run")
    other = ["--output_dir", str(tmp_path / "other"), "--training.tokenizer", str(tmp_path / "run" / "tokenizer")]
    for name in ("dvae", "tokenizer"):
        (tmp_path / "other").mkdir(exist_ok=True)
        os.symlink(tmp_path / "run" / name, tmp_path / "other" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_reranker, "report", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train_reranker.main([*preset, *other, "--training.steps", "20", "--training.evaluate_every", "14"])
    train_reranker.main([*preset, *other, "--training.steps", "20", "--training.resume_from", "latest"])
    assert whole.keys() == weights(tmp_path / "other").keys()
    for name, tensor in weights(tmp_path / "other").items():
        assert torch.equal(tensor, whole[name]), name


def test_a_spoilt_step_leaves_no_moments_behind(preset, tmp_path, monkeypatch):
    calls, augment = [], train_reranker.augment

    def spoilt(pixel_values):
        calls.append(1)
        return augment(pixel_values) * (torch.nan if len(calls) == 3 else 1.0)

    monkeypatch.setattr(train_reranker, "augment", spoilt)
    reranker = train_reranker.main([*preset, "--training.steps", "4"])
    assert len(calls) == 4
    assert all(tensor.isfinite().all() for tensor in [*reranker.buffers(), *weights(tmp_path / "run").values()])
    assert reranker.image[1].num_batches_tracked == 3


def test_draws_depend_on_their_place_and_equal_ones_are_told(pictures):
    data = DataArguments(path=pictures)
    drawn = train_reranker.CaptionedPictures(Pictures(load_split(data, "train"), data, 16), 200, 0, scenes=0.0)
    image, text, shown = drawn[17]
    again = drawn[17]
    assert torch.equal(image, again[0]) and (text, shown) == again[1:]
    texts = [drawn[i][1] for i in range(57)]
    assert set(texts) == {f"a {colour} square" for colour in COLOURS}
    assert len({drawn[i][2] for i in range(57)}) == 4, "equal captions show the same"


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--model", '{"widht": 8}'], ["'widht'", "width"]),
        (["--training.compile", "true"], ["compile"]),
        (["--training.init_from", "embedded"], ["init_from='embedded'"]),
        (["--training.batch_size", "15", "--training.gradient_accumulation_steps", "2"], ["batch_size=15", 2]),
    ],
)
def test_what_cannot_be_is_refused(preset, flags, parts):
    with refused(ValueError, *parts):
        train_reranker.main([*preset, *flags])


@pytest.mark.slow
def test_two_processes_learn_one_reranker(preset, tmp_path):
    run_processes("-m", "training.train_reranker", *preset)
    told = json.loads((tmp_path / "run" / "reranker" / "metrics.json").read_text())
    assert told["validation_r_precision"] >= 0.75
    assert SmallCLIP.from_pretrained(tmp_path / "run" / "reranker").config.width == 8
