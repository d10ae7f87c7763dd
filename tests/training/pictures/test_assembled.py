"""What a first stage puts together: cells of pieces on a ground, in the places of the scene that is its target."""

from random import Random

import pytest
import torch
from cutout_sets import write_cutouts
from messages import refused
from squares import draw_squares, tiny_dvae

from training.adversaries.adversary_settings import StyleSettings
from training.pictures.assembled import AssembledPictures
from training.pictures.data_arguments import DataArguments
from training.pictures.in_memory import DrawnPictures, Pictures
from training.pictures.layouts import OUTSIDE
from training.pictures.splits import load_split
from training.presets.trainers import DVAETraining
from training.sets import KINDS
from training.train_dvae import on_device

SIDE, CPU = 4, torch.device("cpu")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> DrawnPictures:
    data = DataArguments(path=str(write_cutouts(tmp_path_factory.mktemp("cutouts"))))
    return DrawnPictures(Pictures(load_split(data, "train", KINDS), data, 16), length=200, seed=0)


def test_a_share_of_the_draws_are_scenes_the_same_again_and_the_others_are_pictures(drawn):
    made, again = (AssembledPictures(drawn, 0.4, SIDE) for _ in range(2))
    examples = [made[i] for i in range(200)]
    scenes = [i for i, example in enumerate(examples) if example.scene is not None]
    assert len(scenes) / 200 == pytest.approx(0.4, abs=0.1)
    for i in scenes:
        layout, _ = drawn.pictures.composer.lay(after(f"assembled-0-{i}"))
        assert torch.equal(
            examples[i].scene.permute(1, 2, 0), torch.tensor(drawn.pictures.composer.draw_layout(layout))
        )
        assert torch.equal(examples[i].cells, again[i].cells) and torch.equal(examples[i].images, again[i].images)
    whole = next(i for i in range(200) if i not in scenes)
    assert torch.equal(examples[whole].images[0], drawn[whole])


def after(seed: str) -> Random:
    """A generator from which the choice between scene and picture is drawn already."""
    rng = Random(seed)
    rng.random()
    return rng


def test_the_cells_of_a_batch_show_its_scenes(drawn):
    """Pixels in place of latents: of each cell the mean colour, put together, is that of the drawn scene's cell, but
    where a piece's edge lets the ground through."""
    made = AssembledPictures(drawn, 0.5, SIDE)
    examples = [made[i] for i in range(24)]
    batch = made.collate(examples)
    encoded, cells, target = on_device(batch, CPU)
    assert len(target) == 24 == len(cells) and len(encoded) > 24
    assert cells.min() >= 0 and cells.max() < len(encoded) * SIDE**2
    means = torch.nn.functional.avg_pool2d(encoded, 16 // SIDE).movedim(1, -1).flatten(0, 2)
    built = means[cells]  # (24, N, N, 3)
    wanted = torch.nn.functional.avg_pool2d(target, 16 // SIDE).movedim(1, -1)
    ordered = sorted(examples, key=lambda example: example.scene is not None)
    ground = torch.stack([example.cells == OUTSIDE for example in ordered])
    whole = torch.tensor([example.scene is None for example in ordered])
    assert ground.any() and not ground[whole].any() and whole.any()
    torch.testing.assert_close(built[whole], wanted[whole])
    torch.testing.assert_close(built[ground], wanted[ground], atol=0.04, rtol=0)  # up to 8 of 255 show through
    on_white = torch.tensor([example.ground == 0 for example in ordered]) & ~whole
    torch.testing.assert_close(built[on_white], wanted[on_white], atol=0.04, rtol=0)


def test_a_batch_without_scenes_or_without_pictures_is_whole_too(drawn):
    for share in (0.0, 1.0):
        made = AssembledPictures(drawn, share, SIDE)
        encoded, cells, target = on_device(made.collate([made[i] for i in range(6)]), CPU)
        assert len(target) == len(cells) == 6 and (share == 1.0 or torch.equal(encoded, target))
        dvae = tiny_dvae()
        assert dvae(encoded, cells=cells).maps.shape == (6, 6, 16, 16)


def test_what_cannot_be_put_together_is_an_error(drawn, tmp_path):
    with refused(ValueError, "6²", 4, "training.assembled_share"):
        AssembledPictures(drawn, 0.5, 6)
    data = DataArguments(path=str(draw_squares(tmp_path)))
    squares = DrawnPictures(Pictures(load_split(data, "train", KINDS), data, 16), length=9, seed=0)
    with refused(ValueError, "training.assembled_share"):
        AssembledPictures(squares, 0.5, SIDE)
    with refused(ValueError, "assembled_share=0.5", "style_adversary"):
        DVAETraining(assembled_share=0.5, style_adversary=StyleSettings())
    with refused(ValueError, "assembled_share=1.5"):
        DVAETraining(assembled_share=1.5)


def test_pixels_of_a_piece_reach_the_scene_through_the_model_and_the_gradient_goes_back(drawn):
    made = AssembledPictures(drawn, 1.0, SIDE)
    encoded, cells, _ = on_device(made.collate([made[i] for i in range(3)]), CPU)
    dvae = tiny_dvae()
    dvae(encoded, cells=cells).maps.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in dvae.encoder.parameters())
    own = torch.arange(len(encoded) * SIDE**2).view(-1, SIDE, SIDE)
    with torch.no_grad():
        torch.testing.assert_close(dvae.decode_argmax(encoded, own).maps, dvae.decode_argmax(encoded).maps)
