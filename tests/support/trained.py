"""A folder with a tokenizer and a dVAE, for runs of the prior: their curves and weights."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from training import train_prior

FLAGS = ["--model.dropout", "0", "--training.steps", "10", "--training.evaluate_every", "10"]


class Trained:
    """A folder with a tokenizer and a dVAE, for runs of the prior."""

    def __init__(self, folder: Path, preset: str):
        self.folder, self.preset = folder, preset

    def output_dir(self, name: str) -> list[str]:
        parts = [f"--training.{part}={self.folder / 'run' / part}" for part in ("tokenizer", "dvae")]
        return ["--output_dir", str(self.folder / name), *parts]

    def curve(self, name: str, trainer: str = "prior") -> list[float]:
        lines = [json.loads(line) for line in (self.folder / name / f"{trainer}-log.jsonl").read_text().splitlines()]
        return [line["loss"] for line in lines if "loss" in line]

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / name / "prior" / "model.safetensors")

    def one_process(self, name: str, *flags: str) -> list[float]:
        train_prior.main([self.preset, *self.output_dir(name), *FLAGS, *flags])
        return self.curve(name)
