"""Scores of pairs: their things cut out of the scene, and pairs that no training sees."""

import numpy as np
import pytest
import torch

from training.emoji.named_cutouts import CutoutScenes
from training.emoji.pair_scores import cut_things, heldout_pairs
from training.emoji.scenes import is_heldout_pair


@pytest.mark.parametrize("kind", ["beside", "above"])
def test_the_things_of_a_pair_are_cut_out_whole(kind):
    cutouts = [np.zeros((64, 64, 4), np.uint8) for _ in range(2)]
    for cutout, colour in zip(cutouts, ((220, 20, 20), (20, 20, 220)), strict=True):
        cutout[4:-4, 4:-4, :3], cutout[4:-4, 4:-4, 3] = colour, 255
        cutout[4:30, 4:30, :3] = 90  # a corner, so that a turned thing would be seen
    scenes = CutoutScenes([thing("card"), thing("sheet")], cutouts)
    alone = [scenes.draw_layout(scenes.single(row)) for row in range(2)]
    expected = torch.from_numpy(np.stack(alone)).permute(0, 3, 1, 2) / 255
    layout = scenes.layout_of({"kind": kind, "things": scenes.things, "rows": [0, 1]})
    scene = torch.tensor(scenes.draw_layout(layout)).permute(2, 0, 1) / 255
    found = cut_things(scene[None], torch.tensor([kind == "above"]))
    assert found.shape == (2, 3, 64, 64)
    assert (found - expected).abs().mean() < 0.03 < (found.flip(2) - expected).abs().mean()


def test_pairs_to_judge_are_held_out_and_always_the_same():
    things = [thing(f"thing {i}") for i in range(40)]
    composer = CutoutScenes(things, [np.full((16, 16, 4), 90, np.uint8)] * 40)
    pairs, again = heldout_pairs(composer, 12), heldout_pairs(composer, 12)
    assert torch.equal(pairs.images, again.images) and pairs.prompts == again.prompts
    assert pairs.images.shape == (12, 3, 16, 16) and 0 < pairs.vertical.sum() < 12
    for prompt, names, above in zip(pairs.prompts, pairs.names, pairs.vertical, strict=True):
        assert is_heldout_pair(*names) and prompt == f"a {names[0]} {'above' if above else 'beside'} a {names[1]}"


def thing(name: str) -> dict:
    return {"name": name, "keywords": [], "style": "noto"}
