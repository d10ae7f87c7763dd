"""Codes cached once: what the prior trains on, written in shards by any number of processes, kept across restarts.

    codes/train/
        cache.json                              fingerprint, and the settings it is of
        codes-00000-of-00013.parquet, …         parts, codes, composed, row

A shard is written beside its place and renamed, so that one that is there is whole; a process writes those of its turn
that are not there. A cache of other weights, pictures or crops is never read: the error says what differs.
"""

import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor
from tqdm import tqdm

from dvae import DVAE

from .crops import prior_crop
from .data import Pictures, as_it_is, caption_column, is_cutouts, to_pixel_values, whole
from .data_arguments import DataArguments
from .decoding import BrokenRow, Tally, by_reason, check_share, open_picture, row_parts
from .readers import Row
from .scenes import LAYOUT
from .sources import Source

SHARD = 2048  # rows or scenes a shard
BATCH = 128  # pictures that the dVAE encodes at once


class Views(NamedTuple):
    """crop: "center", or "dalle", the paper's for the prior. crops: of each picture. flips: each mirrored as well."""

    crop: str = "center"
    crops: int = 1
    flips: bool = False


CENTRE = Views()


class CodeCache:
    """
    The codes of a source's rows, then of `scenes` composed ones; of held-out pairs and these alone where `held_out`.

    Raises a ValueError where `folder` holds codes of another fingerprint, where more crops would all be the same, or
    where scenes cannot be composed.
    """

    def __init__(
        self,
        folder: Path,
        dvae: DVAE,
        source: Source,
        data: DataArguments,
        *,
        views: Views = CENTRE,
        scenes: int = 0,
        held_out: bool = False,
        seed: int = 0,
    ):
        cutouts = is_cutouts(source, data)
        if scenes > 0 and not cutouts:
            raise ValueError(
                f"{scenes} scenes cannot be composed of {data.path}, which has captions and no cut-outs: set "
                "training.cached_scenes to 0"
            )
        if views.crops > 1 and (views.crop != "dalle" or cutouts):
            raise ValueError(f"crops={views.crops} of a picture would all be its centre: set data.crop to dalle")
        self.folder, self.dvae, self.source, self.data = folder, dvae.eval(), source, data
        self.views, self.scenes, self.held_out, self.seed = views, scenes, held_out, seed
        self.image_size = dvae.config.image_size
        self.first = len(source) if held_out else 0
        self.total = len(source) + scenes
        shards = max(1, -(-(self.total - self.first) // SHARD))
        self.shards = [folder / f"codes-{i:05d}-of-{shards:05d}.parquet" for i in range(shards)]
        self._check()

    def settings(self) -> dict[str, Any]:
        """All that the codes depend on: `fingerprint` is a hash of it."""
        bounds = {name: getattr(self.data, name) for name in ("min_side", "max_pixels", "text_column")}
        drawn = self.scenes > 0 or (self.views.crop == "dalle" and not is_cutouts(self.source, self.data))
        seed = self.seed if drawn else 0  # else nothing depends on it
        chosen = {
            "scenes": self.scenes,
            "layout": LAYOUT if self.scenes else 0,
            "held_out": self.held_out,
            "seed": seed,
            **self.views._asdict(),
        }
        rows = {"files": self.source.digest(), "rows": len(self.source)}
        return {"dvae": weights_digest(self.dvae), "image_size": self.image_size, **rows, **bounds, **chosen}

    def _check(self) -> None:
        settings, path = self.settings(), self.folder / "cache.json"
        self.fingerprint = digest_of(settings)
        if not path.exists():
            return
        found = json.loads(path.read_text())
        if found["fingerprint"] != self.fingerprint:
            other = {key: value for key, value in found["settings"].items() if settings.get(key) != value}
            differ = ", ".join(f"{key} {value} there, {settings.get(key)} here" for key, value in other.items())
            raise ValueError(
                f"the codes in {self.folder} have fingerprint {found['fingerprint']}, this dVAE on these pictures "
                f"{self.fingerprint} ({differ}): remove {self.folder}, or name another folder by --training.codes"
            )

    def missing(self) -> list[int]:
        return [i for i, path in enumerate(self.shards) if not path.exists()]

    def fill(self, accelerator: Accelerator) -> None:
        """Encodes what is missing: shard i by process i modulo their number. All of them return when all is there."""
        if accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            content = {"fingerprint": self.fingerprint, "settings": self.settings()}
            replace(self.folder / "cache.json", lambda path: path.write_text(json.dumps(content, indent=2) + "\n"))
        accelerator.wait_for_everyone()
        own = range(accelerator.process_index, len(self.shards), accelerator.num_processes)
        tally = Tally(len(self.source), self.data.max_broken_share)
        encoder = ShardEncoder(self, tally, accelerator.device)
        first = accelerator.is_main_process
        for i in tqdm(
            [i for i in own if not self.shards[i].exists()], desc="encoding", leave=False, disable=not first
        ):
            start = self.first + i * SHARD
            table = encoder.table(start, min(start + SHARD, self.total))
            replace(self.shards[i], lambda path, table=table: pq.write_table(table, path))
        accelerator.wait_for_everyone()
        reasons, rows = self.skipped(), len(self.source)  # of all processes, and of runs before
        if first and reasons:
            print(f"{reasons.total()} of {rows} rows in {self.folder} skipped: {by_reason(reasons)}")
        check_share(reasons.total(), rows, rows, self.data.max_broken_share, reasons)

    def skipped(self) -> Counter[str]:
        """Rows left out, by reason, as the shards that are there say."""
        found = [json.loads(pq.read_schema(path).metadata[b"skipped"]) for path in self.shards if path.exists()]
        return sum(map(Counter, found), Counter())

    def dataset(self, accelerator: Accelerator) -> Dataset:
        """The codes, memory-mapped; encoded first where they are not yet. Raises a ValueError where there are none."""
        if self.missing():
            self.fill(accelerator)
        paths = [str(path) for path in self.shards if pq.read_metadata(path).num_rows > 0]
        if not paths:
            raise ValueError(
                f"{self.folder} holds no codes: all of {len(self.source)} rows are broken: {by_reason(self.skipped())}"
            )
        with accelerator.main_process_first():  # one writes the memory map, the others find it
            return Dataset.from_parquet(paths, cache_dir=str(self.folder.parent / "arrow"))


class ShardEncoder:
    """Rows and scenes -> tables of codes, by argmax."""

    def __init__(self, cache: CodeCache, tally: Tally, device: torch.device):
        self.cache, self.tally, self.device = cache, tally, device
        self.column = caption_column(cache.data, cache.source)
        self.pictures: Pictures | None = None  # scenes are composed of what is in memory

    def table(self, start: int, stop: int) -> pa.Table:
        """The codes of rows and scenes start to stop; a table's metadata counts the rows that it leaves out."""
        before = self.tally.reasons.copy()
        drawn, rows = [], {"parts": [], "codes": [], "composed": [], "row": []}
        for item in self._draw(start, stop):
            drawn.append(item)
            if len(drawn) == BATCH:
                self._encode(drawn, rows)
        self._encode(drawn, rows)
        length = self.cache.dvae.config.grid_size**2
        codes = np.concatenate(rows["codes"]) if rows["codes"] else np.empty((0, length), np.int32)  # (n, N)
        rows["codes"] = pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), length)
        types = {
            "parts": pa.string(),
            "codes": pa.list_(pa.int32(), length),
            "composed": pa.bool_(),
            "row": pa.int64(),
        }
        skipped = json.dumps(dict(self.tally.reasons - before))
        return pa.table(rows, schema=pa.schema(types, metadata={"skipped": skipped}))

    def _draw(self, start: int, stop: int) -> Iterator[tuple[Tensor, dict[str, Any], int]]:
        """uint8 (3, S, S), its parts, its place; a picture's crops and flips one after the other."""
        count = len(self.cache.source)
        for place, row in zip(range(start, stop), self.cache.source.rows(start, min(stop, count)), strict=False):
            self.tally.seen += 1
            try:
                parts = row_parts(row, self.column)
                for view in self._views(row, parts, place):
                    yield view, parts, place
            except BrokenRow as broken:
                self.tally.add(row, str(broken))
        for place in range(max(start, count), stop):
            image, parts = self._scene(place)
            yield torch.from_numpy(image.copy()).permute(2, 0, 1), parts, place

    def _views(self, row: Row, parts: dict[str, Any], place: int) -> Iterator[Tensor]:
        cache = self.cache
        image = open_picture(row.columns["image"], cache.data)
        for crop in range(cache.views.crops):
            if cache.views.crop == "dalle" and "things" not in parts:
                rng = random.Random(f"{cache.seed}-{place}-{crop}")
                view = prior_crop(whole(image), cache.image_size, rng)
            else:
                view = as_it_is(image, parts, cache.image_size)
            yield view
            if cache.views.flips:
                yield view.flip(-1)

    def _scene(self, place: int) -> tuple[np.ndarray, dict[str, Any]]:
        cache = self.cache
        if self.pictures is None:
            self.pictures = Pictures(cache.source, cache.data, cache.image_size)
        return self.pictures.scene(random.Random(f"scene-{cache.seed}-{place}"), cache.held_out)

    @torch.no_grad()
    def _encode(self, drawn: list[tuple[Tensor, dict[str, Any], int]], rows: dict[str, list]) -> None:
        """Moves what was drawn into the rows."""
        if not drawn:
            return
        images = torch.stack([image for image, _, _ in drawn])
        codes = self.cache.dvae.encode(to_pixel_values(images, self.device)).flatten(1)  # (B, N)
        rows["codes"].append(codes.to(torch.int32).cpu().numpy())
        for _, parts, place in drawn:
            rows["parts"].append(json.dumps(parts))
            rows["composed"].append(place >= len(self.cache.source))
            rows["row"].append(place)
        drawn.clear()


def replace(path: Path, write: Any) -> None:
    """`write(partial)`, then a rename: whoever is killed leaves the whole file or none."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    write(partial)
    os.replace(partial, path)


def weights_digest(dvae: DVAE) -> str:
    """Of the weights that make codes, the encoder's and the posterior's, and of their config."""
    digest = hashlib.sha256(dvae.config.to_json_string().encode())
    weights = {**dvae.encoder.state_dict(prefix="encoder."), **dvae.posterior.state_dict(prefix="posterior.")}
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def digest_of(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
