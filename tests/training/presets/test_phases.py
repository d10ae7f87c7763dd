"""Phases and schedules: numbers of steps, or shares of a run's; what does not fit is refused before anything runs."""

import pytest
from messages import refused
from processes import ROOT

from training.adversaries.adversary_settings import PixelSettings, StyleSettings
from training.presets.reading import parse
from training.presets.trainers import DVAETraining, GANTraining, PriorTraining, RerankerTraining
from training.train_scorer import ScorerTraining

CONFIGS = ["emoji_cpu.yaml", "emoji_gpu.yaml", "emoji_128.yaml", "dalle_256.yaml"]
TRAININGS = {"dvae": DVAETraining, "prior": PriorTraining}
NO_SCHEDULES = {"gradient_accumulation_steps", "max_skipped_steps", "unrolled_steps", "discriminator_steps"}


@pytest.mark.parametrize(
    ("config", "section", "training_type"),
    [
        *((config, section, kind) for config in CONFIGS for section, kind in TRAININGS.items()),
        ("emoji_gan.yaml", "gan", GANTraining),
        ("finetune_lora.yaml", "prior", PriorTraining),
    ],
)
def test_steps_alone_shorten_a_run_of_any_preset(config, section, training_type):
    """Every schedule keeps its share: 200 steps have all phases, in proportion."""
    whole = parse(section, training_type, [f"{ROOT}/training/configs/{config}"]).training
    short = parse(section, training_type, [f"{ROOT}/training/configs/{config}", "--training.steps", "200"]).training
    schedules = [name for name in vars(whole) if name.endswith("_steps") and name not in NO_SCHEDULES]
    assert "warmup_steps" in schedules
    for name in schedules:
        assert getattr(short, name) == pytest.approx(getattr(whole, name) / whole.steps * 200, abs=0.51), name
    assert not short.unfinished()


def test_the_presets_own_numbers_are_those_that_were_measured():
    dvae = parse("dvae", DVAETraining, [f"{ROOT}/training/configs/emoji_cpu.yaml"]).training
    names = ("warmup_steps", "autoencoder_steps", "decoder_steps", "temperature_steps", "kl_steps")
    assert [getattr(dvae, name) for name in names] == [100, 600, 2800, 2400, 1000]
    paper = parse("dvae", DVAETraining, [f"{ROOT}/training/configs/dalle_256.yaml"]).training
    assert (paper.temperature_steps, paper.kl_steps) == (150_000, 5000)
    assert parse("prior", PriorTraining, [f"{ROOT}/training/configs/dalle_256.yaml"]).training.warmup_steps == 5000
    assert (RerankerTraining().warmup_steps, ScorerTraining().warmup_steps) == (50, 50)


def test_a_codebook_that_is_there_is_not_filled_anew():
    with refused(ValueError, "autoencoder_steps=20", "init_from='embedded'", "--training.autoencoder_steps 0"):
        DVAETraining(steps=200, init_from="embedded", autoencoder_steps="10%")
    assert DVAETraining(steps=200, init_from="embedded", decoder_steps="100%").decoder_steps == 200


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"autoencoder_steps": 600, "decoder_steps": 2800}, ["autoencoder_steps=600", "decoder_steps=2800"]),
        ({"autoencoder_steps": 120, "decoder_steps": "41%"}, ["autoencoder_steps=120", "decoder_steps=82"]),
        ({"autoencoder_steps": 200}, ["autoencoder_steps=200"]),
        ({"warmup_steps": 201}, ["warmup_steps=201"]),
        ({"warmup_steps": 60, "decoder_steps": 150}, ["warmup_steps=60", 50, "decoder_steps=150"]),
        ({"pixel_adversary": PixelSettings(start=2000)}, ["pixel_adversary.start=2000"]),
    ],
)
def test_phases_that_do_not_fit_are_refused_with_both_numbers(settings, parts):
    with refused(ValueError, *parts, "steps=200"):
        DVAETraining(steps=200, **settings)


@pytest.mark.parametrize("value", ["110%", -1, "0.5", "5 steps", 0.5])
def test_what_is_no_number_of_steps_is_refused(value):
    with refused(ValueError, f"kl_steps={value!r}"):
        DVAETraining(steps=200, kl_steps=value)


def test_phases_that_fit_are_taken_and_a_schedule_that_is_cut_off_is_said():
    whole = DVAETraining(steps=200, autoencoder_steps=80, decoder_steps="60%", temperature_steps="50%", kl_steps=120)
    assert (whole.decoder_steps, whole.unfinished()) == (120, [])
    assert DVAETraining(steps=200, decoder_steps=200, warmup_steps=50).decoder_steps == 200, "the decoder alone"
    [line] = DVAETraining(steps=200, autoencoder_steps=40, temperature_steps=161, kl_steps=160).unfinished()
    assert "temperature_steps=161" in line and "160 steps" in line
    adversary = DVAETraining(steps=200, style_adversary=StyleSettings(start="10%", warmup="5%")).style_adversary
    assert (adversary.start, adversary.warmup) == (20, 10)


def test_phases_are_checked_before_a_config_is_printed(capsys):
    """By which the speedrun finds a wrong flag of a later part before hours are spent on the first."""
    flags = [f"{ROOT}/training/configs/emoji_cpu.yaml", "--training.autoencoder_steps", "9000", "--print_config"]
    with refused(ValueError, "autoencoder_steps=9000", "steps=6600"):
        parse("dvae", DVAETraining, flags)
    with pytest.raises(SystemExit):
        parse("dvae", DVAETraining, [*flags[:2], "9%", "--print_config"])
    assert "autoencoder_steps: 9%" in capsys.readouterr().out
