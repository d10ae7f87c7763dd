"""Duplicates, exact and near, and the hash that finds them."""

import json

import numpy as np
from PIL import Image

from training.pictures.data_arguments import DataArguments
from training.pictures.report import difference_hash, look_through
from training.pictures.splits import load_split


def test_duplicates_are_exact_or_near(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((64, 64)) for _ in range(30)]
    folder = tmp_path / "set"
    folder.mkdir()
    images = [*pictures, pictures[3], pictures[4].resize((128, 128), 0), pictures[5].resize((192, 64), 0)]
    lines = []
    for i, image in enumerate(images):
        image.save(folder / f"{i}.png")
        lines.append(json.dumps({"image": f"{i}.png", "text": f"number {i}"}))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    data = DataArguments(path=str(folder / "rows.jsonl"), validation_split="train")
    report = look_through(load_split(data, "train"), data, lambda texts: [1] * len(texts), "words", "train")
    found = {
        kind: [[where.rpartition(" ")[2] for where in g] for g in groups]
        for kind, groups in report.duplicates().items()
    }
    assert found == {"exact": [["3", "30"]], "near": [["4", "31"], ["5", "32"]]}
    numbers = report.numbers()
    assert (numbers["exact_duplicates"], numbers["near_duplicates"]) == (1, 2)


def test_a_difference_hash_has_a_bit_for_each_rise_to_the_right():
    rising = Image.fromarray(np.tile(np.arange(0, 180, 20, dtype=np.uint8), (8, 1)))
    assert difference_hash(rising) == 2**64 - 1
    assert difference_hash(rising.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) == 0
