"""A user's own set of named cut-outs: a folder of RGBA pictures, coloured shapes in a clear frame."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (220, 30, 30), "green": (30, 190, 40), "blue": (30, 40, 220), "teal": (30, 160, 160)}
SHAPES = ("ball", "box", "bar", "cross", "ring", "wedge")


def shape(name: str, side: int = 32) -> np.ndarray:
    """bool (side, side)."""
    y, x = np.mgrid[:side, :side] / (side - 1) * 2 - 1
    radius = np.hypot(x, y)
    return {
        "ball": radius < 0.85,
        "box": np.maximum(abs(x), abs(y)) < 0.8,
        "bar": (abs(x) < 0.9) & (abs(y) < 0.35),
        "cross": (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 0.9),
        "ring": (radius < 0.9) & (radius > 0.45),
        "wedge": (abs(x) < (y + 0.9) / 2) & (abs(y) < 0.9),
    }[name]


def write_cutouts(folder: Path) -> Path:
    """24 of them, each in two styles."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metadata.jsonl").open("w") as metadata:
        for i, (colour, rgb) in enumerate((colour, rgb) for _ in range(2) for colour, rgb in COLOURS.items()):
            for name in SHAPES:
                rgba = np.zeros((32, 32, 4), np.uint8)
                rgba[..., :3], rgba[..., 3] = rgb, 255 * shape(name)
                file = f"{i}-{name}.png"
                Image.fromarray(rgba).save(folder / file)
                row = {"file_name": file, "name": f"{colour} {name}", "keywords": ["toy"], "style": f"style {i // 4}"}
                metadata.write(json.dumps(row) + "\n")
    return folder
