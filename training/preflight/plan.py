"""What a run will take, before it takes it: `--dry_run` at a trainer.

    python -m training.train_prior training/configs/dalle_256.yaml --dry_run '{gpus: 1024, gib: 80, engine: fsdp}'

Memory by part is computed by a step on tensors without numbers (memory.py), for this machine and for the GPUs asked
for; a few real steps on noise are measured here where they fit. Nothing is trained, nothing is written.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import psutil
import torch
import yaml
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from dvae import DVAE, DVAEConfig
from pipelines.checkpoints.first_stages import find_first_stage_config
from prior_transformer import StreamConfig, StreamPrior, build_prior, load_tokenizer, prior_config

from ..adversaries.beside_the_dvae import build_adversaries
from ..loop.engine import ready
from ..loop.losses import dvae_losses
from ..loop.precision import mixed_precision
from ..loop.pretrained import (
    LoraSettings,
    find_part,
    freeze,
    load_dvae_config,
    lora_config,
    part_of_run,
    start_config,
)
from ..pictures.in_memory import bytes_decoded
from ..pictures.kinds import Captioned
from ..pictures.report import glance
from ..pictures.splits import fit_scenes, load_split
from ..presets.reading import parse
from ..presets.trainers import DVAETraining, PriorTraining
from .measuring import Subject, measure
from .memory import FLOAT, Memory, Step, sharded_step, whole_step

GIB = 2**30
PIECES = 0.8  # more pictures that are encoded of a scene that is put together: about 1.5 pieces, and shared grounds
PARTS = ("weights", "gradients", "optimiser", "average", "activations", "communication")


@dataclass
class DryRun:
    """
    gpus: of gib GiB each, under engine "ddp" or "fsdp"; each computes tflops · 10¹² operations a second, sustained,
        and costs `price` an hour. steps: how many are measured on this machine; 0 measures none.
    """

    gpus: int = 8
    gib: float = 80.0
    engine: Literal["ddp", "fsdp"] = "ddp"
    tflops: float = 300.0
    price: float = 2.0
    steps: int = 3

    def __post_init__(self):
        if self.engine not in ("ddp", "fsdp"):
            raise ValueError(f"engine={self.engine!r} must be 'ddp' or 'fsdp'")
        if min(self.gpus, self.gib, self.tflops) <= 0:
            raise ValueError(f"gpus={self.gpus}, gib={self.gib} and tflops={self.tflops} must be above 0")

    @classmethod
    def read(cls, text: str) -> "DryRun":
        """YAML of its fields; a typo is a ValueError that names the key."""
        names = [field.name for field in fields(cls)]
        try:
            settings = yaml.safe_load(text)
        except yaml.YAMLError:
            settings = None
        if not isinstance(settings, dict) or set(settings) - set(names):
            raise ValueError(f"--dry_run takes {{{', '.join(f'{name}: …' for name in names)}}}, not {text}")
        return cls(**settings)


def plan_or_train(
    section: str,
    training_type: type,
    train: Callable[[list[str]], Any],
    doc: str | None,
    kinds: Sequence[type[Captioned]] = (),
) -> None:
    """The command line of a trainer: with `--dry_run`, alone or with settings, it prints a plan; else it trains."""
    argv = sys.argv[1:]
    if "--dry_run" not in argv:
        train(argv)
        return
    at = argv.index("--dry_run")
    has_settings = at + 1 < len(argv) and not argv[at + 1].startswith("--")
    rest = argv[:at] + argv[at + 1 + has_settings :]
    args = parse(section, training_type, rest, doc)
    dry_run = DryRun.read(argv[at + 1] if has_settings else "{}")
    preset = rest[rest.index("--config") + 1] if "--config" in rest else rest[0]
    print(plan(section, args, dry_run, Path(preset), kinds))


def plan(section: str, args, dry_run: DryRun, preset: Path, kinds: Sequence[type[Captioned]] = ()) -> str:
    """A page of text. Raises a ValueError where the batch does not divide, or sizes are not known."""
    training = args.training
    lora = section == "prior" and training.lora is not None
    if lora and dry_run.engine == "fsdp":
        raise ValueError("an adapter trains under DDP, not FSDP, which shards a model: take engine: ddp")
    subject = dvae_subject(args.model, training) if section == "dvae" else prior_subject(args, preset)
    if subject.has_encoder and dry_run.engine == "fsdp":
        raise ValueError("a prior that reads features of text trains under DDP, not FSDP: take engine: ddp")
    precision = mixed_precision(training.mixed_precision)
    here = step_of(subject, training, precision, DryRun(gpus=1))
    there = step_of(subject, training, training.mixed_precision, dry_run)
    millions = (here.memory.weights / FLOAT - subject.networks) / 1e6
    lines = [f"{subject.name}: {millions:,.2f} M parameters, {here.flops / 1e12:,.3g} TFLOP a step"]
    if subject.has_encoder:
        lines.append("text encoder: its weights, frozen, come on top: the table has neither them nor their arithmetic")
    if subject.networks:
        lines.append(
            f"adversaries: {subject.networks / 1e6:,.2f} M parameters more, with gradients and moments in the table; "
            "their activations and arithmetic are not"
        )
    if lora:
        share = here.memory.gradients / here.memory.weights
        lines.append(
            f"lora: an adapter learns alone, {share:.1%} of these weights; the rest has no gradients or moments"
        )
    if section == "prior" and training.optimizer == "muon":
        lines.append("muon: the blocks' matrices have one moment, not two: the optimiser takes less than what follows")
    lines += training.unfinished()
    lines += ["", *memory_table(here.memory, there.memory, dry_run), ""]
    lines += advice(there.memory, training, dry_run)
    lines += measured(subject, training, precision, here, dry_run)
    seconds = there.flops / (dry_run.tflops * 1e12)
    hours = training.steps * seconds / 3600
    cost = hours * dry_run.gpus * dry_run.price
    lines.append(
        f"{dry_run.gpus} GPUs at {dry_run.tflops:g} TFLOP/s: {seconds:.3g} s a step, {training.steps:,} steps in "
        f"{hours:,.3g} h, {cost:,.0f} at {dry_run.price:g} a GPU-hour"
    )
    return "\n".join([*lines, *data_lines(args, subject.image_size, kinds, captions=section != "dvae")])


def dvae_subject(model: dict | None, training: DVAETraining) -> Subject:
    start = training.init_from
    config = load_dvae_config(start) if start else DVAEConfig(**(model or {}))

    def loss(dvae: DVAE, batch: int) -> Tensor:
        encoded = batch + round(PIECES * batch * training.assembled_share)  # of a scene more is encoded than decoded
        pixel_values = torch.rand(encoded, 3, config.image_size, config.image_size)
        pixel_values = pixel_values.to(dvae.device).contiguous(memory_format=torch.channels_last)
        cells = None
        if training.assembled_share > 0:
            cells = torch.arange(batch * config.grid_size**2, device=dvae.device)
            cells = cells.view(batch, config.grid_size, config.grid_size)
        output = dvae(pixel_values, temperature=0.7, cells=cells)
        return dvae_losses(pixel_values[:batch], output, dvae.likelihood, 1.0)["loss"]

    def build() -> DVAE:
        dvae = DVAE(config)
        freeze(dvae, training.freeze)
        return ready(dvae, training, [])

    networks, size = adversary_parameters(config, training), config.image_size
    return Subject("dVAE", build, loss, config.grid_size**2, networks=networks, image_size=size)


def adversary_parameters(config: DVAEConfig, training: DVAETraining) -> int:
    """Of the adversaries that the preset switches on, built of tensors without numbers."""
    process: Any = SimpleNamespace(device=torch.device("meta"), prepare=lambda *parts: parts)
    with process.device:
        adversaries = build_adversaries(DVAE(config), training, process)
    return sum(parameter.numel() for adversary in adversaries for parameter in adversary.network.parameters())


def prior_subject(args, preset: Path) -> Subject:
    """
    Sizes are those of the prior that the run starts from; or of the run's dVAE and tokenizer where they are there; or
    of the preset.
    """
    start = args.training.init_from
    if start:
        config = start_config(start)
    else:
        config = prior_config({**(args.model or {}), **prior_sizes(args.training, Path(args.output_dir), preset)})

    def loss(prior: StreamPrior, batch: int) -> Tensor:
        text_ids = torch.randint(config.text_vocab_size, (batch, config.text_length), device=prior.device)
        codes = torch.randint(config.codebook_size, (batch, config.image_length), device=prior.device)
        input_ids = prior.join(text_ids, codes)
        return prior(input_ids, labels=input_ids).loss

    def build() -> StreamPrior:
        lora = args.training.lora
        prior = build_prior(config) if lora is None else adapted(config, lora)
        freeze(prior, args.training.freeze)
        prior = ready(prior, args.training, [])
        prior.embed_text = prior.embeddings.embed_text  # without the checks of ids, which tensors without numbers
        prior.embed_codes = lambda codes: prior.embeddings.embed_codes(  # cannot pass
            codes, torch.arange(codes.shape[1], device=codes.device)
        )
        if config.feature_size is not None:
            embeddings: Any = prior.embeddings
            embeddings.features = lambda text_ids: embeddings.null_features.expand(len(text_ids), -1, -1)
        return prior

    tokens, block = config.text_length + config.image_length, StreamPrior._no_split_modules[0]
    return Subject("prior", build, loss, tokens, block, has_encoder=config.feature_size is not None)


def adapted(config: StreamConfig, settings: LoraSettings) -> StreamPrior:
    """
    A prior with an adapter. peft moves the weights that it made, which tensors without numbers do not bear: so it is
    laid out on the meta device first.
    """
    from peft import inject_adapter_in_model

    with unset_fake_temporarily(), torch.device("meta"):
        prior = build_prior(config)
        inject_adapter_in_model(lora_config(prior, settings), prior)
    for module in prior.modules():
        for name, weight in module.named_parameters(recurse=False):
            values = torch.randn(weight.shape) * config.initializer_range
            setattr(module, name, nn.Parameter(values, weight.requires_grad))
    return prior


def prior_sizes(training: PriorTraining, output_dir: Path, preset: Path) -> dict[str, int]:
    """Of the dVAE and the tokenizer that the run takes, or would make."""
    sections, named = yaml.safe_load(preset.read_text()) if preset.is_file() else {}, training.dvae
    if training.tokenizer or (output_dir / "tokenizer" / "tokenizer.json").exists():
        there = load_tokenizer(part_of_run("tokenizer", training, output_dir))
        text = {
            "text_vocab_size": len(there),
            "text_length": there.model_max_length,
            "pad_token_id": there.pad_token_id,
        }
    else:
        planned = {"vocab_size": 16384, "text_length": 256, **(sections.get("tokenizer") or {})}
        text = {"text_vocab_size": planned["vocab_size"], "text_length": planned["text_length"], "pad_token_id": 0}
    if named or (output_dir / "dvae" / "config.json").exists():
        dvae = find_first_stage_config(find_part(named, "dvae") if named else output_dir / "dvae")
    else:
        dvae = DVAEConfig(**((sections.get("dvae") or {}).get("model") or {}))
    return {**text, "codebook_size": dvae.codebook_size, "grid_size": dvae.grid_size}


def step_of(subject: Subject, training: DVAETraining | PriorTraining, precision: str, dry_run: DryRun) -> Step:
    """One process's step, of `gpus` that share the batch."""
    batch, parts = training.local_batch_size(dry_run.gpus), training.gradient_accumulation_steps

    def loss(model: nn.Module) -> Tensor:
        return subject.loss(model, batch)

    if dry_run.engine == "fsdp":
        if subject.block is None:
            raise ValueError(f"a {subject.name} trains under DDP: take engine: ddp")
        return sharded_step(subject.build, loss, precision, parts, dry_run.gpus, subject.block)
    step = whole_step(subject.build, loss, precision, parts)
    step.memory.weights += FLOAT * subject.networks
    step.memory.gradients += FLOAT * subject.networks
    step.memory.optimiser += 2 * FLOAT * subject.networks
    if dry_run.gpus > 1:
        step.memory.communication = step.memory.gradients  # DDP's buckets
    return step


def memory_table(here: Memory, there: Memory, dry_run: DryRun) -> list[str]:
    header = f"{'GiB a process':24}{'this machine':>14}{f'{dry_run.gpus} GPUs, {dry_run.engine}':>18}"
    rows = [f"{part:24}{getattr(here, part) / GIB:14.3f}{getattr(there, part) / GIB:18.3f}" for part in PARTS]
    return [header, *rows, f"{'sum':24}{here.total / GIB:14.3f}{there.total / GIB:18.3f}"]


def advice(there: Memory, training, dry_run: DryRun) -> list[str]:
    """Whether it fits with a tenth to spare, for kernels and the allocator; if not, what would help."""
    room = 0.9 * dry_run.gib * GIB
    if there.total <= room:
        return [f"fits {dry_run.gib:g} GiB"]
    fixed = there.total - there.activations
    if fixed > room:
        return [
            f"does NOT fit {dry_run.gib:g} GiB: {fixed / GIB:.1f} GiB before any activation; "
            "take engine: fsdp (for the prior), or more GPUs"
        ]
    parts = training.gradient_accumulation_steps
    local = training.local_batch_size(dry_run.gpus)
    divisors = [k for k in range(1, local + 1) if local % k == 0 and fixed + there.activations / k <= room]
    if divisors:
        remedy = f"--training.gradient_accumulation_steps {parts * divisors[0]}"
        if not training.activation_checkpointing:
            remedy += ", or fewer with --training.activation_checkpointing true"
    else:
        remedy = "--training.activation_checkpointing true" if not training.activation_checkpointing else "more GPUs"
    return [f"does NOT fit {dry_run.gib:g} GiB: take {remedy}"]


def measured(subject: Subject, training, precision: str, here: Step, dry_run: DryRun) -> list[str]:
    """tokens/s and peak of a few steps on this machine, where they fit."""
    free = psutil.virtual_memory().available
    if dry_run.steps == 0 or here.memory.total > 0.8 * free:
        need = f"it needs {here.memory.total / GIB:,.3g} GiB of the {free / GIB:.3g} that are free"
        return ["not measured here: " + ("steps: 0" if dry_run.steps == 0 else need)]
    seconds, peak = measure(subject, training, precision, dry_run.steps)
    tokens = training.batch_size * subject.tokens / seconds
    off = (here.memory.total - 4 * FLOAT * subject.networks) / peak - 1
    return [
        f"measured here: {seconds:.3g} s a step, {tokens:,.0f} tokens/s, {training.steps:,} steps in "
        f"{training.steps * seconds / 3600:.3g} h; peak {peak / GIB:.3f} GiB, the sum above is {off:+.0%} of it"
    ]


def data_lines(args, image_size: int | None, kinds: Sequence[type[Captioned]], captions: bool = True) -> list[str]:
    data, said = args.data, []
    try:
        fit_scenes(args, kinds, said.append)
        pictures = load_split(data, "train", kinds, captions)
        line = f"data: {len(pictures):,} pictures to train on in {data.path}; {glance(pictures, data)}"
        if image_size is not None and not data.streaming:
            need, free = bytes_decoded(pictures, data, image_size), psutil.virtual_memory().available
            line = f"{line}; decoded {need / GIB:.3g} GiB a process, {free / GIB:.3g} are free here"
        return [*said, line]
    except ValueError as error:
        return [f"data: {error}"]
