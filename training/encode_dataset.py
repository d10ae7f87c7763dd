"""Encodes a set once, for the prior to train on: pictures -> captions and codes, in shards.

    accelerate launch -m training.encode_dataset PRESET [--training.crops 4 --training.flips true …]

It reads output_dir/dvae, or --training.dvae, and writes output_dir/codes, or --training.codes. Processes share the
shards, and `--training.num_workers` of each decode and compose for its dVAE; shards that are finished are kept when it
is started again. training.train_prior does the same at its start where codes are missing.
"""

from pathlib import Path

import torch
from accelerate import Accelerator

from dvae import DVAE

from .codes.cache import CodeCache, Views
from .loop.engine import join_processes, leave_processes
from .loop.pretrained import part_of_run
from .loop.run_log import HELDOUT_SPLIT
from .pictures.data_arguments import DataArguments
from .pictures.in_memory import fit_scenes, load_split
from .presets.reading import parse
from .presets.trainers import PriorTraining

HELDOUT_SCENES = 256


def main(argv: list[str] | None = None) -> None:
    args = parse("prior", PriorTraining, argv, __doc__, program="encode_dataset")
    join_processes()
    accelerator = Accelerator()
    folder = part_of_run("dvae", args.training, Path(args.output_dir))
    dvae = DVAE.from_pretrained(folder, dtype=torch.float32).to(accelerator.device)
    fit_scenes(args, accelerator.print)
    for split, cache in code_caches(dvae, args.data, args.training, Path(args.output_dir)).items():
        there = len(cache.shards) - len(cache.missing())
        accelerator.print(f"{split}: {there} of {len(cache.shards)} shards are there already")
        cache.fill(accelerator, args.training.num_workers)
        accelerator.print(f"{split}: {len(cache.shards)} shards in {cache.folder}, fingerprint {cache.fingerprint}")


def code_caches(dvae: DVAE, data: DataArguments, training: PriorTraining, output_dir: Path) -> dict[str, CodeCache]:
    """
    The caches of a run. Several crops and flips are the training split's alone. HELDOUT_SPLIT, where scenes are asked
    for, holds scenes alone, of things that training never put together.
    """
    folder = Path(training.codes or output_dir / "codes")
    train, validation = load_split(data, "train"), load_split(data, "validation")
    views, scenes = Views(data.crop, training.crops, training.flips), training.cached_scenes
    caches = {
        "train": CodeCache(folder / "train", dvae, train, data, views=views, scenes=scenes, seed=training.seed),
        "validation": CodeCache(folder / "validation", dvae, validation, data, seed=training.seed),
    }
    if scenes > 0:
        path = folder / HELDOUT_SPLIT
        caches[HELDOUT_SPLIT] = CodeCache(
            path, dvae, train, data, scenes=HELDOUT_SCENES, held_out=True, seed=training.seed
        )
    return caches


if __name__ == "__main__":
    main()
    leave_processes()
