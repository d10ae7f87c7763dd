"""Scenes show what their parts say, never a held-out pair in training, and depend on the generator alone."""

from random import Random

import numpy as np
import pytest
from messages import refused
from PIL import Image

from training.emoji.scenes import (
    GROUNDS,
    HELDOUT_SHARE,
    KINDS,
    PAIRS,
    colour_ramp,
    draw_scene,
    is_heldout_pair,
    luminance,
    sample_scene,
)

ROWS = [{"name": f"thing {i}", "keywords": [], "style": ("noto", "twemoji")[i % 2]} for i in range(60)]
RED, BLUE = (230, 20, 20), (20, 20, 230)


def disc(colour: tuple[int, int, int], side: int = 64) -> np.ndarray:
    """A cutout (side, side, 4): a disc of one colour, lighter towards the top."""
    y, x = np.mgrid[:side, :side] / (side - 1) - 0.5
    cutout = np.zeros((side, side, 4), np.uint8)
    cutout[..., :3] = np.clip(np.array(colour) * (1.1 - 0.4 * (y[..., None] + 0.5)), 0, 255)
    cutout[..., 3] = 255 * (x**2 + y**2 < 0.2)
    return cutout


def draw(kind: str, size: int = 64, seed: int = 0, colour: str = "green") -> np.ndarray:
    cutouts = [disc(RED), disc(BLUE)] if kind in ("beside", "above", "colours") else [disc(RED)]
    return draw_scene({"kind": kind, "colour": colour}, cutouts, Random(seed), size)


def is_near(picture: np.ndarray, channel: int) -> np.ndarray:
    """Where a picture (H, W, 3) has much of one channel and little of the others."""
    others = [other for other in range(3) if other != channel]
    return (picture[..., channel] > 120) & (picture[..., others] < 90).all(-1)


@pytest.mark.parametrize("size", [16, 48, 64])
@pytest.mark.parametrize("kind", ["single", *KINDS])
def test_a_scene_is_rgb_of_its_size_and_fixed_by_its_seed(kind, size):
    picture = draw(kind, size)
    assert picture.shape == (size, size, 3) and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, draw(kind, size))
    assert picture.std() > 10


def test_a_single_picture_is_the_cutout_on_white():
    cutout = disc(RED).astype(float)
    alpha = cutout[..., 3:] / 255
    expected = alpha * cutout[..., :3] + (1 - alpha) * 255
    np.testing.assert_allclose(draw("single"), expected, atol=1)


def test_left_is_left_and_above_is_above():
    for seed in range(10):
        for kind, axis in (("beside", 1), ("above", 0)):
            picture = draw(kind, seed=seed)
            red, blue = (np.argwhere(is_near(picture, channel))[:, axis] for channel in (0, 2))
            assert len(red) > 100 and len(blue) > 100
            assert red.max() < 34 and blue.min() > 29 and red.max() < blue.min()


@pytest.mark.parametrize("colour", GROUNDS)
def test_the_ground_has_its_colour_and_the_thing_covers_it(colour):
    picture = draw("ground", colour=colour)
    np.testing.assert_array_equal(picture[0, 0], GROUNDS[colour])
    np.testing.assert_allclose(picture[32, 32], draw("single")[32, 32], atol=12)


@pytest.mark.parametrize("colour", ["red", "green", "blue"])
def test_a_tint_is_the_shape_in_shades_of_the_colour(colour):
    """Between the disc's darkest and lightest spot each shade keeps the colour's strongest channel, on white."""
    picture, shape = draw("tint", colour=colour).astype(float), disc(RED)[..., 3] > 0
    np.testing.assert_array_equal(picture[~shape], 255)
    strongest = int(np.argmax(GROUNDS[colour]))
    assert (picture[shape].argmax(-1) == strongest).mean() > 0.99
    assert np.ptp(luminance(picture[shape])) > 60


def test_half_a_thing_is_drawn_the_same_wherever_it_stands():
    """A thing of a pair and a small one differ by whole eighths of the canvas: whole codes of a grid of 8."""
    seen = set()
    for kind in ("small", "beside", "above"):
        for seed in range(12):
            picture = draw(kind, seed=seed)
            rows, columns = np.nonzero(is_near(picture, 0))
            top, left = rows.min() // 8 * 8, columns.min() // 8 * 8
            seen.add(picture[top : top + 32, left : left + 32].tobytes())
    assert len(seen) == 1


def test_small_is_smaller_than_single_and_large_is_larger():
    areas = [is_near(draw(kind), 0).sum() for kind in ("small", "single", "large")]
    assert areas[0] < 0.3 * areas[1] < 0.3 * areas[2]


def test_a_premultiplied_reduction_lets_no_hidden_colour_bleed():
    cutout = disc(RED)
    cutout[cutout[..., 3] == 0] = (0, 255, 0, 0)
    picture = draw_scene({"kind": "small"}, [cutout], Random(0), 64).astype(int)
    assert (picture[..., 1] <= picture[..., 0] + 2).all()


def test_an_armchair_shaped_like_a_thing_has_its_colours_and_stands_on_legs():
    picture = draw("shape")
    assert is_near(picture, 0).sum() > 0.2 * 64 * 64
    assert (picture[58:, :].sum(-1) < 500).any()  # legs
    assert (picture[:4].min() > 240) or picture[:4].std() < 90


def test_the_colours_of_another_thing_replace_its_own():
    picture = draw("colours")  # a red disc in the colours of a blue one
    assert is_near(picture, 2).sum() > 1000 and is_near(picture, 0).sum() == 0


def test_a_colour_ramp_runs_from_dark_to_light():
    ramp = luminance(colour_ramp(Image.fromarray(disc(RED))).astype(float))
    assert (np.diff(ramp) > -1.5).all() and ramp[-1] > ramp[0] + 10


def test_a_pair_is_held_out_in_either_order_and_whatever_its_colour():
    names = [f"name {i}" for i in range(80)]
    pairs = [(a, b) for a in names for b in names if a < b]
    held = sum(is_heldout_pair(a, b) for a, b in pairs)
    assert abs(held / len(pairs) - HELDOUT_SHARE) < 0.02
    assert all(is_heldout_pair(a, b) == is_heldout_pair(b, a) for a, b in pairs)
    assert is_heldout_pair("red armchair", "avocado") == is_heldout_pair("armchair", "green avocado")


def test_the_pairs_of_the_readme_are_in_training():
    assert not is_heldout_pair("armchair", "avocado")
    assert not is_heldout_pair("cat face", "red apple")


@pytest.mark.parametrize("heldout", [False, True])
def test_held_out_pairs_are_drawn_when_asked_for_and_then_alone(heldout):
    rng = Random(0)
    kinds = set()
    for _ in range(1500):
        parts = sample_scene(ROWS, rng, heldout=heldout)
        kinds.add(parts["kind"])
        if parts["kind"] in PAIRS:
            a, b = (thing["name"] for thing in parts["things"])
            assert a != b and is_heldout_pair(a, b) == heldout
        assert [ROWS[row] for row in parts["rows"]] == parts["things"][-len(parts["rows"]) :]
    assert kinds == set(PAIRS if heldout else KINDS)


def test_a_seed_fixes_what_is_sampled():
    assert sample_scene(ROWS, Random(3)) == sample_scene(ROWS, Random(3))


def test_a_ground_differs_from_the_colour_a_name_says():
    rows = [{"name": "blue armchair", "keywords": [], "style": "icon"}, *ROWS]
    rng = Random(0)
    for _ in range(3000):
        parts = sample_scene(rows, rng)
        assert parts.get("colour") not in parts["things"][0]["name"].split()


def test_too_few_rows_are_an_error():
    with refused(ValueError, 1, "heldout=True"):
        sample_scene(ROWS[:1], Random(0), heldout=True)
