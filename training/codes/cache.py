"""Codes cached once: what the prior trains on, written in shards by any number of processes, kept across restarts.

    codes/train/
        cache.json                              fingerprint, the settings it is of, and shards of before these had one
        codes-00000-of-00013.parquet, …         parts, codes, composed, row

A shard is written beside its place and renamed, so that one that is there is whole; a process writes those of its turn
that are not there. Each shard has the fingerprint in it: one of other weights, pictures or crops, or one that does not
say, is never read: the error says what differs. The fingerprint is of what decides the codes, and of nothing else.
"""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor
from tqdm import tqdm

from dvae import FirstStage

from ..loop.fingerprints import codes_digest, codes_digests_of_before, digest_of
from ..pictures.in_memory import in_order, to_pixel_values
from ..pictures.rows import Tally, by_reason, check_share
from .blocks import PieceContents
from .views import Chunk, Contents

SHARD = 2048  # rows or scenes a shard
AT_ONCE = 128 * 64**2  # pixels


class CodeCache:
    """
    The codes that a dVAE makes of `contents`, in `folder`.

    Raises a ValueError where `folder` holds codes of another fingerprint, or of none.
    """

    def __init__(self, folder: Path, dvae: FirstStage, contents: Contents | PieceContents):
        self.folder, self.dvae, self.contents = folder, dvae.eval(), contents
        self.source, self.data = contents.source, contents.data
        shards = max(1, -(-len(contents.places) // SHARD))
        self.shards = [folder / f"codes-{i:05d}-of-{shards:05d}.parquet" for i in range(shards)]
        self._check()

    def settings(self) -> dict[str, Any]:
        """All that the codes depend on: `fingerprint` is a hash of it."""
        bounds = {name: getattr(self.data, name) for name in ("min_side", "max_pixels", "text_column")}
        rows = {"files": self.source.digest(), "rows": len(self.source)}
        encoded = {"dvae": codes_digest(self.dvae), "image_size": self.contents.image_size}
        return {**encoded, **rows, **bounds, **self.contents.settings()}

    def _check(self) -> None:
        settings, path = self.settings(), self.folder / "cache.json"
        self.fingerprint = digest_of(settings)
        found = json.loads(path.read_text()) if path.exists() else {}
        marks = {shard: fingerprint_of(shard) for shard in self.shards if shard.exists()}
        unmarked = {shard.name: shard.stat().st_size for shard, mark in marks.items() if mark is None}
        other = self._others(found["settings"], settings) if found else {}
        if other:
            differ = ", ".join(f"{key} {value} there, {settings.get(key)} here" for key, value in other.items())
            self._refuse(f"the codes in {self.folder} have fingerprint {found['fingerprint']}", f" ({differ})")
        told = unmarked if found and found["fingerprint"] != self.fingerprint else found.get("unmarked", {})
        for shard, mark in marks.items():
            if mark is None and told.get(shard.name) != unmarked[shard.name]:
                self._refuse(f"{shard} does not say of what it is, and no cache.json beside it does")
            if mark not in (None, self.fingerprint):
                self._refuse(f"{shard} has fingerprint {mark}")
        self.told = {"fingerprint": self.fingerprint, "settings": settings, "unmarked": told}

    def _others(self, found: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        """What a cache.json is of and this cache is not; a dVAE is the same under the fingerprint it had at first."""
        other = {key: found.get(key) for key in {**found, **settings} if found.get(key) != settings.get(key)}
        if "dvae" in other and other["dvae"] in codes_digests_of_before(self.dvae):
            del other["dvae"]
        return other

    def _refuse(self, there: str, differ: str = "") -> NoReturn:
        raise ValueError(
            f"{there}, this dVAE on these pictures {self.fingerprint}{differ}: remove {self.folder}, or name another "
            "folder by --training.codes"
        )

    def _tell(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.told, indent=2) + "\n"
        replace(self.folder / "cache.json", lambda path: path.write_text(text))

    def missing(self) -> list[int]:
        return [i for i, path in enumerate(self.shards) if not path.exists()]

    def fill(self, accelerator: Accelerator, num_workers: int = 0) -> None:
        """
        Encodes what is missing: shard i by process i modulo their number, drawn by the process's `num_workers`. All
        processes return when all is there.
        """
        if accelerator.is_main_process:
            self._tell()
        accelerator.wait_for_everyone()
        own = [i for i in self.missing() if i % accelerator.num_processes == accelerator.process_index]
        shards = self.contents.drawn({i: self.contents.places[i * SHARD : (i + 1) * SHARD] for i in own})
        tally = Tally(self.source.whole, self.data.max_broken_share)
        first, drawn = accelerator.is_main_process, {i: [] for i in own}
        bar = tqdm(total=len(own), desc="encoding", leave=False, disable=not first)
        for chunk, images in in_order(shards, None, min(num_workers, len(own))):
            tally.count(chunk.seen, chunk.skipped)
            tally.check()
            codes = encode(self.dvae, images, accelerator.device)
            drawn[chunk.shard].append((chunk, chunk.without_ground(codes)))
            if chunk.last:
                table = shard_table(drawn.pop(chunk.shard), {"fingerprint": self.fingerprint})
                replace(self.shards[chunk.shard], lambda path, table=table: pq.write_table(table, path))
                bar.update()
        bar.close()
        accelerator.wait_for_everyone()
        reasons, total = self.skipped(), len(self.source)  # of all processes, and of runs before
        if first and reasons:
            print(f"{reasons.total()} of {total} rows in {self.folder} skipped: {by_reason(reasons)}")
        check_share(reasons.total(), total, self.source.whole, self.data.max_broken_share, reasons)

    def skipped(self) -> Counter[str]:
        """Rows left out, by reason, as the shards that are there say."""
        found = [json.loads(pq.read_schema(path).metadata[b"skipped"]) for path in self.shards if path.exists()]
        return sum(map(Counter, found), Counter())

    def dataset(self, accelerator: Accelerator, num_workers: int = 0) -> Dataset:
        """The codes, memory-mapped; encoded first where they are not yet. Raises a ValueError where there are none."""
        if self.missing():
            self.fill(accelerator, num_workers)
        elif accelerator.is_main_process:
            self._tell()
        paths = [str(path) for path in self.shards if pq.read_metadata(path).num_rows > 0]
        if not paths:
            raise ValueError(
                f"{self.folder} holds no codes: all of {len(self.source)} rows are broken: {by_reason(self.skipped())}"
            )
        with accelerator.main_process_first():  # one writes the memory map, the others find it
            return Dataset.from_parquet([*paths], cache_dir=str(self.folder.parent / "arrow"))


def encode_now(dvae: FirstStage, contents: Contents | PieceContents, device: torch.device) -> Dataset:
    """The codes of `contents` in memory, the columns those of a cache: for an evaluation, which keeps none."""
    shards = contents.drawn({0: contents.places})
    encoded = [(chunk, chunk.without_ground(encode(dvae.eval(), images, device))) for chunk, images in shards]
    return Dataset(shard_table(encoded))


@torch.no_grad()
def encode(dvae: FirstStage, images: Tensor, device: torch.device) -> np.ndarray:
    """uint8 (n, 3, S, S) → int32 (n, N), by argmax; n may be 0, of which not every first stage makes anything."""
    codes = [np.empty((0, dvae.config.grid_size**2), np.int32)]
    for part in () if len(images) == 0 else images.split(at_once(images.shape[-1])):
        codes.append(dvae.encode(to_pixel_values(part, device)).flatten(1).to(torch.int32).cpu().numpy())
    return np.concatenate(codes)


def at_once(side: int) -> int:
    """How many pictures of that side go through a first stage together: at 256 px one takes 150 MB on its way."""
    return max(1, AT_ONCE // side**2)


def fingerprint_of(shard: Path) -> str | None:
    """What a shard says of itself; None of one that was written before shards did."""
    mark = (pq.read_schema(shard).metadata or {}).get(b"fingerprint")
    return None if mark is None else mark.decode()


def shard_table(drawn: list[tuple[Chunk, np.ndarray]], told: dict[str, str] | None = None) -> pa.Table:
    """
    A shard's chunks and their codes, int32 (n, N) each; its metadata counts the rows that are left out, and holds what
    else is `told`.
    """
    codes = np.concatenate([codes for _, codes in drawn])
    column = pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), codes.shape[1])
    columns = {name: [value for chunk, _ in drawn for value in chunk.columns[name]] for name in drawn[0][0].columns}
    types = {"parts": pa.string(), "codes": column.type, "composed": pa.bool_(), "row": pa.int64()}
    skipped = Counter(reason for chunk, _ in drawn for _, reason in chunk.skipped)
    schema = pa.schema(types, metadata={"skipped": json.dumps(skipped), **(told or {})})
    return pa.table({**columns, "codes": column}, schema=schema)


def replace(path: Path, write: Any) -> None:
    """`write(partial)`, then a rename: whoever is killed leaves the whole file or none."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    write(partial)
    os.replace(partial, path)
