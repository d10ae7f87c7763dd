"""Build the captioned pictures of `training/data/emoji` from openly licensed packages.

    python -m training.emoji.build

Needs the extra `data`, the clients `npm`, `apt-get` and `dpkg`, and a network; about four minutes on one core.
Emoji come in four styles, their names and keywords from Unicode's CLDR; the drawings of Open Clip Art that
`training/data/clipart.tsv` names were chosen by eye. See `training/data/emoji/README.md` for sources and licences.
"""

import hashlib
import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PillowImage

from dvae import read_picture
from pipelines.commands import OneLineParser

from ..loop.command import run_command
from .armchair import COLOURS, WOODS, ArmchairShape, draw_armchair, tint
from .cutouts import encode, fit, is_visible, make_opaque, render
from .packages import (
    CLIPART,
    EMOJI,
    ICONS,
    NAMES,
    OWN,
    Package,
    download,
    download_clipart,
    iconify_svg,
    read_json,
    read_member,
)

SHARD_ROWS = 3000
HELD_OUT = 0.05  # of an emoji's pictures; at most one a concept, so about 4 % of all
STYLES_LEFT = 2  # a held-out picture leaves at least so many of its concept in training
TABLES = Path(__file__).parent.parent / "data"
FEATURES = Features(
    image=Image(),
    name=Value("string"),
    keywords=List(Value("string")),
    style=Value("string"),
    emoji=Value("string"),
    source=Value("string"),
    license=Value("string"),
    attribution=Value("string"),
)
KEPT_SYMBOLS = frozenset(
    """warning|radioactive|biohazard|atom symbol|wheel of dharma|yin yang|latin cross|orthodox cross|star and crescent
peace symbol|menorah|aries|taurus|gemini|cancer|leo|virgo|libra|scorpio|sagittarius|capricorn|aquarius|pisces
ophiuchus|star of david|infinity|multiply|plus|minus|divide|red question mark|red exclamation mark|fleur-de-lis
heavy dollar sign|medical symbol|recycling symbol|trident emblem|check mark|cross mark|check mark button|no entry
prohibited|eight-pointed star|sparkle|splatter|up arrow|right arrow|down arrow|left arrow|red circle|orange circle
yellow circle|green circle|blue circle|purple circle|brown circle|black circle|red square|orange square
yellow square|green square|blue square|purple square|brown square|black large square|large orange diamond
large blue diamond|red triangle pointed up|red triangle pointed down""".replace("\n", "|").split("|")
)
DROPPED = re.compile(r"^flag|family|o'clock|-thirty|^zzz$|^hundred points$|^middle finger$|^keycap|skin tone")


@dataclass(frozen=True)
class Concept:
    """One emoji: its characters, code points joined by "-" without U+FE0F, English short name and keywords."""

    emoji: str
    code: str
    name: str
    keywords: list[str]


@dataclass
class CutoutRow:
    """One row of the dataset; `image` holds the bytes of a square RGBA WebP."""

    image: bytes
    name: str
    keywords: list[str]
    style: str
    emoji: str
    source: str
    license: str
    attribution: str


def code_points(emoji: str) -> str:
    return "-".join(f"{ord(character):x}" for character in emoji if character != "\ufe0f")


def read_concepts(cache: Path) -> list[Concept]:
    """The emoji worth painting: CLDR's names, less flags, families, clock times, lettering and most symbols."""
    annotations = read_json(download(NAMES, cache), "annotations/en/annotations.json")["annotations"]["annotations"]
    noto = download(EMOJI["noto"], cache)
    icons = {code.replace("-fe0f", ""): icon for code, icon in read_json(noto, "chars.json").items()}
    groups = {icon: group for group, icons in read_json(noto, "metadata.json")["categories"].items() for icon in icons}
    concepts = []
    for emoji, texts in annotations.items():
        code = code_points(emoji)
        if code not in icons or "tts" not in texts:
            continue
        name = texts["tts"][0].lower().replace("’", "'").replace(": ", " with ")
        if is_drawable(name, group=groups[icons[code]]):
            keywords = [keyword.lower().replace("’", "'") for keyword in texts["default"]]
            concepts.append(Concept(emoji, code, name, [keyword for keyword in keywords if keyword != name]))
    return concepts


def is_drawable(name: str, *, group: str) -> bool:
    if group == "Flags" or DROPPED.search(name):
        return False
    return group != "Symbols" or name in KEPT_SYMBOLS


def read_drawings(source: Package, cache: Path) -> dict[str, bytes]:
    """A package's drawings as {code points: SVG or WebP bytes}."""
    archive = download(source, cache)
    if source.package.startswith("@iconify-json"):
        return read_iconify(archive)
    with tarfile.open(archive) as tar:
        files = [file for file in tar.getmembers() if file.name.endswith((".svg", ".webp"))]
        return {Path(file.name).stem.replace("-fe0f", ""): read_member(tar, file) for file in files}


def read_iconify(archive: Path) -> dict[str, bytes]:
    collection = read_json(archive, "icons.json")
    codes = read_json(archive, "chars.json").items()
    return {
        code.replace("-fe0f", ""): iconify_svg(collection, icon) for code, icon in codes if icon in collection["icons"]
    }


def make_row(
    drawing: PillowImage.Image, *, size: int, style: str, source: Package, name: str, **parts: Any
) -> CutoutRow | None:
    """Fit a drawing and add what the source says; None where hardly anything would be seen on white."""
    picture = fit(drawing, size)
    if not is_visible(picture):
        return None
    parts = {"attribution": source.attribution, "emoji": "", **parts}
    return CutoutRow(encode(picture), name, style=style, source=source.name, license=source.license, **parts)


def emoji_rows(cache: Path, size: int) -> Iterator[CutoutRow | None]:
    concepts = read_concepts(cache)
    for style, source in EMOJI.items():
        drawings = read_drawings(source, cache)
        for concept in concepts:
            if concept.code in drawings:
                parts = {"name": concept.name, "keywords": concept.keywords, "emoji": concept.emoji}
                yield make_row(render(drawings[concept.code]), size=size, style=style, source=source, **parts)


def clipart_rows(cache: Path, size: int) -> Iterator[CutoutRow | None]:
    """The drawings that clipart.tsv lists: path, name, keywords."""
    folder = download_clipart(CLIPART, cache)
    for path, name, keywords in read_table("clipart"):
        svg = (folder / path).read_bytes()
        if b"cc/PublicDomain" not in svg and b"publicdomain" not in svg.lower():
            raise ValueError(f"{path} of {CLIPART.name} does not say that it is in the public domain")
        creator = re.search(rb"<dc:creator>.*?<dc:title>([^<]*)</dc:title>", svg, re.DOTALL)
        author = creator.group(1).decode(errors="replace").strip() if creator else ""
        attribution = f"{author or 'unknown'}, {CLIPART.attribution}"
        parts = {"name": name, "keywords": split_keywords(keywords), "attribution": attribution}
        yield make_row(render(svg), size=size, style="clipart", source=CLIPART, **parts)


def icon_rows(cache: Path, size: int) -> Iterator[CutoutRow | None]:
    """The furniture that icons.tsv lists (package, icon, name, keywords), in each of the named colours."""
    collections = {key: read_json(download(source, cache), "icons.json") for key, source in ICONS.items()}
    for package, icon, name, keywords in read_table("icons"):
        for colour, rgb in COLOURS.items():
            svg = iconify_svg(collections[package], icon).replace(b"currentColor", b"#%02x%02x%02x" % rgb)
            parts = {"name": f"{colour} {name}", "keywords": [name, *split_keywords(keywords)]}
            yield make_row(make_opaque(render(svg)), size=size, style="icon", source=ICONS[package], **parts)


def armchair_rows(size: int, *, each: int = 8) -> Iterator[CutoutRow | None]:
    """Armchairs of our own drawing, `each` in each of the named colours."""
    rng = Random(0)
    for colour, rgb in COLOURS.items():
        for _ in range(each):
            picture = draw_armchair(
                ArmchairShape.sample(rng), upholstery=rgb, cushion=tint(rgb), wood=rng.choice(WOODS)
            )
            parts = {"name": f"{colour} armchair", "keywords": ["armchair", "chair", "furniture", "seat"]}
            yield make_row(picture, size=size, style="drawing", source=OWN, **parts)


def read_table(name: str) -> list[list[str]]:
    return [line.split("\t") for line in (TABLES / f"{name}.tsv").read_text().splitlines()]


def split_keywords(text: str) -> list[str]:
    return [word for word in text.split(", ") if word]


def unit_hash(*words: str) -> float:
    """A number in [0, 1) that depends on the words alone."""
    return int.from_bytes(hashlib.sha256("|".join(words).encode()).digest()[:6], "big") / 2**48


def split(rows: list[CutoutRow]) -> tuple[list[CutoutRow], list[CutoutRow]]:
    """(training, validation): at most one style of a concept is held out, by hash, and only if enough others stay."""
    styles = defaultdict(set)
    for row in rows:
        styles[row.name].add(row.style)
    held_out = set()
    for name, of_name in styles.items():
        candidates = sorted(of_name & EMOJI.keys(), key=lambda style: unit_hash(name, style))
        if len(candidates) > STYLES_LEFT and unit_hash(name, candidates[0]) < HELD_OUT:
            held_out.add((name, candidates[0]))
    training = [row for row in rows if (row.name, row.style) not in held_out]
    return training, [row for row in rows if (row.name, row.style) in held_out]


def write_parquet(rows: list[CutoutRow], output: Path, name: str) -> None:
    """Write NAME-00000-of-0000N.parquet, in an order that mixes the styles and depends on the rows alone."""
    rows = sorted(rows, key=lambda row: unit_hash(row.name, row.style, hashlib.sha256(row.image).hexdigest()))
    shards = [rows[start : start + SHARD_ROWS] for start in range(0, len(rows), SHARD_ROWS)]
    for index, shard in enumerate(shards):
        examples = [asdict(row) | {"image": {"bytes": row.image, "path": None}} for row in shard]
        path = output / f"{name}-{index:05d}-of-{len(shards):05d}.parquet"
        Dataset.from_list(examples, features=FEATURES).to_parquet(path)


def write_sheets(rows: list[CutoutRow], folder: Path, *, columns: int = 20, thumbnail: int = 64) -> None:
    """Write pages of thumbnails on white, sorted by name, for a person to look through."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = sorted(rows, key=lambda row: (row.style not in EMOJI, row.name, row.style))
    for start in range(0, len(rows), columns * columns):
        page = PillowImage.new("RGBA", (columns * thumbnail, columns * thumbnail), "white")
        for index, row in enumerate(rows[start : start + columns * columns]):
            picture = read_picture(row.image).convert("RGBA").resize((thumbnail, thumbnail))
            page.alpha_composite(picture, (index % columns * thumbnail, index // columns * thumbnail))
        page.convert("RGB").save(folder / f"sheet-{start // columns**2:02d}.png")


def report(splits: dict[str, list[CutoutRow]]) -> None:
    """Print the number of pictures of each style and licence in each split."""
    counts = Counter((row.style, row.license, name) for name, rows in splits.items() for row in rows)
    print(f"{'style':14}{'licence':14}" + "".join(f"{name:>12}" for name in splits))
    for style, license in sorted({(row.style, row.license) for rows in splits.values() for row in rows}):
        print(f"{style:14}{license:14}" + "".join(f"{counts[style, license, name]:12}" for name in splits))


def build_rows(cache: Path, size: int) -> list[CutoutRow]:
    parts = emoji_rows(cache, size), clipart_rows(cache, size), icon_rows(cache, size), armchair_rows(size)
    return [row for row in chain(*parts) if row is not None]


def main() -> None:
    parser = OneLineParser(
        "python -m training.emoji.build", "Build the captioned emoji and clip art of training/data/emoji."
    )
    parser.add_argument("--output", type=Path, default=Path("training/data/emoji"))
    parser.add_argument("--size", type=int, default=128, help="pixels a side (default 128)")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/armchair", help="downloaded packages")
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets (default: CACHE/sheets)")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows = build_rows(arguments.cache, arguments.size)
    training, validation = split(rows)
    for old in arguments.output.glob("*.parquet"):
        old.unlink()
    write_parquet(training, arguments.output, "train")
    write_parquet(validation, arguments.output, "validation")
    write_sheets(rows, arguments.sheets or arguments.cache / "sheets")
    report({"train": training, "validation": validation})


if __name__ == "__main__":
    run_command(main)
