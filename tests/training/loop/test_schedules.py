"""Schedules: where they begin, end and stay."""

import pytest

from training.loop.schedules import cosine, warmup_cosine
from training.presets.trainers import DVAETraining
from training.train_dvae import phase, schedules


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


def test_a_dvaes_temperature_and_kl_begin_after_its_warm_up_and_its_decoder_has_an_lr_of_its_own():
    phases = {"autoencoder_steps": 10, "temperature_steps": 10, "kl_steps": 10, "decoder_steps": 8, "warmup_steps": 4}
    ends = {"lr": 1.0, "lr_end": 0.1, "temperature": 1.0, "temperature_end": 0.5, "kl_weight": 2.0}
    training = DVAETraining(steps=40, **phases, **ends)
    lr, temperature, kl_weight = zip(*(schedules(step, training) for step in range(40)), strict=True)
    assert temperature[:11] == (1.0,) * 11 and temperature[15] == pytest.approx(0.75) and temperature[20] == 0.5
    assert kl_weight[:11] == (0.0,) * 11 and kl_weight[15] == pytest.approx(1.0) and kl_weight[20] == 2.0
    assert set(temperature[20:]) == {0.5} and set(kl_weight[20:]) == {2.0}
    assert lr[:4] == pytest.approx((0.25, 0.5, 0.75, 1.0)) and list(lr[3:32]) == sorted(lr[3:32], reverse=True)
    assert lr[31] < 0.15 and lr[32] == 1.0 and list(lr[32:]) == sorted(lr[32:], reverse=True) and lr[39] < 0.2
    assert [phase(step, training) for step in (9, 10, 31, 32)] == ["autoencoder", "dvae", "dvae", "decoder"]
