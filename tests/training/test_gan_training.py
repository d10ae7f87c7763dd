"""The GAN's trainer: from a folder of pictures to a generator of such, resumed, on two processes."""

import json

import numpy as np
import pytest
import torch
import yaml
from messages import refused
from PIL import Image
from processes import ROOT, run_processes

from dvae import GANGenerator, PatchDiscriminator
from training import train_gan
from training.presets.reading import parse
from training.presets.trainers import GANTraining


def test_the_preset_of_the_emoji_is_read_with_flags():
    args = parse("gan", GANTraining, [f"{ROOT}/training/configs/emoji_gan.yaml", "--training.r1_gamma", "3"])
    assert args.training.r1_gamma == 3 and args.model["generator"]["image_size"] == 32


@pytest.fixture
def preset(tmp_path) -> str:
    """Grey pictures, the left half darker, and networks that see 8×8 pixels."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    with (folder / "metadata.jsonl").open("w") as metadata:
        for i in range(40):
            picture = np.full((8, 8, 3), 200, np.uint8)
            picture[:, : 3 + i % 3] = 40
            Image.fromarray(picture).save(folder / f"{i}.png")
            metadata.write(json.dumps({"file_name": f"{i}.png", "text": "half and half"}) + "\n")
    sizes = {"image_size": 8, "downsample_factor": 2, "codebook_dim": 8, "widths": [8, 8], "blocks_per_group": 1}
    loop = {"batch_size": 8, "lr": 2e-3, "lr_end": 2e-3, "log_every": 1, "evaluate_every": 100, "checkpoint_every": 6}
    model = {"generator": {"latent_size": 4, **sizes}, "discriminator": {"num_layers": 1, "width": 8}}
    training = {**loop, "steps": 12, "r1_gamma": 0.1, "ema": 0.9, "flip": False}
    sections = {
        "output_dir": str(tmp_path / "run"),
        "data": {"path": str(folder)},
        "gan": {"model": model, "training": training},
    }
    path = tmp_path / "preset.yaml"
    path.write_text(yaml.safe_dump(sections))
    return str(path)


@pytest.mark.seeds(1)
def test_from_a_folder_of_pictures_to_a_generator_of_such(preset, tmp_path, seed, record_property):
    """After 300 steps its pictures are darker on the left than on the right, as every real one is."""
    steps = ["--training.steps", "300", "--training.checkpoint_every", "300", "--training.seed", str(seed)]
    train_gan.main([preset, *steps, "--training.r1_gamma", "1"])
    generator = GANGenerator.from_pretrained(tmp_path / "run" / "gan" / "generator")
    discriminator = PatchDiscriminator.from_pretrained(tmp_path / "run" / "gan" / "discriminator")
    with torch.no_grad():
        images = generator(torch.randn(64, 4, generator=torch.Generator().manual_seed(1)))
    assert discriminator(images).shape == (64, 1, 2, 2)
    difference = images[..., 6:].mean() - images[..., :3].mean()
    record_property("difference", difference.item())
    assert 0.4 < difference.item() <= 1, "0 from the start; the game has no equilibrium, and overshoots"
    assert (tmp_path / "run" / "gan-pictures" / "samples-0000300.png").exists()
    metrics = json.loads((tmp_path / "run" / "gan" / "metrics.json").read_text())
    assert metrics["step"] == 300 and metrics["value"] < 0


def test_resumed_equals_not_stopped_and_seeds_differ(preset, tmp_path):
    whole = train_gan.main([preset]).state_dict()
    checkpoint = tmp_path / "run" / "gan-checkpoints" / "step-0000006"
    resumed = train_gan.main([preset, "--training.resume_from", str(checkpoint)]).state_dict()
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key
    again, other = (train_gan.main([preset, "--training.seed", str(seed)]).state_dict() for seed in (0, 1))
    assert all(torch.equal(value, again[key]) for key, value in whole.items())
    assert not all(torch.equal(value, other[key]) for key, value in whole.items())


@pytest.mark.slow
def test_two_processes_end_with_equal_weights(preset, tmp_path):
    """With R1, whose own backward goes through DDP, and unrolled steps, which go around it."""
    report = tmp_path / "digests.json"
    run_processes("two_processes.py", "train_gan", str(report), preset, "--training.unrolled_steps", "1")
    first, second = json.loads(report.read_text())
    assert first == second


def test_a_model_that_does_not_fit_is_refused(preset):
    with refused(ValueError, "image_size=8", "num_layers=2", 12):
        train_gan.build({"generator": {"image_size": 8}, "discriminator": {"num_layers": 2}}, seed=0)
    with refused(ValueError, "'critic'", "generator", "discriminator"):
        train_gan.build({"critic": {}}, seed=0)
