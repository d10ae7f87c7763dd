"""Schedules: where they begin, end and stay."""

import pytest

from training.loop.schedules import cosine, warmup_cosine


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
