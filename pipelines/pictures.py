"""Painted pictures as PNG files that say what made them."""

import json
import re
import unicodedata
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

if TYPE_CHECKING:
    from .output import TextToImagePipelineOutput


def save_pictures(
    output: "TextToImagePipelineOutput", out: Path, *, columns: int | None = None, made_by: dict[str, Any]
) -> list[Path]:
    """Save a file each, or one sheet of all.

    Args:
        output: with PIL images.
        out: a folder, made when it is not there, or a name that ends in .png.
        columns: pictures in a row of the sheet; None is a file each.
        made_by: for the metadata, beside prompt, seed and sampling: the model's name and what else was given.

    Returns the paths. A file that `out` names is written over; a name made up here never is, it gets a number instead.
    """
    if columns is not None:
        name = f"{slug(output.prompts[0])}-seed{output.seeds[0]}-grid"
        pictures = [(make_grid(output.images, columns), output.prompts, output.seeds, name)]
    else:
        names = [f"{slug(p)}-seed{s}" for p, s in zip(output.prompts, output.seeds, strict=True)]
        pictures = list(zip(output.images, output.prompts, output.seeds, names, strict=True))
    paths = []
    for image, prompt, seed, name in pictures:
        path = out if is_file_name(out) else free_path(out, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        own = {"prompt": prompt, "seed": seed, "sampling": asdict(output.sampling)}
        image.save(path, pnginfo=png_text({**own, **made_by}))
        paths.append(path)
    return paths


def png_text(entries: dict[str, Any]) -> PngInfo:
    """PNG text chunks: strings as they are, anything else as JSON; `Image.open(path).text` reads them."""
    info = PngInfo()
    for key, value in {**entries, "Software": "armchair"}.items():
        info.add_text(key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return info


def make_grid(images: list[Image.Image], columns: int) -> Image.Image:
    """One sheet, row by row, without gaps."""
    width, height = images[0].size
    sheet = Image.new("RGB", (columns * width, -(-len(images) // columns) * height), "white")
    for i, image in enumerate(images):
        sheet.paste(image, (i % columns * width, i // columns * height))
    return sheet


def slug(prompt: str) -> str:
    """A file name from a prompt: letters and digits of any script, hyphens between, 50 characters at most."""
    text = unicodedata.normalize("NFKC", prompt).lower()
    return re.sub(r"[\W_]+", "-", text).strip("-")[:50].rstrip("-") or "picture"


def free_path(folder: Path, name: str) -> Path:
    """folder/name.png, or name-2, name-3, … where that exists."""
    path, i = folder / f"{name}.png", 2
    while path.exists():
        path, i = folder / f"{name}-{i}.png", i + 1
    return path


def is_file_name(path: Path) -> bool:
    """Whether this names one picture rather than a folder for pictures."""
    return path.suffix.lower() == ".png" and not path.is_dir()
