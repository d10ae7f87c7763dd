"""A set that is a Python file: the `Composer` in it draws all pictures, its rows among them.

    python -m training.train_dvae PRESET --data.path shapes.py

The file is run, as Python runs a file: give one of your own.
"""

import functools
import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from random import Random

from .kinds import Captioned, Composer, Parts, parts_of
from .layouts import LaidOut
from .readers import ROWS_A_UNIT, Reader, Row

HELD_OUT = 20  # rows to train on for one that is held out, where the composer holds out anything


@functools.cache
def composer_in(path: str) -> Composer:
    """The one that a file defines. Raises a ValueError where that is none, or more than one."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None and spec.loader is not None  # as of every name in .py
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except OSError as error:
        raise ValueError(f"no data at {path}: {error.strerror}") from error
    own = [kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__]
    found = [kind for kind in own if issubclass(kind, Composer)]
    if len(found) != 1:
        raise ValueError(f"{path} has {len(found)} classes of training.pictures.kinds.Composer: it must have one")
    return found[0]()


class GeneratedReader(Reader):
    """Row i is the draw of a generator seeded with i, encoded as a PNG: what other files hold."""

    def __init__(self, path: str, held_out: bool = False):
        composer = composer_in(path)
        super().__init__(path)
        self.columns, self.held_out = ["image", "text"], held_out
        rows = max(composer.pictures // HELD_OUT, 1) if held_out else composer.pictures
        self.lengths = [min(ROWS_A_UNIT, rows - start) for start in range(0, rows, ROWS_A_UNIT)]

    @property
    def composer(self) -> Composer:
        return composer_in(self.path)  # of the process that asks: workers draw by their own

    def read(self, unit: int, columns: list[str] | None = None) -> Sequence[Row]:
        first = self.first(unit)
        return [self._row(first + i) for i in range(self.lengths[unit])]

    def _row(self, i: int) -> Row:
        kind = "held out" if self.held_out else "row"
        picture, caption = self.composer.draw(Random(f"{kind}-{i}"), self.held_out)
        file = io.BytesIO()
        picture.save(file, "PNG")
        where = f"{self.path}, {kind} {i}"
        return Row(where, {"image": {"bytes": file.getvalue(), "path": None}, **parts_of(caption)})

    def digest(self) -> str:
        return f"{super().digest()} {self.held_out} {sum(self.lengths)}"

    def sketch(self) -> str:
        return f"{super().sketch()} {self.held_out} {sum(self.lengths)}"


class Generated(Captioned):
    """Rows and scenes alike are the composer's draws."""

    composes = True

    def __init__(self, composer: Composer):
        super().__init__("text")
        self.own, self.version, self.lays_out = composer, composer.version, isinstance(composer, LaidOut)
        self.holds_out = composer.holds_out

    def composer(self, parts: Sequence[Parts], kept: Sequence) -> Composer:
        return self.own
