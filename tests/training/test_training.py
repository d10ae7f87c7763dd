"""The three trainers on a user's own pictures: a folder with metadata.jsonl, from nothing to a saved pipeline."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from messages import holds, refused
from PIL import Image as PillowImage
from processes import ROOT, run_processes
from safetensors.torch import load_file

from dvae import DVAE
from pipelines import TextToImagePipeline
from prior_transformer import PriorTokenizer
from training import encode_dataset, evaluate, finish, train_dvae, train_prior, train_tokenizer
from training.loop.fingerprints import tokenizer_digest
from training.loop.states import load_state

ADVERSARIES = {
    "--model.posterior": "implicit",
    "--training.pixel_adversary": '{"num_layers": 1, "width": 8, "start": 8, "warmup": 4, "r1_gamma": 1.0}',
    "--training.posterior_adversary": '{"width": 8, "start": 6, "warmup": 6, "draws": 2}',
    "--model.style_size": "3",
    "--model.style_prior": "flow",
    "--training.style_adversary": '{"width": 8, "start": 5, "warmup": 5, "draws": 4}',
}
WITH_ADVERSARIES = [part for pair in ADVERSARIES.items() for part in pair]


def losses(log: Path) -> list[float]:
    """The prior's loss, or the dVAE's reconstruction loss: in its whole loss β grows, and adversaries speak up."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line.get("reconstruction_loss", line["loss"]) for line in lines if "loss" in line]


def test_from_a_folder_of_pictures_to_a_pipeline_that_paints(preset, pictures, tmp_path, capsys):
    train_tokenizer.main([preset])
    train_dvae.main([preset])
    train_prior.main([preset])
    run = tmp_path / "run"
    for name in ("dvae", "prior"):
        curve = losses(run / f"{name}-log.jsonl")
        assert len(curve) == 40 and np.mean(curve[-5:]) < np.mean(curve[:5])
        assert list((run / f"{name}-pictures").glob("*.png"))
        checkpoint = run / f"{name}-checkpoints" / "step-0000040"
        weights, average, optimizer = (
            load_state(checkpoint / f"{part}.safetensors") for part in ("model", "average", "optimizer")
        )
        for key, tensor in load_file(run / name / "model.safetensors").items():
            assert torch.equal(tensor, average["tensors"][key]), "the average is what is saved"
        assert any(not torch.equal(average["tensors"][key], tensor) for key, tensor in weights.items())
        last = json.loads((run / f"{name}-log.jsonl").read_text().splitlines()[-2])
        lr = optimizer["param_groups"][0]["lr"]
        assert lr == pytest.approx(last["lr"], rel=1e-4) and lr < 2e-3 / 2, "the schedule reaches the optimiser"
    pipeline = TextToImagePipeline.from_pretrained(run / "pipeline")
    picture = pipeline("a red square", seed=0, progress_bar=False).images[0]
    assert picture.size == (16, 16)
    metrics = json.loads((run / "pipeline" / "model_index.json").read_text())["metrics"]
    assert {"psnr", "elbo", "bits_per_dim", "perplexity", "codes_used"} <= metrics["dvae"].keys()
    assert {"validation_text_loss", "validation_image_loss"} <= metrics["prior"].keys()
    samples = (run / "pipeline" / "samples.png").read_bytes()
    (run / "dvae").rename(tmp_path / "elsewhere")
    finish.main([preset, "--training.dvae", str(tmp_path / "elsewhere")])
    assert (run / "pipeline" / "samples.png").read_bytes() == samples, "the same prompts"
    capsys.readouterr()
    evaluate.main(["--model", str(run / "pipeline"), "--data.path", str(pictures)])
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert float(printed["psnr"]) == pytest.approx(metrics["dvae"]["psnr"], abs=0.2)  # half precision between them


def test_a_preset_of_scenes_takes_captioned_pictures_by_their_path_alone(preset, tmp_path, capsys):
    """And the picture of a dVAE's evaluation has the 2 held-out pictures above, their reconstructions below."""
    few, run = ["--training.steps", "2"], tmp_path / "run"
    scenes, cached = ["--data.scenes", "0.5"], ["--training.cached_scenes", "9", "--training.scene_share", "0.5"]
    train_tokenizer.main([preset, *scenes])
    train_dvae.main([preset, *scenes, *few, "--training.decoder_steps", "0"])
    assert sum(holds(line, "scenes", 0) for line in capsys.readouterr().out.splitlines()) == 2
    with PillowImage.open(run / "dvae-pictures" / "reconstructions-0000002.png") as picture:
        assert picture.size == (2 + 2 * 18, 2 + 2 * 18)
    encode_dataset.main([preset, *cached])
    train_prior.main([preset, *scenes, *cached, *few])
    told = [line for line in capsys.readouterr().out.splitlines() if holds(line, "cached_scenes", "scene_share", 0)]
    assert [holds(line, "scenes, cached_scenes") for line in told] == [False, True]
    assert json.loads((run / "prior" / "recipe.json").read_text())["scene_share"] == 0


def test_a_prior_goes_on_with_its_own_tokenizer_alone(preset, tmp_path, capsys):
    short = [preset, "--training.steps", "2"]
    train_tokenizer.main([preset])
    train_dvae.main([*short, "--training.decoder_steps", "0"])
    train_prior.main(short)
    kept = (tmp_path / "run" / "tokenizer" / "tokenizer.json").read_bytes()
    train_tokenizer.main([preset, "--training.keep", "true", "--training.vocab_size", "290"])
    assert (tmp_path / "run" / "tokenizer" / "tokenizer.json").read_bytes() == kept
    with refused(ValueError, "text_length=6", "vocab_size=280", "text_length=7"):
        train_tokenizer.main([preset, "--training.keep", "true", "--training.text_length", "7"])
    other = PriorTokenizer.train(["some other words"], vocab_size=280, text_length=6)
    other.save_pretrained(tmp_path / "other")
    progress = tmp_path / "run" / "prior-checkpoints" / "step-0000002" / "progress.json"
    facts = json.loads(progress.read_text())
    with refused(ValueError, facts.pop("tokenizer"), tokenizer_digest(other), "--training.tokenizer"):
        train_prior.main([*short, "--training.resume_from", "latest", "--training.tokenizer", str(tmp_path / "other")])
    progress.write_text(json.dumps(facts))  # as a checkpoint of before
    train_prior.main([*short, "--training.resume_from", "latest"])


STUB = """#!/usr/bin/env bash
[ "$1" != -c ] || { echo 0; exit; }
case "$*" in
    *train_prior*--training.dvae*--print_config | *train_prior*named.yaml*--print_config) echo "  dvae: vq" ;;
    *train_prior*started.yaml*--print_config) printf "  dvae: null\n  init_from: embedded\n" ;;
esac
echo "$(basename "$0") $*" >> "$LOG"
"""


def test_the_speedrun_hands_each_trainer_the_flags_it_takes(tmp_path):
    for name in ("python", "torchrun"):
        (tmp_path / name).write_text(STUB)
        (tmp_path / name).chmod(0o755)

    def speedrun(*argv: str) -> subprocess.CompletedProcess:
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(tmp_path / "log")}
        script = ROOT / "training" / "speedrun.sh"
        return subprocess.run(["bash", str(script), *argv], env=environment, capture_output=True, text=True)

    flags = ["--data.path", "my pictures", "--training.seed=3", "--output_dir", "runs/mine"]
    mine = tmp_path / "mine.yaml"
    for text, names in (("prior: {}\n", ["dvae", "prior"]), ("reranker: {}\n", ["dvae", "reranker", "prior"])):
        mine.write_text(text)
        (tmp_path / "log").unlink(missing_ok=True)
        speedrun(str(mine), *flags).check_returncode()
        lines = [line.split(maxsplit=1)[1] for line in (tmp_path / "log").read_text().splitlines()]
        shared, loops = f"{mine} --data.path my pictures --output_dir runs/mine", "--training.resume_from latest"
        parts = [f"train_{name} {shared} {loops} --training.seed=3" for name in names]
        assert lines[: len(names)] == [f"-m training.{part} --print_config" for part in parts]
        launched = [f"train_tokenizer {shared} --training.keep true", *parts]
        assert lines[len(names) :] == [f"-m training.{part}" for part in launched]
    (tmp_path / "log").unlink()
    own = ["--prior.model.hidden_size", "64", "--tokenizer.captions=9", "--dvae.model.widths", "[8, 8]", *flags[:2]]
    speedrun(str(mine), *own).check_returncode()
    lines = (tmp_path / "log").read_text().splitlines()
    common, launched = f"{mine} --data.path my pictures", [line.split("training.train_")[1] for line in lines[3:]]
    assert launched == [
        f"tokenizer {common} --training.keep true --training.captions=9",
        f"dvae {common} {loops} --model.widths [8, 8]",
        f"reranker {common} {loops}",
        f"prior {common} {loops} --model.hidden_size 64",
    ]
    (tmp_path / "log").unlink()
    speedrun(str(mine), "2", *flags[:2]).check_returncode()
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[3] == f"torchrun --nproc_per_node 2 -m training.train_tokenizer {common} --training.keep true"
    (tmp_path / "log").unlink()
    speedrun(str(mine), *flags[:2], "--dry_run", "{gpus: 2}").check_returncode()
    lines = (tmp_path / "log").read_text().splitlines()
    asked = f"{common} {loops} --dry_run {{gpus: 2}}"
    assert lines[3:] == [f"python -m training.train_{part} {asked}" for part in ("dvae", "prior")]
    (tmp_path / "log").unlink()
    speedrun(str(mine), "--training.dvae", "my vq").check_returncode()
    assert [line.split("training.train_")[1] for line in (tmp_path / "log").read_text().splitlines()[3:]] == [
        f"tokenizer {mine} --training.keep true",
        f"reranker {mine} {loops} --training.dvae=vq --training.dvae my vq",
        f"prior {mine} {loops} --training.dvae my vq",
    ]
    for name, text, launched in (
        ("named", "reranker: {}\n", ["tokenizer", "reranker", "prior"]),
        ("started", "prior: {}\n", ["prior"]),
        ("started", "dvae: {}\n", ["dvae", "prior"]),
    ):
        (tmp_path / f"{name}.yaml").write_text(text)
        (tmp_path / "log").unlink()
        speedrun(str(tmp_path / f"{name}.yaml")).check_returncode()
        lines = [line for line in (tmp_path / "log").read_text().splitlines() if "--print_config" not in line]
        assert [line.split("training.train_")[1].split()[0] for line in lines] == launched
        assert all(holds(line, "--training.dvae=vq") for line in lines if "reranker" in line)
    stopped = speedrun("--model.hidden_size", "9")
    assert stopped.returncode == 2 and holds(stopped.stderr, "--model.hidden_size")


def test_a_resumed_run_equals_one_that_never_stopped(preset, tmp_path):
    """The checkpoint is written before an evaluation, which must not move the random generators."""
    train_tokenizer.main([preset])
    for trainer, name, noise in ((train_dvae, "dvae", []), (train_prior, "prior", ["--model.dropout", "0.1"])):
        flags = [preset, *noise, "--training.evaluate_every", "20"]
        whole = trainer.main(flags).state_dict()
        folder = tmp_path / "run" / f"{name}-checkpoints"
        resumed = trainer.main([*flags, "--training.resume_from", str(folder / "step-0000020")]).state_dict()
        for key, value in whole.items():
            assert torch.equal(value, resumed[key]), key


def test_an_evaluation_that_fails_loses_no_step_and_is_made_up_for(preset, tmp_path, monkeypatch):
    flags = ["--training.steps", "4", "--training.evaluate_every", "2", "--training.decoder_steps", "0"]
    flags += ["--training.autoencoder_steps", "3"]
    report = train_dvae.report

    def fails(*args):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(train_dvae, "report", fails)
    checkpoints = tmp_path / "run" / "dvae-checkpoints"
    for left in (["step-0000002"], ["step-0000002", "step-0000004"]):
        with pytest.raises(RuntimeError, match="out of memory"):
            resume = ["--training.resume_from", "latest", "--training.checkpoint_every", "2"]
            train_dvae.main([preset, *flags, *resume])
        assert sorted(path.name for path in checkpoints.iterdir()) == left
    monkeypatch.setattr(train_dvae, "report", report)
    train_dvae.main([preset, *flags, "--training.resume_from", "latest"])
    assert json.loads((tmp_path / "run" / "dvae" / "metrics.json").read_text())["step"] == 4


def test_a_run_with_adversaries_resumes_and_leaves_them_out_of_the_model(preset, tmp_path):
    whole = train_dvae.main([preset, *WITH_ADVERSARIES])
    folder = tmp_path / "run"
    networks = {path: load_file(path) for path in sorted((folder / "adversaries").glob("*/model.safetensors"))}
    assert [path.parent.name for path in networks] == ["pixel", "posterior", "style"]
    checkpoint = str(folder / "dvae-checkpoints" / "step-0000020")
    resumed = train_dvae.main([preset, *WITH_ADVERSARIES, "--training.resume_from", checkpoint])
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    for path, weights in networks.items():
        again = load_file(path)
        assert all(torch.equal(weights[key], again[key]) for key in weights)
    assert load_file(folder / "dvae" / "model.safetensors").keys() == DVAE(whole.config).state_dict().keys()
    numbers = json.loads((folder / "dvae-log.jsonl").read_text().splitlines()[30])
    assert {
        "adversarial_weight",
        "pixel_discriminator_loss",
        "pixel_r1",
        "kl_ratio",
        "style_kl_ratio",
    } <= numbers.keys()


def test_gradient_accumulation_takes_the_step_of_the_whole_batch(preset, tmp_path):
    """The dVAE draws Gumbel noise, so the warm-up without codes is compared, at its end."""
    warm = ["--training.steps", "4", "--training.autoencoder_steps", "3", "--training.checkpoint_every", "3"]
    warm += ["--training.decoder_steps", "0"]
    states = []
    for parts in ("1", "2"):
        train_dvae.main(
            [preset, *warm, "--output_dir", str(tmp_path / parts), "--training.gradient_accumulation_steps", parts]
        )
        states.append(load_state(tmp_path / parts / "dvae-checkpoints" / "step-0000003" / "model.safetensors"))
    for key, value in states[0].items():
        torch.testing.assert_close(value, states[1][key], atol=2e-4, rtol=1e-3)


def test_a_resumed_runs_codebook_is_filled_once(preset, tmp_path):
    """Steps of another number move the end of a warm-up that is a share of them: not past the checkpoint."""
    share = [preset, "--training.autoencoder_steps", "50%", "--training.decoder_steps", "0"]
    train_dvae.main([*share, "--training.steps", "6", "--training.checkpoint_every", "2"])
    resume = [*share, "--training.resume_from", str(tmp_path / "run" / "dvae-checkpoints" / "step-0000004")]
    with refused(ValueError, "step 4", "autoencoder_steps=3", 4):
        train_dvae.main([*resume, "--training.steps", "8"])
    assert not list((tmp_path / "run" / "dvae-checkpoints").glob("aside-*")), "a refused run changes nothing"
    train_dvae.main([*resume, "--training.steps", "7", "--training.autoencoder_steps", "3"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trainer", "flags"), [("train_dvae", []), ("train_dvae", WITH_ADVERSARIES), ("train_prior", [])]
)
def test_two_processes_end_with_equal_weights_and_a_lower_loss(trainer, flags, preset, tmp_path):
    if trainer == "train_prior":
        train_tokenizer.main([preset])
        train_dvae.main([preset])
    run_processes("two_processes.py", trainer, str(tmp_path / "digests.json"), preset, *flags)
    first, second = json.loads((tmp_path / "digests.json").read_text())
    assert first == second
    curve = losses(tmp_path / "run" / f"{trainer.removeprefix('train_')}-log.jsonl")
    assert np.mean(curve[-5:]) < np.mean(curve[:5])


def test_the_prior_says_which_trainer_comes_first(preset):
    with refused(FileNotFoundError, "training.train_dvae", "--training.dvae"):
        train_prior.main([preset])
