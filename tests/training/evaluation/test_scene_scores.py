"""Scenes judged thing by thing: a perfect painter is perfect, and each fault shows in its own number."""

from random import Random

import numpy as np
import pytest
import torch
from cutout_sets import COLOURS, SHAPES, shape
from messages import refused
from torch import Tensor, nn

from training.emoji.named_cutouts import CutoutScenes, NamedCutouts
from training.evaluation.scenes import (
    SINGLE,
    WAYS,
    ask,
    colour_of,
    cut,
    flat,
    is_empty,
    is_said,
    judge_scenes,
    table,
)

SIDE = 32
SHOWN = ("beside", "above", "ground", "small", "large", "two", "three", "four", "colour")


def composer() -> CutoutScenes:
    things, cutouts = [], []
    for colour, rgb in COLOURS.items():
        for name in SHAPES:
            rgba = np.zeros((SIDE, SIDE, 4), np.uint8)
            rgba[..., :3], rgba[..., 3] = rgb, 255 * shape(name)
            things.append({"name": f"{colour}{name}", "keywords": [], "style": "noto"})
            cutouts.append(rgba)
    return CutoutScenes(things, cutouts)


class Nearest(nn.Module):
    """Names a picture after the drawing that its outline is nearest to, then by colour."""

    def __init__(self, scenes: CutoutScenes):
        super().__init__()
        self.known = {scenes.name(row): self.features(self.drawn(scenes, row)) for row in range(len(scenes.things))}

    @staticmethod
    def drawn(scenes: CutoutScenes, row: int) -> Tensor:
        return torch.tensor(scenes.draw_layout(scenes.single(row))).permute(2, 0, 1)[None] / 255

    @staticmethod
    def features(pictures: Tensor) -> Tensor:
        small = nn.functional.adaptive_avg_pool2d(pictures, 8)
        outline = ((1 - small).amax(1, keepdim=True) > 0.3).float() - 0.5
        return torch.cat([4 * outline.flatten(1), (0.5 - small).flatten(1)], 1)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.features(pictures)

    def embed_text(self, texts: list[str]) -> Tensor:
        return torch.cat([self.known[text] for text in texts])


@pytest.fixture(scope="module")
def scenes() -> CutoutScenes:
    return composer()


def judged(scenes: CutoutScenes, paint, count: int = 12) -> dict:
    rows = len(scenes.things)
    asked = {kind: ask(scenes, NamedCutouts(), rows, kind, count) for kind in (SINGLE, *SHOWN)}
    drawings = {one.prompt: one.drawn for part in asked.values() for one in part}

    def painted(prompts: list[str]) -> Tensor:
        return torch.stack([paint(drawings[prompt]) for prompt in prompts])

    said = []
    found = judge_scenes(
        scenes, NamedCutouts(), rows, Nearest(scenes), painted, lambda images: images, count, said.append
    )
    assert [line.split()[0] for line in said] == ["shape", "colours"], "no armchair is held out for these things"
    return found


def test_who_paints_the_drawing_is_right_in_all(scenes):
    found = judged(scenes, lambda drawn: drawn)
    for kind in (SINGLE, *SHOWN):
        for way in WAYS:
            scores = found[kind][way]
            assert scores.first_five > 0.9 and scores.empty == 0, (kind, way, scores)
            assert scores.as_asked is None or scores.as_asked > 0.9, (kind, way, scores)
    assert {kind for kind in SHOWN if found[kind]["real"].as_asked is not None} == {
        "ground", "two", "three", "four", "colour"
    }  # fmt: skip
    assert found["beside"]["painted"] == found["beside"]["real"]


def test_who_paints_the_ground_alone_leaves_it_empty_and_names_nothing(scenes):
    found = judged(scenes, lambda drawn: drawn[:, :1, :1].expand_as(drawn))
    for kind in SHOWN:
        assert found[kind]["painted"].empty == 1 and found[kind]["real"].empty == 0
        assert found[kind]["painted"].first < 0.3
    assert found["ground"]["painted"].as_asked == 1 and found["ground"]["painted"].both < 0.7


def test_who_paints_half_of_it_is_wrong_in_number_and_every_second_thing(scenes):
    def left_half(drawn: Tensor) -> Tensor:
        return torch.cat([drawn[:, :, : SIDE // 2], drawn[:, :, :1].expand(3, SIDE, SIDE // 2)], dim=2)

    found = judged(scenes, left_half)
    assert found["four"]["painted"].as_asked < 0.2 and found["two"]["painted"].as_asked < 0.2
    assert found["beside"]["painted"].first_five == pytest.approx(0.5, abs=0.25)


def test_a_recoloured_thing_in_its_own_colour_is_not_as_asked(scenes):
    for seed in range(20):
        layout, parts = scenes.lay(Random(seed), held_out=True, kind="colour")
        row, wanted = parts["rows"][0], scenes.colour(layout.puts[0].piece)
        right, wrong = (
            torch.tensor(scenes.draw_layout(one)).permute(2, 0, 1) / 255 for one in (layout, scenes.single(row))
        )
        assert colour_of(right, scenes.grounds) == scenes.grounds.index(wanted) != colour_of(wrong, scenes.grounds)


def test_what_is_asked_is_held_out_and_always_the_same_and_said_in_the_prompt(scenes):
    first, again = (ask(scenes, NamedCutouts(), 24, "beside", 9) for _ in range(2))
    assert [one.prompt for one in first] == [one.prompt for one in again]
    assert all(torch.equal(one.drawn, other.drawn) for one, other in zip(first, again, strict=True))
    for one in first:
        assert all(is_said(scenes.name(put.piece), one.prompt) for put in one.layout.puts)
    assert is_said("red berry", "two red berries") and not is_said("red berry", "a blue berry")
    named = CutoutScenes([{**one, "name": f"a long {one['name']}"} for one in scenes.things], scenes.cutouts)
    with refused(ValueError, 0, 9, "'beside'"):
        ask(named, NamedCutouts(), 24, "beside", 9)


def test_a_thing_is_cut_from_its_place_and_a_flat_picture_is_empty():
    picture = torch.ones(3, SIDE, SIDE)
    picture[0, SIDE // 2 :, : SIDE // 2] = 0
    assert cut(picture, 2, 0, 2)[0].max() < 0.05 and cut(picture, 0, 2, 2).min() > 0.95
    assert torch.equal(cut(picture, 0, 0, 4), picture)
    assert not is_empty(picture) and is_empty(torch.full((3, SIDE, SIDE), 0.4))


def test_the_table_and_the_numbers_say_the_same(scenes):
    found = judged(scenes, lambda drawn: drawn, count=4)
    numbers, lines = flat(found), table(found).splitlines()
    assert len(lines) == 2 + len(found) and lines[2].startswith(f"| {SINGLE} | ")
    assert f"| {100 * numbers['scenes/beside/painted/first_five']:.0f} (" in lines[3]
    assert "scenes/beside/real/as_asked" not in numbers
