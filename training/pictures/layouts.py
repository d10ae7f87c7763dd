"""Scenes laid out of pieces: cut-outs at places of a flat ground, drawn as pixels, or put together of cells.

    | A A . . |    A piece takes the whole canvas or half of its side. Its place is a whole number of quarters, so
    | A A . . |    that on any grid of codes whose side 4 divides a piece keeps its codes wherever it stands.
    | . . B B |
    | . . B B |

A cell of a grid is a code, or whatever else stands for a square of pixels; OUTSIDE marks the cells of a piece that
show nothing of it, and are left to the ground.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import NamedTuple

import numpy as np
from PIL import Image

from .kinds import Composer, Parts

QUARTERS = 4  # of the canvas, along a side
OUTSIDE = -1
UNSEEN = 8  # of 255: up to that alpha a pixel shows nothing of its piece
Colour = tuple[int, int, int]


class Put(NamedTuple):
    """A piece by its number, the quarters above it, and those to its left."""

    piece: int
    top: int
    left: int


class Layout(NamedTuple):
    """The number of the ground, and the pieces on it, which do not overlap."""

    ground: int
    puts: tuple[Put, ...]


class LaidOut(Composer):
    """
    A composer whose scenes are laid out of pieces. It can then be drawn, as any, and also be put together of the codes
    of its pieces (codes/blocks.py).

    grounds: flat colours; the first is the one that a piece is shown on alone.
    """

    grounds: Sequence[Colour] = ((255, 255, 255),)

    @property
    @abstractmethod
    def pieces(self) -> int:
        """How many there are, numbered from 0."""

    @abstractmethod
    def quarters(self, piece: int) -> int:
        """The side of a piece: 4, the whole canvas, or 2."""

    @abstractmethod
    def piece(self, piece: int) -> np.ndarray:
        """RGBA uint8 (s, s, 4), s the canvas' side or its half."""

    @abstractmethod
    def name(self, piece: int) -> str:
        """What is to be seen in a piece, in the words of its row's name."""

    def colour(self, piece: int) -> Colour | None:
        """The one of `grounds` that a piece is given instead of its own colour, where it is."""
        return None

    @abstractmethod
    def single(self, row: int) -> Layout:
        """Row `row` of the set alone."""

    @abstractmethod
    def lay(self, rng: Random, held_out: bool = False, kind: str | None = None) -> tuple[Layout, Parts]:
        """A scene, as `draw` has it; of one of `kinds`, or of the one that is named."""

    def draw(self, rng: Random, held_out: bool = False) -> tuple[Image.Image, Parts]:
        layout, parts = self.lay(rng, held_out)
        return Image.fromarray(self.draw_layout(layout)), parts

    def draw_caption(self, rng: Random) -> Parts:
        return self.lay(rng)[1]

    def draw_layout(self, layout: Layout, drawn: Mapping[int, np.ndarray] | None = None) -> np.ndarray:
        """RGB uint8 (S, S, 3). drawn: its pieces, where they are there already."""
        drawn = drawn or {put.piece: self.piece(put.piece) for put in layout.puts}
        side = max(QUARTERS * len(drawn[put.piece]) // self.quarters(put.piece) for put in layout.puts)
        canvas = Image.new("RGBA", (side, side), (*self.grounds[layout.ground], 255))
        for put in layout.puts:
            canvas.alpha_composite(Image.fromarray(drawn[put.piece]), corner(put, side))
        return np.asarray(canvas.convert("RGB"))

    def show(self, piece: int, rgba: np.ndarray | None = None) -> "Shown":
        """A piece alone. rgba: itself, where it is there already."""
        rgba = self.piece(piece) if rgba is None else rgba
        middle = (QUARTERS - self.quarters(piece)) // 2
        put = Put(piece, middle, middle)
        return Shown(self.draw_layout(Layout(0, (put,)), {piece: rgba}), put, rgba)


class Shown(NamedTuple):
    """
    A piece in the middle of the first ground: the picture RGB uint8 (S, S, 3), where it is put, and the piece itself.
    """

    picture: np.ndarray
    put: Put
    rgba: np.ndarray

    def block(self, grid: np.ndarray) -> np.ndarray:
        """Cells of the picture (N, N) -> those of the piece (n, n), OUTSIDE where they show nothing of it."""
        side = len(grid)
        (left, top), n = corner(self.put, side), side * len(self.rgba) // len(self.picture)
        step = len(self.rgba) // n
        unseen = self.rgba[..., 3].reshape(n, step, n, step).max((1, 3)) <= UNSEEN
        return np.where(unseen, OUTSIDE, grid[top : top + n, left : left + n])


def corner(put: Put, side: int) -> tuple[int, int]:
    """Left and top of a piece on a canvas, or a grid, of a side."""
    return put.left * side // QUARTERS, put.top * side // QUARTERS


def put_together(
    puts: Sequence[Put], block: Callable[[int], np.ndarray], side: int, ground: int | np.ndarray = OUTSIDE
) -> np.ndarray:
    """
    A grid (side, side) of cells: those of `ground`, one for all or (side, side), but where a piece is put those of its
    block (n, n) that are not OUTSIDE.
    """
    grid = np.full((side, side), ground)
    for put in puts:
        cells, (left, top) = block(put.piece), corner(put, side)
        there = grid[top : top + len(cells), left : left + len(cells)]
        np.copyto(there, cells, where=cells != OUTSIDE)
    return grid


def check_grid(side: int) -> None:
    """Raises a ValueError where pieces at quarters of the canvas would not fall on whole cells."""
    if side % QUARTERS:
        raise ValueError(
            f"a grid of {side}² codes cannot be put together of blocks at quarters of its side: it must be divisible "
            f"by {QUARTERS}; or leave training.blocks and training.assembled_share out"
        )


def check_laid_out(lays_out: bool, remedy: str) -> None:
    """Raises a ValueError where the scenes of a set are not laid out of pieces."""
    if not lays_out:
        raise ValueError(f"the set draws no scenes that are laid out of pieces (layouts.LaidOut): set {remedy}")
