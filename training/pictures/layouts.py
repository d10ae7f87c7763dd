"""Scenes laid out of pieces: cut-outs at places of a flat ground, drawn as pixels, or put together of cells.

    | A A . . |    A piece takes the whole canvas or half of its side. Its place is a whole number of quarters, so
    | A A . . |    that on any grid of codes whose side 4 divides a piece keeps its codes wherever it stands.
    | . . B B |
    | . . B B |

A cell of a grid is a code, or whatever else stands for a square of pixels; OUTSIDE marks the cells of a piece that
show nothing of it, and are left to the ground.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

import numpy as np
from PIL import Image

from .kinds import Composer, Parts

QUARTERS = 4  # of the canvas, along a side
OUTSIDE = -1
SEEN = 8  # of 255: the alpha from which on a pixel counts as the piece's
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

    def draw_layout(self, layout: Layout) -> np.ndarray:
        """RGB uint8 (S, S, 3)."""
        drawn = {put.piece: self.piece(put.piece) for put in layout.puts}
        side = max(QUARTERS * len(drawn[put.piece]) // self.quarters(put.piece) for put in layout.puts)
        canvas = Image.new("RGBA", (side, side), (*self.grounds[layout.ground], 255))
        for put in layout.puts:
            canvas.alpha_composite(Image.fromarray(drawn[put.piece]), corner(put, side))
        return np.asarray(canvas.convert("RGB"))

    def shown_alone(self, piece: int) -> tuple[np.ndarray, Put]:
        """A piece in the middle of the first ground, RGB uint8 (S, S, 3), and where it is put."""
        middle = (QUARTERS - self.quarters(piece)) // 2
        put = Put(piece, middle, middle)
        return self.draw_layout(Layout(0, (put,))), put


def corner(put: Put, side: int) -> tuple[int, int]:
    """Left and top of a piece on a canvas, or a grid, of a side."""
    return put.left * side // QUARTERS, put.top * side // QUARTERS


def outside(rgba: np.ndarray, cells: int) -> np.ndarray:
    """A piece (s, s, 4) as a square of cells (cells, cells): which of them show nothing of it."""
    step = len(rgba) // cells
    return rgba[..., 3].reshape(cells, step, cells, step).max((1, 3)) <= SEEN


def put_together(layout: Layout, grounds: np.ndarray, block: Callable[[int], np.ndarray], side: int) -> np.ndarray:
    """
    A grid (side, side) of cells: everywhere that of the ground, of `grounds` (G,), but where a piece is put those of
    its block (n, n) that are not OUTSIDE.
    """
    grid = np.full((side, side), grounds[layout.ground], grounds.dtype)
    for put in layout.puts:
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
