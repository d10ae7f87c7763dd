"""Kill −9 at random moments of a small run, resumed each time: has it the weights of the run that was left alone?

    python -m tests.benchmarks.kill [--kills 20] [--trainer dvae]

A quarter of the kills fall anywhere from the start of the process on, the others while it trains and saves (at every
other step). Prints where each fell, and whether the last checkpoints are equal, byte for byte: model, average,
moments, random generators.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent.parent
LOOP = {"batch_size": 4, "lr": 1e-3, "log_every": 1, "evaluate_every": 10_000, "checkpoint_every": 2, "steps": 120}
PRESET = {
    "output_dir": "unset",
    "data": {"path": str(ROOT / "training" / "data" / "emoji"), "max_pictures": 64, "scenes": 0.25},
    "tokenizer": {"vocab_size": 300, "text_length": 8, "captions": 100},
    "dvae": {
        "model": {
            "image_size": 32,
            "downsample_factor": 8,
            "codebook_size": 32,
            "codebook_dim": 8,
            "widths": [8, 8, 8, 8],
            "posterior": "gumbel_codebook",
            "min_log_scale": -2.5,
        },
        "training": {**LOOP, "autoencoder_steps": 40, "decoder_steps": 40, "kmeans_latents": 1024},
    },
    "prior": {
        "model": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "dropout": 0.1},
        "training": {**LOOP, "bpe_dropout": 0.0},
    },
}


class SmallRun:
    """A trainer's run into a folder, as a process of its own."""

    def __init__(self, trainer: str, preset: Path, output_dir: Path, parts: Path):
        self.trainer, self.output_dir = trainer, output_dir
        self.command = [
            sys.executable,
            "-m",
            f"training.train_{trainer}",
            str(preset),
            "--output_dir",
            str(output_dir),
        ]
        self.command += ["--training.resume_from", "latest"]
        if trainer == "prior":
            self.command += [f"--training.{part}={parts / part}" for part in ("dvae", "tokenizer")]

    def start(self) -> subprocess.Popen:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(self.command, env=environment, **quiet)

    def lines(self) -> int:
        log = self.output_dir / f"{self.trainer}-log.jsonl"
        return len(log.read_text().splitlines()) if log.exists() else 0

    def seconds_until_it_trains(self, process: subprocess.Popen) -> float:
        start, before = time.monotonic(), self.lines()
        while self.lines() == before and process.poll() is None:
            time.sleep(0.02)
        return time.monotonic() - start

    def left_alone(self) -> tuple[float, float]:
        """Seconds until the first step, and from there to the end."""
        process = self.start()
        before = self.seconds_until_it_trains(process)
        start = time.monotonic()
        assert process.wait() == 0, self.command
        return before, time.monotonic() - start

    def last_checkpoint(self) -> tuple[str, dict[str, bytes]]:
        last = sorted((self.output_dir / f"{self.trainer}-checkpoints").glob("step-*"))[-1]
        return last.name, {path.name: path.read_bytes() for path in sorted(last.iterdir())}


def kill_at_random(run: SmallRun, kills: int, seconds: tuple[float, float], seed: int = 0) -> int:
    """Kills the run `kills` times, then lets it end -> how many of the kills came before its end."""
    rng, done = random.Random(seed), 0
    for i in range(kills):
        process = run.start()
        if i % 4 == 3:
            time.sleep(rng.uniform(0, seconds[0]))
        else:
            run.seconds_until_it_trains(process)
            time.sleep(rng.uniform(0, 0.9 * seconds[1] / kills))
        process.kill()
        if process.wait() == 0:
            break
        done += 1
        step = sorted(path.name for path in run.output_dir.glob("*-checkpoints/*"))
        print(f"kill {done} after log line {run.lines()}: {', '.join(step) or 'nothing saved yet'}", flush=True)
    process = run.start()
    assert process.wait() == 0, run.command
    return done


def compare(folder: Path, trainer: str, kills: int) -> tuple[int, bool]:
    """Two runs in `folder`, one left alone and one killed -> kills before the end; whether both are equal."""
    preset, parts = folder / "preset.yaml", folder / "parts"
    preset.write_text(yaml.safe_dump(PRESET))
    if trainer == "prior":
        from training import train_dvae, train_tokenizer

        train_tokenizer.main([str(preset), "--output_dir", str(parts)])
        train_dvae.main([str(preset), "--output_dir", str(parts), "--training.steps", "60"])
    alone, killed = (SmallRun(trainer, preset, folder / name, parts) for name in ("alone", "killed"))
    seconds = alone.left_alone()
    print(f"left alone: {seconds[0]:.1f} s until it trains, then {seconds[1]:.1f} s", flush=True)
    done = kill_at_random(killed, kills, seconds)
    (step, first), (same_step, second) = alone.last_checkpoint(), killed.last_checkpoint()
    differing = [name for name in first.keys() | second.keys() if first.get(name) != second.get(name)]
    print(f"{step} and {same_step}: {sorted(first)}, of which differ {differing}")
    return done, step == same_step and not differing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--trainer", choices=["dvae", "prior"], default="prior")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done, equal = compare(Path(folder), args.trainer, args.kills)
    print(json.dumps({"kills": done, "equal": equal}))


if __name__ == "__main__":
    main()
