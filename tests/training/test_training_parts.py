"""Schedules, k-means, presets."""

import math
from pathlib import Path

import pytest
import torch
import yaml

from training.adversaries.adversary_settings import PixelSettings
from training.codes.kmeans import assign, kmeans
from training.loop.loop_training import LoopTraining
from training.loop.losses import high_frequency_power, psnr
from training.loop.schedules import cosine, warmup_cosine
from training.presets.reading import parse
from training.presets.trainers import DVAETraining, GANTraining, PriorTraining, TokenizerTraining

CONFIGS = ["emoji_cpu.yaml", "emoji_gpu.yaml", "dalle_256.yaml"]


def test_a_cosine_goes_from_start_over_the_middle_to_end_and_stays():
    assert cosine(0, 1.0, 1 / 16, 150_000) == 1.0
    assert cosine(75_000, 1.0, 1 / 16, 150_000) == pytest.approx((1 + 1 / 16) / 2)
    assert cosine(150_000, 1.0, 1 / 16, 150_000) == cosine(10**9, 1.0, 1 / 16, 150_000) == 1 / 16
    assert cosine(0, 0.0, 6.6, 0) == 6.6


def test_a_warm_up_is_linear_up_to_its_peak():
    values = [warmup_cosine(step, 1.0, 0.1, 4, 10) for step in range(11)]
    assert values[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert values[10] == pytest.approx(0.1)
    assert values[4:] == sorted(values[4:], reverse=True)


def test_kmeans_finds_separate_clusters_and_their_spread():
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = (centres[:, None] + 0.1 * torch.randn(3, 500, 2, generator=generator)).flatten(0, 1)
    found, mean_distance = min((kmeans(points, 3, seed=seed) for seed in range(5)), key=lambda result: result[1])
    torch.testing.assert_close(torch.cdist(centres, found).min(1).values, torch.zeros(3), atol=0.03, rtol=0)
    assert mean_distance.item() == pytest.approx(2 * 0.1**2, rel=0.1)


def test_kmeans_keeps_its_digits_far_from_the_origin():
    generator = torch.Generator().manual_seed(0)
    points = 3 * torch.randn(6, 8, generator=generator).repeat(100, 1) + 0.3 * torch.randn(600, 8, generator=generator)
    found, mean_distance = kmeans(points + 1000, 20, seed=0)
    exact = torch.cdist((points + 1000).double(), found.double()).square().min(1)
    assert mean_distance.item() == pytest.approx(exact.values.mean().item(), rel=1e-3)
    assert (assign(points + 1000, found)[0] == exact.indices).float().mean().item() > 0.99


def test_high_frequencies_are_of_whole_cells():
    images = torch.zeros(1, 1, 4, 8)
    images[..., ::2] = 1.0  # half of each cell of 2 × 2: its average leaves ± ½
    assert high_frequency_power(images, cell=2).item() == pytest.approx(0.25, abs=1e-7)
    with pytest.raises(ValueError, match=r"sides \(4, 8\) must be multiples of cell=3"):
        high_frequency_power(images, cell=3)


def test_kmeans_refuses_fewer_points_than_centres():
    with pytest.raises(ValueError, match="5 latents cannot fill 8 codes"):
        kmeans(torch.randn(5, 2), 8, seed=0)


def test_psnr_of_a_known_error():
    zeros = torch.zeros(2, 3, 4, 4)
    torch.testing.assert_close(psnr(zeros, zeros + 0.1), torch.full((2,), -10 * math.log10(0.01)))


@pytest.mark.parametrize("config", CONFIGS)
def test_every_preset_is_read_by_every_trainer(config):
    path = f"training/configs/{config}"
    dvae = parse("dvae", DVAETraining, [path, "--training.lr", "0.5", "--model.codebook_size", "99"])
    assert dvae.training.lr == 0.5 and dvae.model["codebook_size"] == 99
    assert dvae.model["image_size"] == yaml.safe_load(Path(path).read_text())["dvae"]["model"]["image_size"]
    assert parse("prior", PriorTraining, [path]).training.steps > 0
    assert parse("tokenizer", TokenizerTraining, [path]).training.vocab_size > 256


def test_an_older_presets_key_is_read(tmp_path):
    path = tmp_path / "preset.yaml"
    path.write_text("output_dir: run\ndvae: {training: {steps: 7, pixel_adversary: {r1: 2.0, width: 8}}}\n")
    training = parse("dvae", DVAETraining, [str(path)]).training
    assert (training.steps, training.pixel_adversary) == (7, PixelSettings(r1_gamma=2.0, width=8))


@pytest.mark.parametrize(
    ("argv", "key"),
    [
        (["training/configs/emoji_cpu.yaml", "--training.lrr", "1"], "training.lrr"),
        (["training/configs/emoji_cpu.yaml", "--training.lr", "fast"], "training.lr"),
        (["training/configs/nothing.yaml"], "training/configs/nothing.yaml"),
    ],
)
def test_a_typo_is_an_error_that_names_the_key(argv, key, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse("dvae", DVAETraining, argv)
    assert stopped.value.code == 2
    assert key in capsys.readouterr().err


def test_a_config_holds_what_the_help_says(tmp_path, capsys):
    (tmp_path / "own.yaml").write_text("output_dir: x\ntraining: {lr: 0.5}\nmodel: {codebook_size: 9}\n")
    args = parse("dvae", DVAETraining, ["--config", str(tmp_path / "own.yaml")])
    assert (args.output_dir, args.training.lr, args.model) == ("x", 0.5, {"codebook_size": 9})
    with pytest.raises(SystemExit):
        parse("dvae", DVAETraining, ["--help"])
    assert "--config CONFIG a YAML of the keys below;" in " ".join(capsys.readouterr().out.split())


def test_a_wrong_key_in_a_preset_is_named(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text("output_dir: x\ndvea: {}\n")
    with pytest.raises(SystemExit):
        parse("dvae", DVAETraining, [str(path)])
    assert "dvea" in capsys.readouterr().err
    path.write_text("output_dir: x\ndvae: {training: {lern_rate: 1}}\n")
    with pytest.raises(SystemExit):
        parse("dvae", DVAETraining, [str(path)])
    assert "lern_rate" in capsys.readouterr().err


def test_a_recipe_is_what_shapes_the_weights():
    recipe = DVAETraining(steps=10, flip=False, kl_weight=0, log_every=5, resume_from="latest").recipe()
    assert (recipe["steps"], recipe["kl_weight"]) == (10, 0)
    assert not {"flip", "log_every", "resume_from", "max_grad_norm"} & set(recipe)  # off, or no shape


def test_a_batch_that_does_not_divide_is_refused_with_both_numbers():
    assert LoopTraining(batch_size=24, gradient_accumulation_steps=3).local_batch_size(4) == 2
    with pytest.raises(ValueError, match="batch_size=10 must be divisible by 4 processes"):
        LoopTraining(batch_size=10).local_batch_size(4)


@pytest.mark.parametrize("training_type", [DVAETraining, PriorTraining, GANTraining])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"log_every": 0}, "log_every=0 must be at least 1; take 1000 for the last"),
        ({"evaluate_every": 0}, "evaluate_every=0 must be at least 1"),
        ({"checkpoint_every": -1}, "checkpoint_every=-1 must be at least 1"),
        ({"keep_checkpoints": 0}, "keep_checkpoints=0 must be at least 1"),
        ({"mixed_precision": "bfloat16"}, "mixed_precision='bfloat16' must be one of no, fp16, bf16"),
    ],
)
def test_a_loop_that_could_not_run_is_refused(training_type, settings, words):
    with pytest.raises(ValueError, match=words):
        training_type(**settings)
