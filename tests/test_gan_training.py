"""The GAN step where its gradients can be worked out, and the trainer: to pictures, resumed, on two processes."""

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from processes import run_processes
from torch import nn

from dvae import GANGenerator, PatchDiscriminator
from training import train_gan
from training.arguments import GANTraining, parse
from training.gan import GANSettings, discriminator_losses, gan_step, generator_loss, unrolled_parameters

REAL = torch.zeros(3, 1, dtype=torch.float64)


def slope(value: float) -> nn.Linear:
    """D(x) = ψ x, the discriminator of the Dirac GAN (arXiv 1801.04406, section 2)."""
    linear = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(linear.weight, value)
    return linear


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_the_generators_gradient_goes_through_the_unrolled_steps(steps):
    """Hinge, real data at 0, a fake at θ: ψ_k = ψ − k η θ, so the loss is −ψ θ + k η θ², its slope −ψ + 2 k η θ."""
    psi, theta, eta = 0.3, torch.tensor(0.5, dtype=torch.float64, requires_grad=True), 0.05
    settings = GANSettings(objective="hinge", unrolled_steps=steps, unrolled_lr=eta)
    discriminator, fake = slope(psi), theta.expand(4, 1)
    weight = unrolled_parameters(discriminator, REAL, fake, settings)["weight"]
    assert weight.item() == pytest.approx(psi - steps * eta * 0.5, abs=1e-12)
    generator_loss(discriminator, REAL, fake, settings).backward()
    assert theta.grad.item() == pytest.approx(-psi + 2 * steps * eta * 0.5, abs=1e-12)
    assert discriminator.weight.grad is None and discriminator.weight.item() == psi
    discriminator.unused = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    with torch.no_grad():
        value = generator_loss(discriminator, REAL, fake, settings).item()
    assert value == pytest.approx(-psi * 0.5 + steps * eta * 0.25, abs=1e-12)


def test_r1_adds_half_gamma_times_the_squared_slope():
    """D(x) = ψ x: the penalty is ψ², so a loss with γ is γ/2 · ψ² above the one without, and pulls ψ to 0."""
    discriminator, fake = slope(0.3), torch.ones(2, 1, dtype=torch.float64)
    plain = discriminator_losses(discriminator, REAL, fake, GANSettings())
    with_r1 = discriminator_losses(discriminator, REAL, fake, GANSettings(r1_gamma=10.0))
    assert plain["r1"] == 0 and with_r1["r1"].item() == pytest.approx(0.09, abs=1e-12)
    difference = with_r1["discriminator_loss"] - plain["discriminator_loss"]
    assert difference.item() == pytest.approx(5 * 0.09, abs=1e-12)
    (gradient,) = torch.autograd.grad(difference, discriminator.weight)
    assert gradient.item() == pytest.approx(10 * 0.3, abs=1e-12)


@pytest.mark.parametrize("settings", [GANSettings(), GANSettings(r1_gamma=1.0, discriminator_steps=3)], ids=str)
def test_a_step_moves_both_sides_once_each_and_leaves_no_gradient(settings):
    torch.manual_seed(0)
    generator, discriminator = nn.Linear(2, 1).double(), slope(0.3)
    before = generator.weight.detach().clone()
    optimizers = [torch.optim.SGD(model.parameters(), 0.1) for model in (generator, discriminator)]
    drawn = []

    def sample_real(count: int) -> torch.Tensor:
        drawn.append(count)
        return torch.ones(count, 1, dtype=torch.float64)

    losses = gan_step(
        generator,
        discriminator,
        *optimizers,
        sample_real=sample_real,
        sample_latents=lambda count: torch.randn(count, 2, dtype=torch.float64),
        batch_size=8,
        settings=settings,
    )
    assert losses.keys() == {"discriminator_loss", "r1", "value", "generator_loss"}
    assert drawn == [8] * settings.discriminator_steps
    assert discriminator.weight.item() != 0.3 and not torch.equal(generator.weight, before)
    assert all(p.grad is None for model in (generator, discriminator) for p in model.parameters())


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"objective='wasserstein' must be one of minimax, non_saturating, hinge"):
        GANSettings(objective="wasserstein")
    with pytest.raises(ValueError, match="unrolled_steps=-1 must be 0 or more"):
        GANSettings(unrolled_steps=-1)
    with pytest.raises(ValueError, match="gradient_accumulation_steps=2 must be 1"):
        GANTraining(gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="init_from='embedded' is for the dVAE and the prior"):
        GANTraining(init_from="embedded")


def test_the_preset_of_the_emoji_is_read_with_flags():
    args = parse("gan", GANTraining, ["training/configs/emoji_gan.yaml", "--training.r1_gamma", "3"])
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


def test_two_processes_end_with_equal_weights(preset, tmp_path):
    """With R1, whose own backward goes through DDP, and unrolled steps, which go around it."""
    report = tmp_path / "digests.json"
    run_processes("two_processes.py", "train_gan", str(report), preset, "--training.unrolled_steps", "1")
    first, second = json.loads(report.read_text())
    assert first == second


def test_a_model_that_does_not_fit_is_refused(preset):
    with pytest.raises(ValueError, match="image_size=8 is too small for num_layers=2, which needs 12"):
        train_gan.build({"generator": {"image_size": 8}, "discriminator": {"num_layers": 2}}, seed=0)
    with pytest.raises(ValueError, match="no key 'critic'"):
        train_gan.build({"critic": {}}, seed=0)
