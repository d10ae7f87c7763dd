"""The numbers of a run: a line of JSON a step, means over the pictures of the whole step."""

import json
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from .trackers import Trackers

HELDOUT_SPLIT = "heldout-pairs"  # scenes of what training never puts together: numbers are logged of it as of a split


class RunLog:
    """
    Appends a line of numbers a call to a JSON-lines file, and tells the trackers; on other processes than the first it
    does nothing. A line that cannot be written, as on a full disk, is said and does not end the run.
    """

    def __init__(self, path: Path, enabled: bool, trackers: Trackers):
        self.path, self.enabled, self.trackers = path, enabled, trackers
        if enabled:
            path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, step: int, **numbers: Any) -> None:
        if self.enabled:
            rounded = {k: float(f"{float(v):.6g}") for k, v in numbers.items()}
            try:
                with self.path.open("a") as file:
                    file.write(json.dumps({"step": step, **rounded}) + "\n")
            except OSError as error:
                tqdm.write(f"step {step} not logged: {error}")
            self.trackers.log(step, rounded)


class StepMeans:
    """Scalars of the micro-batches of a step, on all processes -> their means."""

    def __init__(self):
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, numbers: dict[str, Tensor]) -> None:
        for name, value in numbers.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach().float()
        self.count += 1

    def clear(self) -> None:
        self.sums, self.count = {}, 0

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """All processes call it; each has the same names."""
        stacked = torch.stack(list(self.sums.values())) / self.count
        means = cast(Tensor, accelerator.reduce(stacked, "mean"))
        return dict(zip(self.sums, means.tolist(), strict=True))


def save_numbers(path: Path, numbers: dict[str, Any]) -> None:
    """Numbers to JSON, for the model card."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(numbers, indent=2) + "\n")
