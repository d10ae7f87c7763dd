"""A set that is a Python file: the example of training/README.md, from its draws to a pipeline that paints."""

import json
import re
from pathlib import Path
from random import Random

import numpy as np
import pytest
import yaml
from messages import refused
from processes import ROOT
from squares import write_preset

from pipelines import TextToImagePipeline
from training import train_dvae, train_prior, train_tokenizer, validate_data
from training.codes.of_run import code_caches
from training.loop.run_log import HELDOUT_SPLIT
from training.pictures.data_arguments import DataArguments
from training.pictures.generated import composer_in
from training.pictures.in_memory import Pictures
from training.pictures.splits import load_split
from training.presets.trainers import PriorTraining


@pytest.fixture
def shapes(tmp_path) -> str:
    text = (ROOT / "training/README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?class Shapes.*?)```", text, flags=re.S)
    path = tmp_path / "shapes.py"
    path.write_text(code)
    return str(path)


def test_rows_are_draws_that_repeat_and_what_is_held_out_is_in_no_other_split(shapes):
    data = DataArguments(path=shapes)
    train, validation = (load_split(data, split) for split in ("train", "validation"))
    assert (len(train), len(validation)) == (2000, 100)
    captions = [row.columns["text"] for row in train.rows()]
    assert len(set(captions)) == 11 and "a blue circle" not in captions
    assert {row.columns["text"] for row in validation.rows()} == {"a blue circle"}
    again = [row.columns for row in load_split(data, "train").rows(300, 310)]
    assert [row.columns for row in train.rows(300, 310)] == again
    pictures = Pictures(validation, data, 32)
    assert not np.array_equal(pictures.single(0)[0], pictures.single(1)[0])


def test_scenes_are_fresh_draws(shapes):
    data = DataArguments(path=shapes)
    pictures = Pictures(load_split(data, "train"), data, 32)
    image, parts = pictures.scene(Random("a"))
    assert image.shape == (32, 32, 3) and parts["text"] != "a blue circle"
    assert np.array_equal(image, pictures.scene(Random("a"))[0])
    assert pictures.scene(Random("a"), held_out=True)[1] == {"text": "a blue circle"}


def test_scenes_are_held_out_where_the_set_says_so_alone(shapes, tiny_dvae, tmp_path):
    other = Path(shapes).with_name("others.py")
    other.write_text(Path(shapes).read_text().replace("holds_out = 2000, True", "holds_out = 2000, False"))
    training = PriorTraining(cached_scenes=4, scene_share=0.5)
    for path, splits in ((shapes, {"train", "validation", HELDOUT_SPLIT}), (str(other), {"train", "validation"})):
        assert set(code_caches(tiny_dvae, DataArguments(path=path), training, tmp_path)) == splits


def test_every_trainer_takes_it(shapes, tmp_path):
    preset = write_preset(tmp_path / "preset.yaml", shapes, tmp_path / "run")
    sections = yaml.safe_load((tmp_path / "preset.yaml").read_text())
    sections["data"] |= {"scenes": 0.5}
    sections["prior"]["training"] |= {"cached_scenes": 30, "scene_share": 0.5}
    (tmp_path / "preset.yaml").write_text(yaml.safe_dump(sections))
    for trainer in (train_tokenizer, train_dvae, train_prior):
        trainer.main([preset])
    pipeline = TextToImagePipeline.from_pretrained(tmp_path / "run" / "pipeline")
    assert pipeline("a red square", seed=0, progress_bar=False).images[0].size == (16, 16)
    numbers = json.loads((tmp_path / "run/pipeline/model_index.json").read_text())["metrics"]["prior"]
    assert numbers["heldout-pairs_image_loss"] > 0
    assert validate_data.main(["--data.path", shapes, "--out", str(tmp_path / "report")]) == 0


def test_a_file_must_have_one_composer(shapes, tmp_path):
    (tmp_path / "none.py").write_text("x = 1\n")
    with refused(ValueError, tmp_path / "none.py", 0):
        composer_in(str(tmp_path / "none.py"))
    with refused(ValueError, tmp_path / "nowhere.py"):
        load_split(DataArguments(path=str(tmp_path / "nowhere.py")), "train")
