"""A run's numbers and pictures in TensorBoard, W&B or trackio: `--training.log_with tensorboard`, none by default."""

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.tracking import GeneralTracker, TensorBoardTracker, TrackioTracker, WandBTracker
from PIL import Image

from .loop_training import LoopTraining

PROJECT = "armchair"


class Trackers:
    """
    Accelerate's trackers of `training.log_with`, started: TensorBoard's files in output_dir/tensorboard, the others'
    where they keep theirs. On other processes than the first there are none.

    step: where the run stands; what TensorBoard was told of later steps, before a run was stopped, it forgets.

    Raises an ImportError that says what to install.
    """

    def __init__(self, name: str, training: LoopTraining, output_dir: Path, step: int, enabled: bool):
        wanted = [training.log_with] if isinstance(training.log_with, str) else training.log_with or []
        for tracker in wanted:
            if importlib.util.find_spec(tracker) is None:
                raise ImportError(f'log_with={tracker} is not installed: pip install "armchair[trackers]"')
        run_name = f"{output_dir.resolve().name}-{name}"
        makers = {
            "tensorboard": lambda: TensorBoardTracker(name, output_dir / "tensorboard", purge_step=step + 1),
            "wandb": lambda: WandBTracker(PROJECT, name=run_name, dir=str(output_dir)),
            "trackio": lambda: TrackioTracker(PROJECT, name=run_name, auto_log_cpu=False, auto_log_gpu=False),
        }
        self.trackers: list[GeneralTracker] = [makers[tracker]() for tracker in wanted] if enabled else []
        for tracker in self.trackers:
            tracker.start()
            tracker.store_init_configuration(plain(training))

    def log(self, step: int, numbers: dict[str, float]) -> None:
        for tracker in self.trackers:
            tracker.log(numbers, step=step)

    def show(self, step: int, title: str, picture: Image.Image) -> None:
        for tracker in self.trackers:
            if isinstance(tracker, TensorBoardTracker):
                tracker.log_images({title: np.asarray(picture)[None]}, step=step, dataformats="NHWC")
            elif isinstance(tracker, WandBTracker):
                tracker.log_images({title: [picture]}, step=step)
            else:
                import trackio

                tracker.log({title: trackio.Image(picture)}, step=step)

    def finish(self) -> None:
        for tracker in self.trackers:
            tracker.finish()


def plain(training: LoopTraining) -> dict[str, Any]:
    """The settings as trackers take them: numbers, strings and truth values; all else as JSON."""
    settings = dataclasses.asdict(training).items()
    return {name: value if isinstance(value, int | float | str) else json.dumps(value) for name, value in settings}
