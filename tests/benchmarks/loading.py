"""Samples a second that one core feeds: the prior from cached codes, the dVAE from streams; against decoding alone.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.loading

The reference, in the same run: a plain DataLoader over PNG files, PIL to a tensor, the tokenizer in the collate, as a
prior that encodes its pictures at each step would need at least. Both without workers, so on one core, and in turns;
seconds are those of the process, which what else runs disturbs least.
"""

import io
import json
import random
import tarfile
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from PIL import Image
from torch.utils.data import DataLoader

from prior_transformer import PriorTokenizer
from training.codes.cached import CachedCodes, Collate, DrawnCodes
from training.pictures.data_arguments import DataArguments
from training.pictures.in_memory import in_order
from training.pictures.kinds import Captioned
from training.pictures.splits import load_split
from training.pictures.streaming import StreamedPictures, StreamLoader

ROWS, CODES, CODEBOOK, BATCH, SIZE = 20_000, 1024, 8192, 64, 256
WORDS = [
    "a",
    "an",
    "the",
    "red",
    "green",
    "small",
    "large",
    "cat",
    "dog",
    "armchair",
    "shaped",
    "like",
    "of",
    "on",
    "beside",
    "under",
    "avocado",
    "lamp",
    "wooden",
    "blue",
]


def write_cache(path: Path, rng: np.random.Generator) -> Dataset:
    """Captions of 6 to 14 words and random codes, as codes.cache writes them."""
    words = [" ".join(rng.choice(WORDS, rng.integers(6, 15))) for _ in range(ROWS)]
    codes = rng.integers(0, CODEBOOK, (ROWS, CODES), dtype=np.int32)
    columns = {
        "parts": [json.dumps({"text": text}) for text in words],
        "codes": pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), CODES),
        "composed": [False] * ROWS,
    }
    pq.write_table(pa.table(columns), path / "codes.parquet")
    return Dataset.from_parquet(str(path / "codes.parquet"), cache_dir=str(path / "arrow"))


def write_sets(folder: Path, files: list[bytes]) -> dict[str, str]:
    """The PNG files, each with a caption, as Parquet, a tar and JSON lines: what --data.path takes."""
    rows = [{"image": {"bytes": file, "path": None}, "text": f"picture {i}"} for i, file in enumerate(files)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet", row_group_size=16)
    with tarfile.open(folder / "rows.tar", "w") as tar, (folder / "rows.jsonl").open("w") as lines:
        for i, file in enumerate(files):
            for name, data in ((f"{i}.png", file), (f"{i}.txt", f"picture {i}".encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            (folder / f"{i}.png").write_bytes(file)
            lines.write(json.dumps({"image": f"{i}.png", "text": f"picture {i}"}) + "\n")
    return {suffix: str(folder / f"rows.{suffix}") for suffix in ("parquet", "tar", "jsonl")}


def stream(path: str, crop: str) -> StreamLoader:
    data = DataArguments(path=path, streaming=True, crop=crop, validation_split="train")
    return StreamLoader(StreamedPictures(load_split(data, "train"), data, SIZE), batch_size=BATCH, seed=0)


class PNGPictures(torch.utils.data.Dataset):
    """Photograph-like PNG files of 256 × 256 in memory, and a caption each."""

    def __init__(self, rng: np.random.Generator, count: int = 256):
        self.files = []
        for _ in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
            noise = rng.integers(-4, 5, (SIZE, SIZE, 3))
            pixels = np.clip(np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) + noise, 0, 255)
            file = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8)).save(file, "png")
            self.files.append(file.getvalue())

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, i: int) -> tuple[str, torch.Tensor, bool]:
        image = Image.open(io.BytesIO(self.files[i % len(self.files)])).convert("RGB")
        words = random.Random(i).choices(WORDS, k=10)
        return " ".join(words), torch.from_numpy(np.array(image)).permute(2, 0, 1), False


def rate(loader: Iterable, seconds: float) -> float:
    """Samples a second of the processor, after one batch of warming up."""
    batches = iter(loader)
    next(batches)
    count, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        batch = next(batches)
        count += len(batch["text_ids"] if isinstance(batch, dict) else batch)
    return count / (time.process_time() - start)


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    captions = [" ".join(rng.choice(WORDS, 10)) for _ in range(2000)]
    tokenizer = PriorTokenizer.train(captions, vocab_size=600, text_length=64)
    with tempfile.TemporaryDirectory() as folder:
        encoded = write_cache(Path(folder), rng)
        pictures = PNGPictures(rng)
        loaders = {"decoded PNG, the reference": DataLoader(pictures, BATCH, collate_fn=Collate(tokenizer))}
        for kind, path in write_sets(Path(folder), pictures.files).items():
            loaders[f"streamed {kind}, the centre"] = stream(path, "center")
        loaders["streamed jsonl, the paper's crops"] = stream(path, "dalle")
        for dropout in (0.0, 0.1):
            settings = {"scene_share": 0.0, "caption_dropout": 0.1, "write": Captioned.caption}
            drawn = DrawnCodes(CachedCodes(encoded), 10**9, seed=0, **settings)
            loaders[f"cached codes, BPE dropout {dropout}"] = in_order(drawn, BATCH, 0, Collate(tokenizer, dropout))
        rates = {name: [] for name in loaders}
        for _ in range(5):  # in turns, so that a busy machine slows each alike
            for name, loader in loaders.items():
                rates[name].append(rate(loader, seconds=1.0))
    reference = np.median(rates["decoded PNG, the reference"])
    print(f"{'':36} samples/s/core   of the reference")
    for name, values in rates.items():
        print(f"{name:36} {np.median(values):14,.0f} {np.median(values) / reference:16.1f} ×")


if __name__ == "__main__":
    main()
