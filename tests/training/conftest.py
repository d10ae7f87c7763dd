"""A user's own pictures, and a preset that learns them."""

from pathlib import Path

import pytest
from squares import draw_squares, write_preset


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """40 squares on white, their colour as caption."""
    return draw_squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture
def preset(pictures, tmp_path) -> str:
    return write_preset(tmp_path / "preset.yaml", pictures, tmp_path / "run")
