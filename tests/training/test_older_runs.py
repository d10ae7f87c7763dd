"""What an older version left is read: its pipeline says the same, its codes are kept, its runs go on."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from processes import ROOT

from pipelines import TextToImagePipeline
from training import train_dvae, train_prior

OLDER = ROOT / "tests/support/older_run"
PROMPTS = ["a red square", "a green square", "a blue square"]


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """A copy of it, from whose folder its preset is used."""
    shutil.copytree(OLDER, tmp_path / "older")
    for picture in (tmp_path / "older/pictures").iterdir():
        os.utime(picture, ns=(10**18, 10**18))  # a cache knows its pictures by the time of their last change, too
    monkeypatch.chdir(tmp_path / "older")
    return tmp_path / "older" / "run"


def test_its_pipeline_says_what_it_said():
    pipeline, said = (
        TextToImagePipeline.from_pretrained(OLDER / "run/pipeline"),
        json.loads((OLDER / "said.json").read_text()),
    )
    codes = pipeline.encode_images([Image.open(OLDER / f"pictures/{i}.png") for i in range(3)])
    assert codes.flatten(1).tolist() == said["codes"]
    assert pipeline.decode_codes(codes).mean((1, 2, 3)).tolist() == pytest.approx(said["mean_pixel"], abs=1e-4)
    score = pipeline.score(PROMPTS, codes)
    torch.testing.assert_close(score.log_likelihood.cpu(), torch.tensor(said["log_likelihood"]), rtol=0, atol=1e-3)


def test_its_codes_are_kept_and_its_prior_goes_on(run):
    shards = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.rglob("codes-*.parquet")}
    assert len(shards) == 2
    train_prior.main(["preset.yaml", "--training.resume_from", "latest", "--training.steps", "24"])
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.rglob("codes-*.parquet")} == shards
    steps = [json.loads(line)["step"] for line in (run / "prior-log.jsonl").read_text().splitlines()]
    assert steps[-1] == 24 and steps.count(20) == 2 and steps.count(21) == 1, "a step's line and its evaluation's"


def test_its_dvae_goes_on(run):
    flags = ["--training.resume_from", "latest", "--training.steps", "24"]
    train_dvae.main(["preset.yaml", *flags])
    steps = [json.loads(line)["step"] for line in (run / "dvae-log.jsonl").read_text().splitlines()]
    assert steps[-1] == 24 and steps.count(21) == 1
