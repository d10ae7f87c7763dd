"""Scenes show what their parts say, never a held-out pair in training, and depend on the generator alone."""

from collections import Counter
from random import Random

import numpy as np
import pytest
from messages import refused

from training.emoji.captions import plain_name
from training.emoji.named_cutouts import CutoutScenes
from training.emoji.scenes import (
    ARMCHAIR,
    ARMCHAIRS,
    COUNTS,
    GROUNDS,
    HELD_OUT,
    HELDOUT_SHARE,
    KINDS,
    PAIRS,
    PLACES,
    STYLE,
    Scenes,
    is_heldout,
    is_heldout_pair,
)

RED, BLUE = (230, 20, 20), (20, 20, 230)


def disc(colour: tuple[int, int, int], side: int = 64) -> np.ndarray:
    """A cut-out (side, side, 4): a disc of one colour, lighter towards the top."""
    y, x = np.mgrid[:side, :side] / (side - 1) - 0.5
    cutout = np.zeros((side, side, 4), np.uint8)
    cutout[..., :3] = np.clip(np.array(colour) * (1.1 - 0.4 * (y[..., None] + 0.5)), 0, 255)
    cutout[..., 3] = 255 * (x**2 + y**2 < 0.2)
    return cutout


def thing(name: str, style: str = "noto") -> dict:
    return {"name": name, "keywords": [], "style": style}


DISCS = CutoutScenes([thing("disc"), thing("ball")], [disc(RED), disc(BLUE)])
MANY = CutoutScenes([thing(f"thing {i}", ("noto", "twemoji")[i % 2]) for i in range(60)], [disc(RED, 16)] * 60)


def draw(kind: str, **more) -> np.ndarray:
    rows = [0, 1] if kind in PAIRS else [0]
    things = [*([ARMCHAIR] if kind in ARMCHAIRS else []), *(DISCS.things[row] for row in rows)]
    return DISCS.draw_layout(DISCS.layout_of({"kind": kind, "things": things, "rows": rows, **more}))


def is_near(picture: np.ndarray, channel: int) -> np.ndarray:
    """Where a picture (H, W, 3) has much of one channel and little of the others."""
    others = [other for other in range(3) if other != channel]
    return (picture[..., channel] > 120) & (picture[..., others] < 90).all(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scene_is_fixed_by_its_seed_and_can_be_asked_for_by_its_kind(kind):
    layout, parts = MANY.lay(Random(3), kind=kind)
    assert (layout, parts) == MANY.lay(Random(3), kind=kind) and parts["kind"] == kind
    picture = MANY.draw_layout(layout)
    assert picture.shape == (16, 16, 3) and picture.dtype == np.uint8 and picture.std() > 10
    np.testing.assert_array_equal(picture, MANY.draw_layout(layout))


def test_a_single_picture_is_the_cutout_on_white():
    cutout = disc(RED).astype(float)
    alpha = cutout[..., 3:] / 255
    np.testing.assert_allclose(DISCS.draw_layout(DISCS.single(0)), alpha * cutout[..., :3] + (1 - alpha) * 255, atol=1)


def test_left_is_left_and_above_is_above():
    for kind, axis in (("beside", 1), ("above", 0)):
        red, blue = (np.argwhere(is_near(draw(kind), channel))[:, axis] for channel in (0, 2))
        assert len(red) > 100 and len(blue) > 100 and red.max() < 33 <= blue.min() + 1


@pytest.mark.parametrize("colour", GROUNDS)
def test_the_ground_has_its_colour_and_the_thing_is_as_a_small_one_on_white(colour):
    picture = draw("ground", ground=colour)
    np.testing.assert_array_equal(picture[0, 0], GROUNDS[colour])
    np.testing.assert_array_equal(picture[24:40, 28:36], draw("small")[24:40, 28:36])


def test_half_a_thing_is_drawn_the_same_wherever_it_stands():
    seen, spots = set(), set()
    for kind, places in PLACES.items():
        picture = draw(kind)
        for top, left in places[: 1 if kind in PAIRS else None]:
            spots.add((top, left))
            seen.add(picture[16 * top : 16 * top + 32, 16 * left : 16 * left + 32].tobytes())
    assert len(seen) == 1 and len(spots) == 8


def test_small_is_a_quarter_of_large_and_a_number_is_as_many():
    areas = {kind: is_near(draw(kind), 0).sum() for kind in ("large", "small", *COUNTS)}
    assert areas["small"] == pytest.approx(areas["large"] / 4, rel=0.1)
    for kind, number in zip(COUNTS, (2, 3, 4), strict=True):
        assert areas[kind] == pytest.approx(number * areas["small"], abs=number)


@pytest.mark.parametrize("kind", KINDS)
def test_a_thing_that_is_drawn_in_the_style_of_scenes_is_shown_in_it_alone(kind):
    styles = ("noto", STYLE, "fluent 3d")
    things = [thing(f"thing {i // 3}", styles[i % 3]) for i in range(60)] + [thing("yak"), thing("yak", "twemoji")]
    scenes = CutoutScenes(things, [disc(RED, 16)] * len(things))
    shown = {row for i in range(400) for row in scenes.lay(Random(i), kind=kind)[1]["rows"]}
    assert shown <= {*range(1, 60, 3), 60, 61} and len(shown) > 15
    assert {60, 61} <= shown or kind in PAIRS
    halves = {piece.row for piece in scenes.table if piece.half}
    assert halves == {*range(1, 60, 3), 60, 61} and [piece.row for piece in scenes.table[:62]] == list(range(62))


def test_a_premultiplied_reduction_lets_no_hidden_colour_bleed():
    cutout = disc(RED)
    cutout[cutout[..., 3] == 0] = (0, 255, 0, 0)
    scenes = CutoutScenes([thing("disc")], [cutout])
    small = scenes.layout_of({"kind": "small", "things": [thing("disc")], "rows": [0]})
    picture = scenes.draw_layout(small).astype(int)
    assert (picture[..., 1] <= picture[..., 0] + 2).all()


@pytest.mark.parametrize("kind", ARMCHAIRS)
def test_an_armchair_after_a_thing_has_its_colours_and_stands_on_legs(kind):
    picture = draw(kind)
    assert is_near(picture, 0).sum() > 0.2 * 64 * 64
    assert (picture[58:, :].sum(-1) < 500).any()  # legs
    assert (picture[:2].min() > 240) or picture[:4].std() < 90


def test_every_kind_is_drawn_by_its_weight_and_another_weight_is_taken():
    drawn = Counter(MANY.lay(Random(i))[1]["kind"] for i in range(4000))
    for kind, weight in KINDS.items():
        assert drawn[kind] / 4000 == pytest.approx(weight / sum(KINDS.values()), abs=0.03)
    other = MANY.weigh(dict.fromkeys(KINDS, 0) | {"small": 1, "four": 3})
    drawn = Counter(other.lay(Random(i))[1]["kind"] for i in range(1000))
    assert drawn["four"] / 1000 == pytest.approx(0.75, abs=0.05) and set(drawn) == {"small", "four"}
    assert MANY.kinds == KINDS
    with refused(ValueError, "data.scene_kinds", "'smal'", "beside"):
        MANY.weigh({"smal": 1})
    with refused(ValueError, 60, "held_out=False"):
        MANY.weigh(dict.fromkeys(KINDS, 0)).lay(Random(0))


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


def held_out_pairs(parts: dict) -> list[bool]:
    """Of all that a scene combines: whether it is held out."""
    names = [thing["name"] for thing in parts["things"]]
    found = [is_heldout_pair(*names)] if len(names) == 2 else []
    if parts["kind"] in COUNTS:
        found.append(is_heldout(names[0], parts["kind"]))
    for thing in parts["things"]:
        if thing.get("colour"):
            name = plain_name(thing["name"])
            shown = f"{thing['colour']} {name}" in {one["name"] for one in MANY.things}
            found.append(is_heldout(name, "colour", thing["colour"]) and not shown)
        if parts.get("ground") and thing is not ARMCHAIR:
            found.append(is_heldout(thing["name"], "ground", parts["ground"]))
    return found


def test_a_colour_that_a_row_has_by_its_own_name_is_not_held_out():
    """Training shows it, with that very caption."""
    colour = next(word for word in GROUNDS if is_heldout("armchair", "colour", word))
    things = [{"name": name, "keywords": [], "style": "icon"} for name in ("grey armchair", f"{colour} armchair")]
    for rows, held_out in ((1, True), (2, False)):
        scenes = Scenes(things[:rows], [[colour]] * rows)
        assert scenes.is_heldout_colour("armchair", colour) == held_out
        assert scenes._colours(0, held_out) == [colour] and scenes._colours(0, not held_out) == []


def test_a_thing_of_a_size_by_its_name_is_given_no_other():
    things = [{"name": name, "keywords": [], "style": "icon"} for name in ("large square", "cat", "small airplane")]
    for kind in ("small", "large"):
        assert Scenes(things, [[]] * 3)._rows(kind, held_out=False) == [1]


@pytest.mark.parametrize("held_out", [False, True])
def test_held_out_pairs_are_drawn_when_asked_for_and_then_alone(held_out):
    kinds, varied = set(), Counter()
    for i in range(3000):
        layout, parts = MANY.lay(Random(i), held_out=held_out)
        kinds.add(parts["kind"])
        found = held_out_pairs(parts)
        assert found == [True] if held_out else not any(found)
        assert [MANY.things[row]["name"] for row in parts["rows"]] == [
            thing["name"] for thing in parts["things"][-len(parts["rows"]) :]
        ]
        varied["ground"] += parts["kind"] != "ground" and layout.ground > 0
        varied["colour"] += parts["kind"] != "colour" and any(thing.get("colour") for thing in parts["things"])
    assert kinds == set(HELD_OUT if held_out else KINDS)
    assert (varied["ground"] > 400 and varied["colour"] > 100) != held_out


def test_nothing_is_recoloured_where_colour_has_no_weight():
    plain = MANY.weigh({"colour": 0})
    drawn = [plain.lay(Random(i))[1] for i in range(1000)]
    assert {parts["kind"] for parts in drawn} == set(KINDS) - {"colour"}
    assert not any(thing.get("colour") for parts in drawn for thing in parts["things"])
    assert any(parts.get("ground") for parts in drawn if parts["kind"] != "ground")


def test_a_ground_and_a_colour_differ_from_the_colour_a_name_says():
    things = [thing("blue armchair", "icon"), *MANY.things]
    scenes = CutoutScenes(things, [disc(RED, 16)] * len(things))
    for i in range(3000):
        parts = scenes.lay(Random(i))[1]
        words = {word for thing in parts["things"] for word in (*thing["name"].split(), thing.get("colour"))}
        assert parts.get("ground") not in words - {None}
        assert all(thing.get("colour") not in thing["name"].split() for thing in parts["things"])


@pytest.mark.parametrize("kind", ["beside", "four", "shape"])
def test_too_few_rows_are_an_error(kind):
    scenes = CutoutScenes([thing("armchair" if kind == "shape" else "dice")], [disc(RED, 16)])
    with refused(ValueError, 1, "held_out=False"):
        scenes.lay(Random(0), kind=kind)


def test_a_small_set_has_the_kinds_that_it_has_things_for():
    alone = CutoutScenes([thing("dice")], [disc(RED, 16)])
    assert {alone.lay(Random(i))[1]["kind"] for i in range(400)} == {"ground", "small", "large", "colour", *ARMCHAIRS}
