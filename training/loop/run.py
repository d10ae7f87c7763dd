"""A run: where it stands, and what every loop does around its step.

    run = Run("prior", training, accelerator, output_dir, model=prior, optimizer=optimizer, report=…)
    with run:
        for batch in run.batches(loader):
            with accelerator.accumulate(model):
                loss = …
                run.descend(loss)
            run.end_step({"loss": loss}, lr=lr)

It resumes at construction, saves and evaluates at the end of a step that is due, and leaves with exit code 75 after a
checkpoint when it is told to stop.
"""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from PIL import Image
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PreTrainedModel

from .averaging import Average
from .checkpoints import Checkpoints
from .curves import plot_losses
from .endless import EndlessLoader
from .loop_training import LoopTraining
from .provenance import Fact
from .run_log import RunLog, StepMeans
from .states import is_sharded, same_rng_after
from .stepping import descend
from .stopping import RESUMABLE, StopSignals
from .trackers import Trackers


class Run:
    """
    step: optimiser steps done, in this process or before. skipped: how many of them changed nothing, because a loss or
        a gradient was not finite. average: the model's averaged weights. log: output_dir/NAME-log.jsonl.

    report: called as report(averaged model, run) on the first process, every `evaluate_every` steps and at the end,
        after the checkpoint, as it may fail. Its draws leave no trace.
    facts: what a checkpoint must agree with to be resumed, by name, as provenance.py has it.
    settings: what a checkpoint tells of its run beside these. may_go_on: called with what a checkpoint tells, before
        the run goes on from it; raises a ValueError where it cannot.
    parts: whatever else a checkpoint holds, by name.
    """

    def __init__(
        self,
        name: str,
        training: LoopTraining,
        accelerator: Accelerator,
        output_dir: Path,
        *,
        model: PreTrainedModel,
        optimizer: Optimizer,
        report: "Callable[[Any, Run], None] | None" = None,
        facts: dict[str, Fact] | None = None,
        settings: dict[str, Any] | None = None,
        may_go_on: Callable[[dict[str, Any]], None] = lambda told: None,
        **parts: Any,
    ):
        self.facts, self.settings, self.report = facts or {}, settings or {}, report
        self.may_go_on = may_go_on
        self.name, self.training, self.accelerator = name, training, accelerator
        self.model, self.optimizer, self.average = model, optimizer, Average(model, training.ema)
        parts = {"model": model, "average": self.average, "optimizer": optimizer, **parts}
        if accelerator.scaler is not None:
            parts["scaler"] = accelerator.scaler
        folder = output_dir / f"{name}-checkpoints"
        self.checkpoints = Checkpoints(folder, training.keep_checkpoints, accelerator, parts, is_sharded(model))
        self.step = self.skipped = self.skipped_in_a_row = 0
        self.output_dir = output_dir
        self.signals, self.means, self.stopping, self.finite = StopSignals(), StepMeans(), False, True
        self.without_plot = False
        first = accelerator.is_main_process
        self.checkpoints.lock()
        try:
            self._resume()
            self.trackers = Trackers(name, training, output_dir, self.step, enabled=first)
            self.log = RunLog(output_dir / f"{name}-log.jsonl", first, self.trackers)
        except BaseException:
            self.checkpoints.unlock()
            raise
        self.bar = tqdm(total=training.steps, initial=self.step, desc=name, disable=not first)

    def _resume(self) -> None:
        found = self.checkpoints.find(self.training.resume_from)
        if found is not None:
            training = self.training
            self.may_go_on(self.checkpoints.told(found))
            progress = self.checkpoints.load(found, training.batch_size, self.facts, training.may_differ)
            self.step, self.skipped = progress["step"], progress["skipped"]
            if self.step > self.training.steps:
                self.accelerator.print(
                    f"{found} is past steps={self.training.steps}: nothing is trained; raise --training.steps above "
                    f"{self.step}"
                )
        self.checkpoints.clean(self.step)

    def __enter__(self) -> "Run":
        self.signals.listen()
        return self

    def __exit__(self, *error: object) -> None:
        self.signals.ignore()
        self.bar.close()
        self.trackers.finish()
        self.checkpoints.unlock()

    def batches(self, loader: DataLoader | EndlessLoader, per_step: int | None = None) -> Iterator[Any]:
        """
        The loader's, from where the run stands; per_step: micro-batches of a step, those of the accumulation. Nothing
        that is skipped is decoded: places are counted, and a stream, which has no end, knows its own. Of a run that
        ended between its last checkpoint and its evaluation there are none, and it is evaluated now.
        """
        if self.step == self.training.steps:
            self.evaluate()
        per_step = self.training.gradient_accumulation_steps if per_step is None else per_step
        if isinstance(loader, EndlessLoader):
            return itertools.islice(loader, max(self.training.steps - self.step, 0) * per_step)
        return iter(self.accelerator.skip_first_batches(loader, self.step * per_step))

    def descend(self, loss: Tensor, optimizer: Optimizer | None = None) -> None:
        """Backward, and after the last micro-batch a step of `optimizer`, by default the model's, unless spoilt."""
        if optimizer is None:
            optimizer, parameters = self.optimizer, self.model.parameters()  # in this order: FSDP asks for it
        else:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        finite, self.stopping = descend(
            self.accelerator, loss, optimizer, parameters, self.training.max_grad_norm, self.signals.received
        )
        self.finite = self.finite and finite

    def end_step(self, numbers: dict[str, Tensor], **schedule: float) -> bool:
        """
        Counts a step and averages the weights; logs means over the step's pictures and the schedule's values, saves
        and evaluates when these are due -> False after a micro-batch, which is no step.

        Raises a FloatingPointError after `max_skipped_steps` in a row.
        """
        self.means.add(numbers)
        if not self.accelerator.sync_gradients:
            return False
        self.step += 1
        self.bar.update()
        if self.finite:
            self.average.update()
            self.skipped_in_a_row = 0
        else:
            self._skip()
        if self.step % self.training.log_every == 0:
            means = self.means.means(self.accelerator)
            self.bar.set_postfix({name: f"{value:.4g}" for name, value in list(means.items())[:3]})
            self.log.write(self.step, **schedule, **means, skipped=self.skipped)
        self.means.clear()
        self.finite = True
        self.checkpoint()
        if self.due(self.training.evaluate_every):
            self.evaluate()
        return True

    def _skip(self) -> None:
        """A step that changes nothing: the moments of batch norms, which the forward pass changed, come back too."""
        self.average.copy_buffers_to_model()
        self.skipped, self.skipped_in_a_row = self.skipped + 1, self.skipped_in_a_row + 1
        if self.skipped_in_a_row > self.training.max_skipped_steps:
            whole = self.checkpoints.whole()
            good = f"the last good checkpoint is {whole[-1]}" if whole else "there is no checkpoint before it"
            raise FloatingPointError(
                f"{self.skipped_in_a_row} steps in a row, up to step {self.step}, had a loss or gradient that is not "
                f"finite, past max_skipped_steps={self.training.max_skipped_steps}: {good}; lower lr, or clip by "
                "--training.max_grad_norm"
            )

    def evaluate(self) -> None:
        """All processes call it: those of a sharded model put the averaged one together."""
        if self.report is None:
            return
        with same_rng_after():
            average = self.average.module()
            if self.accelerator.is_main_process:
                self.report(average, self)

    def evaluated(self, numbers: dict[str, float]) -> None:
        """Logs and prints an evaluation's numbers, and draws the curves so far. For the first process."""
        self.log.write(self.step, **numbers)
        tqdm.write(f"step {self.step}: " + ", ".join(f"{name} {value:.4g}" for name, value in numbers.items()))
        try:
            plot_losses(self.log.path)
        except ImportError as error:
            if not self.without_plot:
                tqdm.write(str(error))
            self.without_plot = True

    def show(self, title: str, picture: Image.Image) -> None:
        """Saves a picture as output_dir/NAME-pictures/TITLE-STEP.png, and to the trackers. For the first process."""
        folder = self.output_dir / f"{self.name}-pictures"
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{title}-{self.step:07d}.png")
        self.trackers.show(self.step, title, picture)

    def due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.training.steps

    def checkpoint(self) -> None:
        """Saves when it is due. When told to stop it saves and leaves: SystemExit with code 75, on all processes."""
        done = self.step == self.training.steps
        if self.due(self.training.checkpoint_every) or self.stopping:
            told = {"batch_size": self.training.batch_size, "skipped": self.skipped, **self.settings, **self.facts}
            self.checkpoints.save(self.step, **told)
        if self.stopping and not done:
            latest = self.checkpoints.whole()[-1:]
            self.accelerator.print(
                f"stopped at step {self.step} of {self.training.steps}; go on from "
                f"{latest[0] if latest else 'the start'} with --training.resume_from latest"
            )
            raise SystemExit(RESUMABLE)
