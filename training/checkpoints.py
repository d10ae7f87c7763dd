"""What both loops do with a run's state: averaged weights, checkpoints, a log of numbers."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of the weights: ema ← decay · ema + (1 − decay) · weights."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))


def save_checkpoint(accelerator: Accelerator, folder: Path, step: int, keep: int) -> None:
    """Writes folder/step-N whole (model, average, optimiser, RNG), then removes all but the newest `keep`."""
    accelerator.wait_for_everyone()
    target, partial = folder / f"step-{step:07d}", folder / "partial"
    accelerator.save_state(str(partial))
    if accelerator.is_main_process:
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        for old in checkpoints(folder)[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("step-*"))


def load_checkpoint(accelerator: Accelerator, folder: Path, resume_from: str | None) -> int:
    """Restores "latest" of `folder`, or the checkpoint at a path; returns its step, 0 where there is nothing to do."""
    if resume_from is None:
        return 0
    if resume_from == "latest":
        found = checkpoints(folder)
        if not found:
            accelerator.print(f"no checkpoint in {folder} yet: starting from step 0")
            return 0
        resume_from = str(found[-1])
    if not Path(resume_from).is_dir():
        raise FileNotFoundError(
            f"no checkpoint at {resume_from}: {folder} holds {[p.name for p in checkpoints(folder)]}"
        )
    accelerator.load_state(resume_from)
    return int(Path(resume_from).name.removeprefix("step-"))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


class RunLog:
    """Appends a line of numbers a call to a JSON-lines file; on other processes than the first it does nothing."""

    def __init__(self, path: Path, enabled: bool):
        self.path, self.enabled = path, enabled
        if enabled:
            path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, step: int, **numbers: Any) -> None:
        if self.enabled:
            rounded = {k: float(f"{float(v):.6g}") for k, v in numbers.items()}
            with self.path.open("a") as file:
                file.write(json.dumps({"step": step, **rounded}) + "\n")


def save_numbers(path: Path, numbers: dict[str, Any]) -> None:
    """Numbers to JSON, for the model card."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(numbers, indent=2) + "\n")
