"""Scenes for a first stage to put together: it encodes the pieces and the flat ground, decodes their cells in the
scene's places, and is to paint the scene as it is drawn. So the codes at a thing's edge need say nothing of the
ground, which the decoder takes from the cells beside.
"""

import random
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .in_memory import DrawnPictures
from .layouts import OUTSIDE, LaidOut, check_grid, check_laid_out, put_together


class Example(NamedTuple):
    """
    images: uint8 (m, 3, S, S), a picture, or the pieces of a scene. cells: int64 (N, N), of each its place among the
    images' m·N·N, OUTSIDE where the ground is. scene: uint8 (3, S, S), None of a picture. ground: its number.
    """

    images: Tensor
    cells: Tensor
    scene: Tensor | None = None
    ground: int = 0


class Assembly(NamedTuple):
    """
    images: uint8 (M, 3, S, S) to encode: W pictures, then pieces and flat grounds. scenes: uint8 (D, 3, S, S).
    cells: int64 (W + D, N, N), of the pictures and then of the scenes: each one's place among the images' M·N·N.
    """

    images: Tensor
    scenes: Tensor
    cells: Tensor


class AssembledPictures(torch.utils.data.Dataset):
    """The draws of `drawn`, each with probability `share` a scene to be put together on a grid of `side`² cells."""

    def __init__(self, drawn: DrawnPictures, share: float, side: int):
        check_grid(side)
        self.drawn, self.share, self.side, self.composer = drawn, share, side, composer_of(drawn)

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, i: int) -> Example:
        rng, own = random.Random(f"assembled-{self.drawn.seed}-{i}"), self.side**2
        if rng.random() >= self.share:
            return Example(self.drawn[i][None], torch.arange(own).view(self.side, self.side))
        layout, _ = self.composer.lay(rng)
        pieces = {put.piece: self.composer.piece(put.piece) for put in layout.puts}
        shown = {piece: self.composer.show(piece, rgba) for piece, rgba in pieces.items()}
        places = np.arange(len(shown) * own).reshape(-1, self.side, self.side)
        blocks = {piece: one.block(grid) for (piece, one), grid in zip(shown.items(), places, strict=True)}
        cells = put_together(layout.puts, blocks.__getitem__, self.side)
        images = torch.stack([to_image(one.picture) for one in shown.values()])
        scene = to_image(self.composer.draw_layout(layout, pieces))
        return Example(images, torch.from_numpy(cells), scene, layout.ground)

    def collate(self, examples: list[Example]) -> Assembly:
        """Pictures first; of each ground that is seen one flat picture, whose cells it has, each in its place."""
        examples = sorted(examples, key=lambda example: example.scene is not None)
        scenes = [example.scene for example in examples if example.scene is not None]
        grounds = sorted({example.ground for example in examples if example.scene is not None})
        images = [example.images for example in examples]
        starts = np.cumsum([0, *map(len, images)]) * self.side**2
        own = torch.arange(self.side**2).view(self.side, self.side)
        flat = {ground: int(starts[-1]) + i * self.side**2 + own for i, ground in enumerate(grounds)}
        cells = [
            torch.where(example.cells == OUTSIDE, flat.get(example.ground, own), example.cells + start)
            for example, start in zip(examples, starts[:-1].tolist(), strict=True)
        ]
        images += [self.flat(ground)[None] for ground in grounds]
        none = torch.empty(0, *images[0].shape[1:], dtype=torch.uint8)
        drawn = torch.stack(scenes) if scenes else none
        return Assembly(torch.cat(images), drawn, torch.stack(cells))

    def flat(self, ground: int) -> Tensor:
        """A picture of a ground alone: uint8 (3, S, S)."""
        size = self.drawn.pictures.image_size
        return torch.tensor(self.composer.grounds[ground], dtype=torch.uint8)[:, None, None].expand(3, size, size)


def to_image(picture: np.ndarray) -> Tensor:
    """uint8 (S, S, 3) -> (3, S, S)."""
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)


def composer_of(drawn: DrawnPictures) -> LaidOut:
    """Raises a ValueError where the set lays nothing out."""
    check_laid_out(drawn.pictures.kind.lays_out, "training.assembled_share to 0")
    return drawn.pictures.laid_out
