"""Measures of pictures where their values are known."""

import math

import pytest
import torch
from messages import refused

from training.loop.losses import high_frequency_power, psnr


def test_high_frequencies_are_of_whole_cells():
    images = torch.zeros(1, 1, 4, 8)
    images[..., ::2] = 1.0  # half of each cell of 2 × 2: its average leaves ± ½
    assert high_frequency_power(images, cell=2).item() == pytest.approx(0.25, abs=1e-7)
    with refused(ValueError, "(4, 8)", "cell=3"):
        high_frequency_power(images, cell=3)


def test_psnr_of_a_known_error():
    zeros = torch.zeros(2, 3, 4, 4)
    torch.testing.assert_close(psnr(zeros, zeros + 0.1), torch.full((2,), -10 * math.log10(0.01)))
