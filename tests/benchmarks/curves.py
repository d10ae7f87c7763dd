"""The same run by every engine, and broken rows in every format: the tables of training/README.md.

    python -m tests.benchmarks.curves [--steps 60]

Trains the small prior of kill.py on emoji by one process, by two under DDP, by two under Accelerate's FSDP2 (over
gloo; sharded_prior.py), in four micro-batches and with activations computed again, at one global batch; then a small
dVAE over 100 rows of which five are broken, written in each format, read into memory and streamed.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from safetensors.torch import load_file

from .kill import PRESET, ROOT

sys.path.insert(0, str(ROOT / "tests/support"))  # as pytest has it
import broken_sets

TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def run(*command: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout + done.stderr


def engines(folder: Path, steps: int) -> None:
    """Prints a line an engine: losses along the run, and how far curve and last weights are from one process's."""
    preset, parts = folder / "preset.yaml", folder / "parts"
    prior = {"model": PRESET["prior"]["model"] | {"dropout": 0.0}, "training": PRESET["prior"]["training"]}
    preset.write_text(yaml.safe_dump(PRESET | {"prior": prior}))
    run("-m", "training.train_tokenizer", str(preset), "--output_dir", str(parts))
    run("-m", "training.train_dvae", str(preset), "--output_dir", str(parts))
    flags = [f"--training.{part}={parts / part}" for part in ("dvae", "tokenizer")]
    flags += [f"--training.steps={steps}", "--training.batch_size=16", "--training.caption_dropout=0"]
    trainer, sharded = ["-m", "training.train_prior"], [str(ROOT / "tests/support/sharded_prior.py"), "0"]
    ways = {
        "one process": trainer,
        "two processes, DDP": [*TWO, *trainer],
        "two processes, FSDP2": [*TWO, *sharded],
        "one, four micro-batches": [*trainer, "--training.gradient_accumulation_steps=4"],
        "one, activations computed again": [*trainer, "--training.activation_checkpointing=true"],
    }
    runs, shown = [], sorted({1, steps // 4, steps // 2, steps})
    titles = [*map(str, shown), f"farthest of {steps}", "weights"]
    print(f"| loss at step | {' | '.join(titles)} |\n|{' --- |' * (len(titles) + 1)}")
    for name, way in ways.items():
        own = folder / re.sub(r"\W+", "-", name)
        split = next((i for i, part in enumerate(way) if part.startswith("--training")), len(way))
        run(*way[:split], str(preset), "--output_dir", str(own), *flags, *way[split:])
        lines = [json.loads(line) for line in (own / "prior-log.jsonl").read_text().splitlines()]
        curve = [line["loss"] for line in lines if "loss" in line]
        assert len(curve) == steps, (name, len(curve))
        runs.append((curve, load_file(own / "prior" / "model.safetensors")))
        (first, weights), (_, own_weights) = runs[0], runs[-1]
        farthest = max(abs(a / b - 1) for a, b in zip(curve, first, strict=True))
        apart = max((own_weights[name] - weight).abs().max().item() for name, weight in weights.items())
        print(
            f"| {name} | {' | '.join(f'{curve[i - 1]:.5f}' for i in shown)} | {farthest:.0e} | {apart:.0e} |",
            flush=True,
        )


def broken_rows(folder: Path) -> None:
    """Prints a line a format: what a run over 100 rows, five of them broken, said and counted."""
    preset = folder / "squares.yaml"
    dvae = {"model": PRESET["dvae"]["model"] | {"image_size": 16}, "training": PRESET["dvae"]["training"]}
    preset.write_text(yaml.safe_dump({"output_dir": "unset", "data": {"path": "unset"}, "dvae": dvae}))
    flags = ["--training.steps=25", "--training.autoencoder_steps=10", "--training.decoder_steps=5"]
    flags += ["--data.validation_split=train", "--training.kmeans_latents=256"]
    print("| format | in memory | streamed |\n| --- | --- | --- |")
    for kind in broken_sets.FORMATS:
        path, counts = broken_sets.write(kind, folder / kind), []
        for streaming in ("false", "true"):
            own = [f"--data.path={path}", f"--data.streaming={streaming}"]
            said = run(
                "-m",
                "training.train_dvae",
                str(preset),
                "--output_dir",
                str(folder / f"{kind}-{streaming}"),
                *own,
                *flags,
            )
            counts.append(re.findall(r"(\d+ of \d+) rows of .* skipped: ([^\n]*)", said)[0])
        print(f"| {kind} | {' | '.join(f'{count}: {reasons}' for count, reasons in counts)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        engines(Path(folder), args.steps)
        broken_rows(Path(folder))


if __name__ == "__main__":
    main()
