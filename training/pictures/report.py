"""What is in a split: rows that can be used and that cannot, sizes, captions, duplicates; each row looked at once."""

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from dvae import DVAEImageProcessor
from prior_transformer import PriorTokenizer

from .data_arguments import DataArguments
from .readers import Row
from .rows import BrokenRow, Tally, open_picture
from .splits import Split

SHEET, TILE = 8, 96  # pictures in a row and a column of the contact sheet, and their side in pixels
LOOKED_AT = 10_000  # captions whose lengths a run counts before it begins
LISTED = 1000  # broken rows and groups of duplicates that report.json lists; it counts all


class Look(NamedTuple):
    """A row: its name; the reason why it is broken, or caption, size, hashes and, if it is sampled, a small copy."""

    where: str
    reason: str | None
    caption: str = ""
    size: tuple[int, int] = (0, 0)
    exact: str = ""
    near: int = 0
    tile: np.ndarray | None = None


class UnitLooks(Dataset):
    """Unit i of a source -> the looks of its rows: what one worker does at a time."""

    def __init__(self, source: Split, data: DataArguments, sampled: set[int]):
        self.source, self.data, self.sampled = source, data, sampled

    def __len__(self) -> int:
        return len(self.source.units)

    def __getitem__(self, unit: int) -> list[Look]:
        own = self.source.own_rows(unit)
        if len(own) == 0:
            return []
        rows = self.source.read(unit)
        return [self._look(rows[row], self.source.starts[unit] + row in self.sampled) for row in own.tolist()]

    def _look(self, row: Row, sampled: bool) -> Look:
        try:
            text = self.source.kind.caption(self.source.kind.parts(row), random.Random(0))
            image = open_picture(row.columns["image"], self.data)
        except BrokenRow as broken:
            return Look(broken.at(row).where, str(broken))
        ground = DVAEImageProcessor(TILE).on_background(image)
        tile = np.asarray(DVAEImageProcessor(TILE).fit(image)) if sampled else None
        return Look(row.where, None, text, image.size, pixels_hash(image), difference_hash(ground), tile)


def pixels_hash(image: Image.Image) -> str:
    """Of all pixels, in RGBA and 8 bits, and of the size; some rows at a time."""
    digest = hashlib.sha1(str(image.size).encode())
    for top in range(0, image.height, TILE):
        strip = image.crop((0, top, image.width, min(top + TILE, image.height)))
        digest.update(strip.convert("RGBA").tobytes())
    return digest.hexdigest()


def difference_hash(image: Image.Image) -> int:
    """64 bits: whether each of 8 × 8 grey pixels is darker than its right neighbour; scale and compression keep it."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BILINEAR), np.int16)  # (8, 9)
    return int.from_bytes(np.packbits(grey[:, :-1] < grey[:, 1:]).tobytes(), "big")


@dataclass
class SplitReport:
    """
    whole: rows that a share of broken ones is of; of a split that was held out, and of the others, those of both.
    rows, broken: counts; reasons, broken_rows: of the broken ones. sides, aspects: of pictures in pixels, and width
    over height. lengths: of captions in `unit`. exact, near: by hash, the rows that have it.
    """

    unit: str = "words"
    whole: int = 0
    rows: int = 0
    reasons: Counter = field(default_factory=Counter)
    broken_rows: list[tuple[str, str]] = field(default_factory=list)
    sides: list[int] = field(default_factory=list)
    aspects: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    captions: Counter = field(default_factory=Counter)
    exact: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    near: dict[int, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    tiles: list[np.ndarray] = field(default_factory=list)

    @property
    def broken(self) -> int:
        return self.reasons.total()

    def is_past(self, max_broken_share: float) -> bool:
        """Whether a run would stop."""
        return self.broken > max_broken_share * self.whole

    def add(self, looks: Sequence[Look], lengths: Sequence[int]) -> None:
        """Rows, and the lengths of the captions of those among them that can be used."""
        self.rows += len(looks)
        self.lengths += lengths
        for look in looks:
            if look.reason is not None:
                self.reasons[look.reason] += 1
                self.broken_rows.append((look.where, look.reason))
                continue
            self.sides.append(min(look.size))
            self.aspects.append(look.size[0] / look.size[1])
            self.captions.update([look.caption] if look.caption else [])
            self.exact[look.exact].append(look.where)
            self.near[look.near].append((look.exact, look.where))
            if look.tile is not None:
                self.tiles.append(look.tile)

    def duplicates(self) -> dict[str, list[list[str]]]:
        """Groups of pictures: the same to the pixel; and alike, of different pixels and one difference hash."""
        alike = [group for group in self.near.values() if len({exact for exact, _ in group}) > 1]
        return {
            "exact": [group for group in self.exact.values() if len(group) > 1],
            "near": [[where for _, where in group] for group in alike],
        }

    def numbers(self) -> dict[str, Any]:
        """All of it, for JSON."""
        duplicates = self.duplicates()
        return {
            "rows": self.rows,
            "usable": self.rows - self.broken,
            "broken": self.broken,
            "broken_share": self.broken / max(self.rows, 1),
            "broken_by_reason": dict(self.reasons.most_common()),
            "broken_rows": [{"row": where, "reason": reason} for where, reason in self.broken_rows[:LISTED]],
            "shorter_side_pixels": spread(self.sides),
            "width_over_height": spread(self.aspects),
            f"caption_{self.unit}": spread(self.lengths),
            "captions_used_twice": sum(count > 1 for count in self.captions.values()),
            "exact_duplicates": sum(len(group) - 1 for group in duplicates["exact"]),
            "near_duplicates": sum(len(group) - 1 for group in duplicates["near"]),
            "duplicate_groups": {kind: groups[:LISTED] for kind, groups in duplicates.items()},
        }


def spread(values: Sequence[float]) -> dict[str, float]:
    """The least, the greatest, and quantiles between."""
    if not values:
        return {}
    names = {"min": 0, "5 %": 5, "median": 50, "95 %": 95, "max": 100}
    return {name: round(float(np.percentile(values, at)), 3) for name, at in names.items()}


def look_through(
    source: Split, data: DataArguments, lengths_of: Any, unit: str, name: str, num_workers: int = 0
) -> SplitReport:
    """Looks at every row. lengths_of: captions -> their lengths in `unit`."""
    report = SplitReport(unit, source.whole)
    sampled = set(random.Random(0).sample(source.places.tolist(), min(SHEET**2, len(source))))
    looks = DataLoader(UnitLooks(source, data, sampled), batch_size=None, num_workers=num_workers, collate_fn=list)
    with tqdm(total=len(source), desc=name, leave=False) as bar:
        for of_unit in looks:
            report.add(of_unit, lengths_of([look.caption for look in of_unit if look.reason is None]))
            bar.update(len(of_unit))
            bar.set_postfix(broken=report.broken)
    return report


def shared(reports: Iterable[SplitReport]) -> int:
    """Pictures that two splits have in common, to the pixel: a validation that training has seen."""
    first, *others = [set(report.exact) for report in reports]
    return sum(len(first & other) for other in others)


def contact_sheet(tiles: Sequence[np.ndarray]) -> Image.Image:
    """SHEET × SHEET pictures, row by row."""
    sheet = Image.new("RGB", (SHEET * TILE, max(1, -(-len(tiles) // SHEET)) * TILE), "white")
    for i, tile in enumerate(tiles):
        sheet.paste(Image.fromarray(tile), (i % SHEET * TILE, i // SHEET * TILE))
    return sheet


def cut_captions(captions: Sequence[str], tokenizer: PriorTokenizer) -> str:
    """How many of these are longer than the tokenizer's text, in one line; "" where none is."""
    cut, length = tokenizer.count_cut(list(captions)), tokenizer.model_max_length
    if cut == 0:
        return ""
    return (
        f"{cut:,} of {len(captions):,} captions to train on are longer than {length} text tokens and are cut: a "
        "tokenizer of a larger text_length reads them whole"
    )


def glance(source: Split, data: DataArguments, rows: int = 256) -> str:
    """What is wrong with the first rows of a split, in one line."""
    tally = Tally(rows, max_broken_share=1.0, quiet=True)
    for row in source.rows(stop=rows):
        tally.seen += 1
        try:
            source.kind.parts(row)
            open_picture(row.columns["image"], data)
        except BrokenRow as broken:
            tally.add(broken.at(row), str(broken))
    return f"of the first {tally.seen:,} rows {tally.broken} cannot be used ({tally})"
