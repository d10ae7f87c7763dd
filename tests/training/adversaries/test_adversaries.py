"""Adversaries of the dVAE: what they add, what they leave alone, when they act."""

import json
import math

import pytest
import torch
from accelerate import Accelerator
from lattices import LATTICES
from messages import refused
from squares import draw_squares, write_preset

from dvae import DVAE, POSTERIORS, CodeDiscriminator, DVAEConfig, PatchDiscriminator
from training import train_dvae
from training.adversaries.adversary_settings import PixelSettings, PosteriorSettings
from training.adversaries.beside_the_dvae import (
    DVAEStep,
    PixelAdversary,
    PosteriorAdversary,
    RunningMean,
    build_adversaries,
)
from training.loop.losses import dvae_losses
from training.presets.trainers import DVAETraining

SIZES = {"image_size": 16, "downsample_factor": 4, "codebook_size": 12, "codebook_dim": 6, "widths": [8, 12, 16]}


def tiny(posterior: str = "implicit") -> DVAE:
    torch.manual_seed(0)
    return DVAE(DVAEConfig(**SIZES | LATTICES.get(posterior, {}), posterior=posterior)).train()


def step_of(dvae: DVAE, kl_weight: float = 1.0) -> DVAEStep:
    pixel_values = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    output = dvae(pixel_values, temperature=0.7)
    return DVAEStep(pixel_values, output, dvae_losses(pixel_values, output, dvae.likelihood, kl_weight), kl_weight)


def adversary_of(dvae: DVAE, kind: str, **settings):
    accelerator = Accelerator(cpu=True)
    if kind == "pixel":
        return PixelAdversary(dvae, PixelSettings(num_layers=1, width=8, **settings), accelerator)
    return PosteriorAdversary(dvae, PosteriorSettings(width=8, **settings), accelerator)


def weights_of(module: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


@pytest.mark.parametrize("kind", ["pixel", "posterior"])
def test_the_dvaes_loss_moves_the_dvae_and_learning_moves_the_network_alone(kind):
    dvae = tiny()
    adversary = adversary_of(dvae, kind)
    batch = step_of(dvae)
    adversary.losses(0, batch)["loss"].backward()
    assert all(p.grad is None for p in adversary.network.parameters())
    assert all(p.grad is not None for p in dvae.decoder.parameters())
    before, own = weights_of(dvae), weights_of(adversary.network)
    gradients = [p.grad.clone() for p in dvae.parameters()]
    adversary.learn(0, batch)
    assert all(map(torch.equal, before, weights_of(dvae)))
    assert all(map(torch.equal, gradients, [p.grad for p in dvae.parameters()]))
    assert not all(map(torch.equal, own, weights_of(adversary.network)))


def test_an_adversary_keeps_to_its_time():
    adversary = adversary_of(tiny(), "pixel", start=10, warmup=3)
    assert [step for step in range(-5, 14) if adversary.learns(step)] == list(range(7, 14))
    assert [step for step in range(-5, 14) if adversary.speaks(step)] == list(range(10, 14))
    assert not adversary_of(tiny(), "pixel", start=2, warmup=9).learns(-1), "no codes in the warm-up"
    assert adversary.losses(9, step_of(tiny())) == {} == adversary.learn(6, step_of(tiny()))


@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_the_pixel_adversary_pulls_the_last_layer_weight_times_as_hard_as_the_reconstruction(weight):
    dvae = tiny()
    adversary, batch = adversary_of(dvae, "pixel", weight=weight), step_of(dvae)
    numbers = adversary.losses(0, batch)
    last = dvae.decoder.last_layer.weight

    def pull(loss: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss, last, retain_graph=True)[0].norm()

    reconstruction, plain = pull(batch.losses["reconstruction_loss"]), pull(numbers["adversarial_loss"])
    added = pull(numbers["loss"] - batch.losses["loss"])
    torch.testing.assert_close(added / reconstruction, weight * plain / (plain + 1e-4), rtol=1e-4, atol=0)


def test_the_elbo_is_reported_without_the_adversary():
    dvae = tiny()
    batch = step_of(dvae)
    numbers = adversary_of(dvae, "pixel").losses(0, batch)
    assert not {"reconstruction_loss", "kl"} & numbers.keys()
    assert numbers["loss"] != batch.losses["loss"]


def test_without_dependence_the_density_ratio_adds_nothing():
    """A posterior whose noise does nothing is the product of its marginals: with T = 0 the estimate is the bound."""
    dvae = tiny()
    torch.nn.init.zeros_(dvae.posterior.noise_out.weight)
    adversary = adversary_of(dvae, "posterior")
    adversary.frozen_logits = lambda hidden_states, codes: torch.zeros(len(codes))
    batch = step_of(dvae)
    numbers = adversary.losses(0, batch)
    torch.testing.assert_close(numbers["kl_ratio"], batch.losses["kl"], rtol=1e-4, atol=1e-4)


def test_in_the_decoders_own_phase_the_posteriors_adversary_rests():
    """Its posterior is without noise there; the pixels' adversary goes on."""
    dvae = tiny()
    pixel_values = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    output = dvae.decode_argmax(pixel_values)
    batch = DVAEStep(pixel_values, output, dvae_losses(pixel_values, output, dvae.likelihood, 1.0), 1.0)
    posterior, pixel = adversary_of(dvae, "posterior"), adversary_of(dvae, "pixel")
    before = weights_of(posterior.network)
    assert posterior.losses(0, batch) == {} == posterior.learn(0, batch)
    assert all(map(torch.equal, before, weights_of(posterior.network)))
    assert pixel.losses(0, batch) and pixel.learn(0, batch)


def test_a_pixel_adversary_that_cannot_work_is_refused_at_once():
    with refused(ValueError, "image_size=16", "pixel_adversary.num_layers=3", 24):
        PixelAdversary(tiny(), PixelSettings(num_layers=3, width=8), Accelerator(cpu=True))
    dvae = tiny()
    dvae.decoder.requires_grad_(False)
    with refused(ValueError, "pixel_adversary", "freeze"):
        adversary_of(dvae, "pixel")


@pytest.mark.slow
def test_a_compiled_dvae_has_its_pixel_adversary(tmp_path):
    """Whose weight is measured at the decoder's last layer, within the step's own graph."""
    (tmp_path / "pictures").mkdir()
    preset = write_preset(tmp_path / "preset.yaml", draw_squares(tmp_path / "pictures"), tmp_path / "run")
    settings = {"compile": "true", "steps": "8", "pixel_adversary": "{num_layers: 1, width: 8, start: 2, warmup: 1}"}
    train_dvae.main([preset, *[part for key, value in settings.items() for part in (f"--training.{key}", value)]])
    lines = [json.loads(line) for line in (tmp_path / "run" / "dvae-log.jsonl").read_text().splitlines()]
    assert [line["adversarial_weight"] > 0 for line in lines if "adversarial_weight" in line] == [True] * 4


def test_a_posterior_with_a_closed_kl_needs_no_adversary():
    for posterior in set(POSTERIORS) - {"implicit"}:
        with refused(ValueError, f"posterior='{posterior}'", "training.posterior_adversary"):
            adversary_of(tiny(posterior), "posterior")


def test_the_preset_switches_them_on_and_their_networks_load_alone(tmp_path):
    dvae, accelerator = tiny(), Accelerator(cpu=True)
    assert build_adversaries(dvae, DVAETraining(), accelerator) == []
    settings = DVAETraining(pixel_adversary=PixelSettings(width=8), posterior_adversary=PosteriorSettings(width=8))
    pixel, posterior = build_adversaries(dvae, settings, accelerator)
    for adversary, kind in ((pixel, PatchDiscriminator), (posterior, CodeDiscriminator)):
        adversary.network.save_pretrained(tmp_path / adversary.name)
        loaded = kind.from_pretrained(tmp_path / adversary.name)
        assert all(map(torch.equal, weights_of(adversary.network), weights_of(loaded)))
    assert not {id(p) for a in (pixel, posterior) for p in a.network.parameters()} & {id(p) for p in dvae.parameters()}


def test_a_running_mean_is_the_mean_of_a_constant_from_the_first_number_on():
    mean = RunningMean(decay=0.9)
    for _ in range(3):
        mean.update(torch.tensor(5.0))
        assert mean.mean.item() == pytest.approx(5.0)
    mean.update(torch.tensor(6.0))
    weights = [0.1 * 0.9**age for age in range(4)]
    assert mean.mean.item() == pytest.approx(math.fsum([6 * weights[0], *[5 * w for w in weights[1:]]]) / sum(weights))
