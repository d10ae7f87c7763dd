"""What every loop of steps takes of a preset, whatever it trains."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .schedules import Steps, in_steps

NOT_RECIPE = {
    "num_workers", "log_every", "evaluate_every", "checkpoint_every", "keep_checkpoints", "resume_from", "init_from",
    "log_with", "sampling", "dvae", "tokenizer", "compile", "activation_checkpointing", "max_skipped_steps",
    "may_differ",
}  # fmt: skip
PRECISIONS = ("no", "fp16", "bf16")
Learned = Literal["data", "dvae", "tokenizer"]
Tracker = Literal["tensorboard", "wandb", "trackio"]


@dataclass
class LoopTraining:
    """
    What all loops take.

    batch_size: pictures that an optimiser step sees, over all processes and accumulation steps, so that a preset
        means the same on one CPU and on many GPUs.
    gradient_accumulation_steps: micro-batches that a step's pictures are cut into.
    mixed_precision: "no", "bf16", or "fp16" on a GPU alone; weights stay float32.
    steps: optimiser steps.
    lr, lr_end: the learning rate falls on a cosine from its peak, after `warmup_steps`, to its end.
    warmup_steps: as all that is called so: a number of steps, or a share of `steps`, such as "10%", which a run of
        other `steps` keeps.
    betas, weight_decay: of AdamW.
    max_grad_norm: gradients are clipped to it; None does not.
    ema: decay of the averaged weights, which are evaluated and saved.
    seed: of the first weights and of what is drawn.
    num_workers: processes that load batches beside each one that trains; 0 loads in it.
    log_every, evaluate_every, checkpoint_every: how many steps lie between two.
    resume_from: a checkpoint folder, or "latest".
    init_from: the weights to start from: a saved model's folder or Hub id, or a whole pipeline's, or "embedded";
        its config is theirs, and the preset's `model` is not read.
    keep_checkpoints: the newest ones kept.
    max_skipped_steps: how many steps in a row may have a loss or gradient that is not finite; each changes nothing.
    activation_checkpointing: each block's activations are computed again in the backward pass, not kept.
    compile: the blocks, by torch.compile.
    may_differ: which of data, dvae and tokenizer may be others than what a checkpoint, or a part of the run's folder,
        learned with. None may, unless it is named here.
    log_with: trackers that are told a run's numbers and pictures, each installed (`pip install "armchair[trackers]"`).
    powersgd_rank: of the gradients that DDP's processes send each other after the warm-up; None sends them whole.
    """

    steps: int = 1000
    batch_size: int = 32
    gradient_accumulation_steps: int = 1
    mixed_precision: str = "no"
    lr: float = 1e-4
    lr_end: float = 1.25e-6
    warmup_steps: Steps = 0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    max_grad_norm: float | None = None
    ema: float = 0.999
    seed: int = 0
    num_workers: int = 0
    log_every: int = 20
    evaluate_every: int = 1000
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    max_skipped_steps: int = 20
    activation_checkpointing: bool = False
    compile: bool = False
    powersgd_rank: int | None = None
    log_with: Tracker | list[Tracker] | None = None
    may_differ: list[Learned] = field(default_factory=list)
    resume_from: str | None = None
    init_from: str | None = None

    def __post_init__(self):
        for name in ("steps", "batch_size", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} trains nothing: give 1 or more")
        self.warmup_steps = in_steps("warmup_steps", self.warmup_steps, self.steps)
        if self.warmup_steps > self.steps:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} do not fit into steps={self.steps}: give fewer, or a share such as "
                "'5%', which fits any run"
            )
        for name in ("log_every", "evaluate_every", "checkpoint_every"):
            every = getattr(self, name)
            if every < 1:
                raise ValueError(f"{name}={every} must be at least 1; take {self.steps} for the last step alone")
        if self.keep_checkpoints < 1:
            raise ValueError(f"keep_checkpoints={self.keep_checkpoints} must be at least 1: a run goes on from it")
        if self.mixed_precision not in PRECISIONS:
            raise ValueError(f"mixed_precision={self.mixed_precision!r} must be one of {', '.join(PRECISIONS)}")

    def starts_anew(self, what: str) -> None:
        """Raises a ValueError for settings of the dVAE and the prior that `what` does not have."""
        if self.init_from is not None:
            raise ValueError(f"init_from={self.init_from!r} is for the dVAE and the prior: {what} starts anew")
        if self.activation_checkpointing or self.compile:
            raise ValueError("activation_checkpointing and compile are for the dVAE and the prior: leave them out")

    def local_batch_size(self, num_processes: int) -> int:
        """Pictures of one process in one forward pass. Raises a ValueError when the batch does not divide."""
        parts = num_processes * self.gradient_accumulation_steps
        if self.batch_size % parts:
            raise ValueError(
                f"batch_size={self.batch_size} must be divisible by {num_processes} processes × "
                f"{self.gradient_accumulation_steps} gradient_accumulation_steps = {parts}"
            )
        return self.batch_size // parts

    def unfinished(self) -> list[str]:
        """Schedules that `steps` cut off, a line each: allowed, and to be known before a run."""
        return []

    def recipe(self) -> dict[str, Any]:
        """What shaped the weights, for the model card: the settings that are on, but for logs, files and painting."""
        on = {name: value for name, value in asdict(self).items() if name not in NOT_RECIPE}
        return {name: value for name, value in on.items() if value not in (None, []) and value is not False}
