"""A user's own pictures, and a preset that learns them."""

from pathlib import Path

import pytest
from squares import draw_squares, write_preset
from trained import Trained

from training import train_dvae, train_tokenizer


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """40 squares on white, their colour as caption."""
    return draw_squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture
def preset(pictures, tmp_path) -> str:
    return write_preset(tmp_path / "preset.yaml", pictures, tmp_path / "run")


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory) -> Trained:
    folder = tmp_path_factory.mktemp("engines")
    trained = Trained(folder, write_preset(folder / "preset.yaml", pictures, folder / "run"))
    train_tokenizer.main([trained.preset])
    train_dvae.main([trained.preset, "--training.steps", "12"])
    trained.one_process("one")
    return trained
