"""The paper's crops: what they show of a picture, and when it is drawn by them."""

import random
from collections import Counter

import broken_sets
import numpy as np
import pytest
import torch

from training.pictures.crops import dvae_crop, prior_crop
from training.pictures.data_arguments import DataArguments
from training.pictures.in_memory import DrawnPictures, Pictures
from training.pictures.splits import load_split


@pytest.mark.parametrize("crop", [dvae_crop, prior_crop])
@pytest.mark.parametrize(("height", "width"), [(20, 20), (40, 90), (200, 64), (10, 12)])
def test_a_crop_is_square_shows_part_of_the_picture_and_depends_on_its_generator_alone(crop, height, width):
    """Red says the row, green the column: a crop's are those of one square inside the picture."""
    rows = torch.linspace(0, 255, height)[:, None].expand(height, width)
    columns = torch.linspace(0, 255, width)[None].expand(height, width)
    image = torch.stack([rows, columns, rows * 0]).to(torch.uint8)
    crops = [crop(image, 16, random.Random(seed)) for seed in range(40)]
    assert all(c.shape == (3, 16, 16) and c.dtype == torch.uint8 for c in crops)
    assert torch.equal(crops[7], crop(image, 16, random.Random(7)))
    assert len({c.numpy().tobytes() for c in crops}) >= (10 if min(height, width) > 16 else 1)
    seen = np.array([[c[0].float().mean() / 255 * height, c[1].float().mean() / 255 * width] for c in crops])
    assert abs(seen.mean(0) / (height, width) - 0.5).max() < 0.1, "on average about the centre"


def test_the_priors_crop_stays_near_the_centre_and_the_dvaes_reaches_the_ends():
    image = (torch.arange(800) // 4)[None, None].expand(3, 100, 800).to(torch.uint8)  # 100 × 800, says its column
    middles = {c: [4 * c(image, 16, random.Random(i))[0].float().mean() for i in range(200)] for c in CROPS}
    assert 100 / 3 - 2 < min(middles[dvae_crop]) < 110 and 690 < max(middles[dvae_crop]) < 800 - 100 / 3 + 2
    first, last = 700 * 3 // 8 + 800 / 18, 700 * 5 // 8 + 1000 / 18  # middles of the outermost crops
    assert first - 3 < min(middles[prior_crop]) < 330 and 470 < max(middles[prior_crop]) < last + 3


CROPS = [dvae_crop, prior_crop]


def test_drawn_pictures_are_cropped_in_training_and_centred_in_evaluation(tmp_path):
    path = broken_sets.write("parquet", tmp_path)
    centre, crops = DataArguments(path=path), DataArguments(path=path, crop="dalle")
    plain, cropped = (Pictures(load_split(data, "train"), data, 16) for data in (centre, crops))
    same = sum(np.array_equal(plain.single(i)[0], cropped.single(i)[0]) for i in range(len(plain)))
    assert same == len(plain)
    first, again = (DrawnPictures(cropped, 400, seed=0) for _ in range(2))
    assert torch.equal(first[123], again[123])
    of_one = Counter(first[i].numpy().tobytes() for i in range(400))
    assert len(of_one) > 2 * len(cropped), "a picture is cropped otherwise in another epoch"
