"""A recoloured thing has the colour asked for, its shades and all else; what many hues rule is left alone."""

import numpy as np
import pytest

from training.emoji.recolouring import may_become, recolour, rule_of, to_hsv, turn
from training.emoji.scenes import GROUNDS


def striped(*colours: tuple[int, int, int], side: int = 32) -> np.ndarray:
    """A cut-out in equal stripes, each darker towards the foot, in a clear frame."""
    cutout = np.zeros((side, side, 4), np.uint8)
    shade = np.linspace(1, 0.7, side)[:, None]
    for i, colour in enumerate(colours):
        part = slice(4 + i * (side - 8) // len(colours), 4 + (i + 1) * (side - 8) // len(colours))
        cutout[:, part, :3] = (shade * np.array(colour))[:, None]
        cutout[4:-4, part, 3] = 255
    return cutout


RED, GREEN, BLUE, GREY, WHITE = (210, 40, 30), (40, 160, 60), (40, 60, 200), (150, 150, 155), (250, 250, 250)


@pytest.mark.parametrize("colour", ["orange", "green", "blue", "purple"])
@pytest.mark.parametrize("own", [RED, GREY])
def test_one_hue_or_none_becomes_the_asked_one_and_shades_stay(own, colour):
    thing = striped(own)
    new = recolour(thing, rule_of(thing), GROUNDS[colour])
    np.testing.assert_array_equal(new[..., 3], thing[..., 3])
    opaque = thing[..., 3] > 0
    asked = to_hsv(np.uint8([[GROUNDS[colour]]]))[0, 0, 0]
    assert np.abs(turn(to_hsv(new)[opaque][:, 0] - asked)).max() < 0.03
    values = to_hsv(new)[..., 2]
    assert values[6, 16] > 1.1 * values[-6, 16]


def test_grey_takes_the_hue_away_and_what_has_another_hue_or_none_stays():
    thing = striped(RED, RED, RED, RED, WHITE)
    new = recolour(thing, rule_of(thing), GROUNDS["grey"])
    assert to_hsv(new)[8, 8, 1] < 0.1
    np.testing.assert_array_equal(new[:, 26:28], thing[:, 26:28])
    thing = striped(RED, RED, RED, RED, RED, GREEN)
    new = recolour(thing, rule_of(thing), GROUNDS["blue"])
    np.testing.assert_allclose(new[8:24, 25:28].astype(int), thing[8:24, 25:28].astype(int), atol=2)
    assert (new[8:24, 5:20, 2] > new[8:24, 5:20, 0]).all()


def test_what_several_hues_rule_has_no_other_colour_nor_has_black_or_nothing():
    assert rule_of(striped(RED, GREEN, BLUE)) is None
    assert rule_of(striped((20, 20, 22))) is None
    assert rule_of(np.zeros((8, 8, 4), np.uint8)) is None


def test_a_thing_does_not_become_what_it_is():
    rule = rule_of(striped(RED))
    assert not may_become(rule, GROUNDS["red"]) and may_become(rule, GROUNDS["blue"])
    assert may_become(rule, GROUNDS["brown"]) and may_become(rule, GROUNDS["grey"])
    assert not may_become(rule_of(striped(GREY)), GROUNDS["grey"])
