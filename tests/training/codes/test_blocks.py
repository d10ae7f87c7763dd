"""Scenes put together of blocks of codes: those that encoding gives inside things, one code of the ground outside."""

import json
from random import Random

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from cutout_sets import write_cutouts
from messages import refused
from processes import ROOT
from squares import LOOP, draw_squares, tiny_dvae, write_preset

from dvae import DVAE, DVAEConfig
from pipelines import TextToImagePipeline
from training import encode_dataset, evaluate, train_dvae, train_prior, train_tokenizer
from training.codes.blocks import Blocks, ground_codes
from training.codes.cached import Collate, DrawnCodes
from training.codes.of_run import code_caches, codes_of
from training.loop.run_log import HELDOUT_SPLIT
from training.pictures.data_arguments import DataArguments
from training.pictures.in_memory import in_order, to_pixel_values
from training.pictures.layouts import OUTSIDE, Layout, corner
from training.presets.trainers import PriorTraining
from training.sets import KINDS, caption

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cutouts(tmp_path_factory) -> str:
    return str(write_cutouts(tmp_path_factory.mktemp("cutouts")))


def blocks_of(dvae: DVAE, path: str, folder, **data) -> tuple[Blocks, dict]:
    training = PriorTraining(blocks=True, codes=str(folder))
    caches = code_caches(dvae, DataArguments(path=path, **data), training, folder, KINDS)
    return codes_of(caches, dvae, training, Accelerator())


@pytest.fixture(scope="module")
def made(cutouts, tmp_path_factory) -> tuple[DVAE, Blocks, dict]:
    dvae = tiny_dvae().eval()
    return dvae, *blocks_of(dvae, cutouts, tmp_path_factory.mktemp("codes"))


def test_a_picture_is_its_own_codes_and_on_another_ground_those_where_it_shows_alone(made):
    dvae, blocks, _ = made
    grounds = ground_codes(dvae, blocks.composer, CPU)
    for row in (0, 9, 20):
        shown = blocks.composer.show(row)
        encoded = dvae.encode(to_pixel_values(torch.tensor(shown.picture).permute(2, 0, 1)[None], CPU))[0].numpy()
        parts, codes = blocks.single(row)
        alpha = blocks.composer.piece(row)[..., 3].reshape(4, 4, 4, 4).max((1, 3))
        assert np.array_equal(codes.view(4, 4), encoded)
        blue = blocks.codes(Layout(5, blocks.composer.single(row).puts))
        assert np.array_equal(blue.view(4, 4), np.where(alpha > 8, encoded, grounds[5]))
        assert parts["things"][0]["name"] == blocks.composer.name(row)


@pytest.mark.parametrize("kind", ["beside", "above", "ground", "four", "colour", "shape"])
def test_a_scene_is_its_blocks_in_their_places_on_one_code_of_the_ground(made, kind):
    dvae, blocks, _ = made
    grounds = ground_codes(dvae, blocks.composer, CPU)
    for seed in range(8):
        layout, parts = blocks.composer.lay(Random(seed), kind=kind)
        again, codes = blocks.scene(Random(seed), kind=kind)
        grid, free = codes.view(4, 4).numpy(), np.ones((4, 4), bool)
        assert again == parts and codes.dtype == torch.int64 and 0 <= codes.min() <= codes.max() < 16
        for put in layout.puts:
            block, (left, top) = blocks.block(put.piece), corner(put, 4)
            there = (slice(top, top + len(block)), slice(left, left + len(block)))
            assert np.array_equal(grid[there][block != OUTSIDE], block[block != OUTSIDE])
            free[there] &= block == OUTSIDE
        whole = layout.ground == 0 and blocks.composer.quarters(layout.puts[0].piece) == 4
        assert whole or (grid[free] == grounds[layout.ground][free]).all()


def test_inside_things_the_codes_are_those_of_the_drawn_scene(tmp_path):
    """Of the embedded dVAE: on white nearly all of them, on a colour those that see none of it."""
    dvae = TextToImagePipeline.from_pretrained().dvae.eval()
    source, _ = blocks_of(dvae, f"{ROOT}/training/data/emoji", tmp_path, max_pictures=40)
    same = {"white": [], "colour": []}
    for seed in range(60):
        layout, _ = source.composer.lay(Random(seed), kind=("beside", "above", "small")[seed % 3])
        drawn = torch.tensor(source.composer.draw_layout(layout)).permute(2, 0, 1)[None]
        encoded = dvae.encode(to_pixel_values(drawn, CPU))[0]
        inside = torch.ones(16, 16, dtype=torch.bool)
        grid = source.codes(layout).view(16, 16)
        thing = torch.zeros(16, 16, dtype=torch.bool)
        for put in layout.puts:
            block, (left, top) = source.block(put.piece), corner(put, 16)
            thing[top : top + 8, left : left + 8] |= torch.from_numpy(block != OUTSIDE)
        for shift in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            inside &= thing.roll(shift, (0, 1))
        where = inside & thing
        same["colour" if layout.ground else "white"].append((grid == encoded)[where].float())
    white, colour = (torch.cat(parts) for parts in same.values())
    assert len(white) > 300 and 0.93 < white.mean() <= 1
    assert len(colour) > 100 and 0.5 < colour.mean() <= 1


def test_draws_depend_on_their_place_alone_and_workers_give_the_same(made, tiny_tokenizer):
    _, blocks, _ = made
    settings = {"scene_share": 0.6, "caption_dropout": 0.1, "write": caption}
    drawn, again = (DrawnCodes(blocks, length=64, seed=4, **settings) for _ in range(2))
    assert [drawn[i][0] for i in range(64)] == [again[i][0] for i in range(63, -1, -1)][::-1]
    alone, workers = (list(in_order(drawn, 16, n, Collate(tiny_tokenizer))) for n in (0, 2))
    for one, other in zip(alone, workers, strict=True):
        assert torch.equal(one["codes"], other["codes"]) and torch.equal(one["text_ids"], other["text_ids"])
    other = DrawnCodes(blocks, length=64, seed=5, **settings)
    assert [drawn[i][0] for i in range(64)] != [other[i][0] for i in range(64)]


def test_what_is_evaluated_are_the_held_out_rows_and_scenes_of_held_out_pairs(made):
    _, blocks, unseen = made
    learned = {json.dumps(parts) for parts in blocks.parts}
    assert len(blocks.parts) == 46 and len(unseen["validation"]) == 2
    assert unseen["validation"].column_names == ["parts", "codes"]
    assert not {*unseen["validation"]["parts"]} & learned or len(learned) < 46
    assert all(len(codes) == 16 and min(codes) >= 0 for codes in unseen["validation"]["codes"])
    assert len(unseen[HELDOUT_SPLIT]) == 256
    for seed, parts in enumerate(unseen[HELDOUT_SPLIT]["parts"]):
        assert json.loads(parts) == json.loads(json.dumps(blocks.scene(Random(f"scene-0-{seed}"), held_out=True)[0]))


def test_a_cache_of_other_weights_or_another_layout_is_refused_and_a_half_one_goes_on(cutouts, tmp_path, monkeypatch):
    data, training = DataArguments(path=cutouts), PriorTraining(blocks=True, codes=str(tmp_path))
    monkeypatch.setattr("training.codes.cache.SHARD", 64)
    caches = code_caches(tiny_dvae(), data, training, tmp_path, KINDS)
    caches["train"].fill(Accelerator())
    first = [path.stat().st_mtime_ns for path in caches["train"].shards]
    assert len(first) > 2
    caches["train"].shards[1].unlink()
    again = code_caches(tiny_dvae(), data, training, tmp_path, KINDS)["train"]
    assert again.missing() == [1]
    again.fill(Accelerator())
    assert [i for i, path in enumerate(again.shards) if path.stat().st_mtime_ns != first[i]] == [1]
    torch.manual_seed(1)
    with refused(ValueError, "dvae", tmp_path / "train"):
        code_caches(DVAE(tiny_dvae().config), data, training, tmp_path, KINDS)
    monkeypatch.setattr("training.emoji.named_cutouts.NamedCutouts.version", 9)
    with refused(ValueError, "layout", 9, tmp_path / "train"):
        code_caches(tiny_dvae(), data, training, tmp_path, KINDS)


def test_captions_and_grids_that_do_not_fit_are_an_error(cutouts, tmp_path):
    squares = tmp_path / "squares"
    squares.mkdir()
    draw_squares(squares)
    with refused(ValueError, "training.blocks"):
        blocks_of(tiny_dvae(), str(squares), tmp_path / "codes")
    sizes = {"downsample_factor": 2, "codebook_size": 16, "codebook_dim": 8, "widths": [8, 8]}
    with refused(ValueError, "5²", 4):
        blocks_of(DVAE(DVAEConfig(image_size=10, **sizes)), cutouts, tmp_path / "codes")
    with refused(ValueError, "cached_scenes=5"):
        PriorTraining(blocks=True, cached_scenes=5)


@pytest.fixture
def preset_of_cutouts(cutouts, tmp_path) -> str:
    path = tmp_path / "preset.yaml"
    write_preset(path, cutouts, tmp_path / "run")
    sections = yaml.safe_load(path.read_text())
    sections["data"] |= {"scenes": 0.5, "scene_kinds": {"large": 0}}
    sections["tokenizer"] |= {"text_length": 32}
    sections["dvae"]["model"] |= {"encoder_padding": "replicate"}
    sections["dvae"]["training"] |= {"assembled_share": 0.5}
    sections["prior"]["training"] |= {**LOOP, "steps": 20, "blocks": True, "scene_share": 0.6}
    path.write_text(yaml.safe_dump(sections))
    return str(path)


def test_a_users_own_cutouts_from_nothing_to_a_pipeline_that_paints_and_resumed_runs_are_equal(
    preset_of_cutouts, cutouts, tmp_path, capsys
):
    preset, run = preset_of_cutouts, tmp_path / "run"
    train_tokenizer.main([preset])
    for trainer, name, at in ((train_dvae, "dvae", 20), (train_prior, "prior", 10)):
        flags = [preset, "--training.evaluate_every", "20", "--training.checkpoint_every", "10"]
        flags += ["--training.keep_checkpoints", "9"]
        whole = trainer.main(flags).state_dict()
        kept = str(run / f"{name}-checkpoints" / f"step-{at:07d}")
        resumed = trainer.main([*flags, "--training.resume_from", kept]).state_dict()
        assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    pipeline = TextToImagePipeline.from_pretrained(run / "pipeline")
    assert pipeline("a blue ball beside a red box", seed=0, progress_bar=False).images[0].size == (16, 16)
    numbers = json.loads((run / "pipeline/model_index.json").read_text())["metrics"]["prior"]
    assert numbers["heldout-pairs_image_loss"] > 0
    encode_dataset.main([preset])  # all is there
    capsys.readouterr()
    evaluate.main(["--model", str(run / "pipeline"), "--data.path", cutouts, "--surgery_pictures", "0"])
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    for name in ("validation_image_loss", "heldout-pairs_image_loss"):
        assert float(printed[name]) == pytest.approx(numbers[name], abs=0.2), "of codes put together, as it learned"


def test_a_preset_of_blocks_takes_captioned_pictures_by_their_path_alone(preset_of_cutouts, tmp_path, capsys):
    squares = tmp_path / "squares"
    squares.mkdir()
    flags = [preset_of_cutouts, "--data.path", str(draw_squares(squares))]
    train_tokenizer.main(flags)
    train_dvae.main([*flags, "--training.steps", "2", "--training.decoder_steps", "0"])
    train_prior.main([*flags, "--training.steps", "2"])
    assert "scenes, scene_share, blocks taken as 0" in capsys.readouterr().out
