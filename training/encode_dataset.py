"""Encodes a set once, for the prior to train on: pictures -> captions and codes, in shards.

    python -m training.encode_dataset PRESET [--data.crop dalle --training.crops 4 …]

It reads output_dir/dvae, or --training.dvae, and writes output_dir/codes, or --training.codes. Processes share the
shards, and `--training.num_workers` of each decode and compose for its dVAE; shards that are finished are kept when it
is started again. training.train_prior does the same at its start where codes are missing.
"""

from pathlib import Path

import torch
from accelerate import Accelerator

from pipelines.checkpoints.first_stages import find_first_stage

from .codes.of_run import code_caches
from .loop.command import run_command
from .loop.engine import join_processes, leave_processes
from .loop.pretrained import part_of_run
from .pictures.splits import fit_scenes
from .presets.reading import parse
from .presets.trainers import PriorTraining
from .sets import KINDS


def main(argv: list[str] | None = None) -> None:
    args = parse("prior", PriorTraining, argv, __doc__, program="encode_dataset")
    join_processes()
    accelerator = Accelerator()
    folder = part_of_run("dvae", args.training, Path(args.output_dir))
    dvae = find_first_stage(folder, dtype=torch.float32).to(accelerator.device)
    fit_scenes(args, KINDS, accelerator.print)
    caches = code_caches(dvae, args.data, args.training, Path(args.output_dir), KINDS)
    for split, cache in caches.items():
        there = len(cache.shards) - len(cache.missing())
        accelerator.print(f"{split}: {there} of {len(cache.shards)} shards are there already")
        cache.fill(accelerator, args.training.num_workers)
        accelerator.print(f"{split}: {len(cache.shards)} shards in {cache.folder}, fingerprint {cache.fingerprint}")


if __name__ == "__main__":
    run_command(main, leave_processes)
