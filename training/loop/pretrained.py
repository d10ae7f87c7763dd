"""Where a run's first weights come from: a whole pipeline's or a part's folder, or a Hub id."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from huggingface_hub.constants import HF_HOME
from torch import nn
from transformers import PreTrainedConfig
from transformers.utils.hub import cached_file

from dvae import DVAE, DVAEConfig, FirstStage
from pipelines import TextToImagePipeline
from pipelines.checkpoints.first_stages import find_first_stage, find_first_stage_config, is_own
from pipelines.checkpoints.known import SETTINGS, TELLING, Known, known_checkpoint
from pipelines.checkpoints.readers import read_prior_config
from pipelines.checks import check_text_encoder
from pipelines.folder.components import load_text_encoder
from pipelines.folder.locate import (
    EMBEDDED,
    INDEX_NAME,
    TEXT_ENCODER,
    fetch,
    find_file,
    find_pipeline,
    known_at,
    public_name,
    read_index,
)
from pipelines.folder.whole import settled
from prior_transformer import (
    PriorTokenizer,
    StreamConfig,
    StreamPrior,
    TextEncoder,
    load_prior_config,
    load_tokenizer,
)

from .fingerprints import codes_digests, digest_of, tokenizer_digest
from .loop_training import LoopTraining
from .provenance import Fact, check_facts, files_of, read_provenance

CONVERSION = 2  # of public checkpoints; one more whenever a reader of them makes something else
EMBEDDED_NAME, OURS = "embedded", "ours"
UNKNOWN_LICENCE = "as its owner says"
TRAINERS = {"dvae": "train_dvae", "tokenizer": "train_tokenizer"}


@dataclass
class LoraSettings:
    """
    Low-rank adapters: y = W x + alpha / rank · B A x, W frozen, B 0 at the start (arXiv 2106.09685).

    rank, alpha: of the formula. dropout: of x. targets: which linear layers of a block.
    train: modules trained whole and saved with the adapter, such as [text], the text embedding, or [text_projection],
        what a LlamaGen has in its place.
    """

    rank: int = 16
    alpha: float = 32
    dropout: float = 0.0
    targets: list[str] = field(default_factory=lambda: ["qkv", "output", "hidden"])
    train: list[str] = field(default_factory=list)


def find_part(name: str, part: str) -> str:
    """
    What `from_pretrained` of a part ("dvae", "prior", "tokenizer", "text_encoder") is to be given.

    name: "embedded", a pipeline's folder or Hub id, of which the part is taken, or the part's own folder or Hub id; of
        a public first stage also its file. A pipeline may be a public checkpoint, whose first stage is read where it
        lies, which may be another repository.
    """
    kind = kind_of(name)
    if kind is OURS or (kind is not None and part != "dvae"):
        return str(pipeline_folder(name) / part)
    if isinstance(kind, Known) and kind.first_stage is not None:
        return str(find_file(kind, find_pipeline(name), kind.first_stage, {}))
    return str(settled(name)) if Path(name).is_dir() else name


def is_pipeline(name: str) -> bool:
    """Whether a folder, or a repository on the Hub, is one of a whole pipeline, or of a public checkpoint."""
    return kind_of(name) is not None


def known_of(name: str) -> Known | None:
    """The public checkpoint that a folder, or a repository on the Hub, is; None of any other."""
    kind = kind_of(name)
    return kind if isinstance(kind, Known) else None


def kind_of(name: str) -> Known | str | None:
    """
    A public checkpoint, or OURS for a whole pipeline that is saved, as a folder or a repository on the Hub is one;
    None of any other. Raises an OSError where neither is.
    """
    if name == EMBEDDED_NAME:
        return OURS
    if Path(name).exists():
        return OURS if (settled(name) / INDEX_NAME).is_file() else known_at(Path(name))
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise FileNotFoundError(f"no folder {name}: give a model's or pipeline's, a Hub id, or {EMBEDDED_NAME!r}")
    if cached_file(name, INDEX_NAME, _raise_exceptions_for_missing_entries=False) is not None:
        return OURS
    return known_checkpoint(fetch(name, {}, list(TELLING)))


def pipeline_folder(name: str) -> Path:
    """
    Of a whole pipeline. A public checkpoint is converted at its first use, and kept with what huggingface_hub caches.
    """
    if name == EMBEDDED_NAME:
        return EMBEDDED
    folder = find_pipeline(name)
    known = known_at(folder)
    if known is None:
        return folder
    files = {str(path.relative_to(folder)): path.stat() for path in known.files(folder)}
    told = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in files.items()}
    key = digest_of({"files": told, "version": CONVERSION})
    converted = Path(HF_HOME) / "armchair" / f"{public_name(name).replace('/', '--')}-{key}"
    converted.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{converted}.lock"):  # of several processes one converts, the others find it
        if not (settled(converted) / INDEX_NAME).is_file():
            TextToImagePipeline.from_pretrained(folder).save_pretrained(converted)
    return converted


def start_config(start: str) -> StreamConfig:
    """
    Of the prior that a run starts from; of a public checkpoint by its settings, where it has some: no weights need be
    there.
    """
    folder = Path(start) if Path(start).is_dir() else None
    if folder is None and start != EMBEDDED_NAME and (kind := kind_of(start)) is not None:
        told_by_weights = isinstance(kind, Known) and not kind.has_settings
        folder = find_pipeline(start) if told_by_weights else fetch(start, {}, [INDEX_NAME, *SETTINGS])
    if folder is not None and known_at(folder) is not None:
        return read_prior_config(folder)
    return load_prior_config(find_part(start, "prior"))


def part_of_run(part: str, training: LoopTraining, output_dir: Path) -> str:
    """
    The dVAE or the tokenizer that a prior or a reranker trains with: what the flag of its name says; or the one of the
    pipeline that it starts from; or output_dir's.
    """
    wanted = getattr(training, part)
    if wanted is not None:
        return find_part(wanted, part)
    if training.init_from and is_pipeline(training.init_from):
        return str(pipeline_folder(training.init_from) / part)
    folder = settled(output_dir / part)
    if not (folder / "config.json").exists() and not (folder / "tokenizer.json").exists():
        raise FileNotFoundError(
            f"no {part} at {folder}: run training.{TRAINERS[part]} with the same preset first, or give "
            f"--training.{part} a folder, a Hub id or {EMBEDDED_NAME!r}"
        )
    return str(folder)


def read_through_encoder(prior: StreamPrior, tokenizer: PriorTokenizer, training: LoopTraining) -> None:
    """
    Puts the text encoder of the pipeline that a run starts from into a prior that reads features of text, where the
    prior lies. Raises a ValueError where it starts from no pipeline.
    """
    if prior.config.feature_size is None:
        return
    start = training.init_from
    if start is None or not is_pipeline(start):
        raise ValueError(
            f"a prior that reads features of text (feature_size={prior.config.feature_size}) needs a text encoder: "
            f"give --training.init_from a whole pipeline that has one, not {start}"
        )
    encoder: Any = load_text_encoder(Path(find_part(start, TEXT_ENCODER)), torch.float32)
    check_text_encoder(prior, encoder)
    prior.read_through(TextEncoder(encoder.to(prior.device), tokenizer.pad_token_id))


def load_dvae(name: str) -> DVAE:
    """What train_dvae goes on from. Raises a ValueError for a first stage that it does not train."""
    dvae = find_first_stage(find_part(name, "dvae"), dtype=torch.float32)
    if not isinstance(dvae, DVAE):
        raise ValueError(_not_trained(name, dvae.config))
    return dvae


def load_dvae_config(name: str) -> DVAEConfig:
    """The config alone of what `load_dvae` loads."""
    config = find_first_stage_config(find_part(name, "dvae"))
    if not isinstance(config, DVAEConfig):
        raise ValueError(_not_trained(name, config))
    return config


def _not_trained(name: str, config: PreTrainedConfig) -> str:
    return f"{name} is a {config.model_type}, which train_dvae does not train: a prior takes it by --training.dvae"


def picture_size(dvae: str | Path) -> int:
    """Of the pictures of a dVAE's folder or Hub id, which a judge is to see; 64 where the folder is not there."""
    if isinstance(dvae, Path) and not (dvae / "config.json").exists():
        return 64
    return find_first_stage_config(dvae).image_size


def facts_of_start(start: str, parts: Collection[str]) -> dict[str, Fact]:
    """
    What the prior that a run starts from learned with, of these parts, "dvae" and "tokenizer": those of its pipeline;
    of a prior alone, what the trainer left beside it.
    """
    if not is_pipeline(start):
        return {name: fact for name, fact in read_provenance(start).items() if name in parts}
    found: dict[str, Fact] = {}
    if "tokenizer" in parts:
        found["tokenizer"] = tokenizer_digest(load_tokenizer(pipeline_folder(start) / "tokenizer"))
    if "dvae" in parts:
        found["dvae"] = codes_digests(find_first_stage(pipeline_folder(start) / "dvae", dtype=torch.float32))
    return found


def check_start(
    training: LoopTraining, dvae: FirstStage, tokenizer: PriorTokenizer, say: Callable[[str], None] = print
) -> None:
    """Raises a ValueError unless the dVAE and the tokenizer are those that the prior of init_from learned with."""
    start = training.init_from
    assert start is not None  # else there is nothing to check
    named = {name for name in ("dvae", "tokenizer") if getattr(training, name) is not None or not is_pipeline(start)}
    here = {"dvae": codes_digests(dvae), "tokenizer": tokenizer_digest(tokenizer)}
    here = {name: fact for name, fact in here.items() if name in named}  # others are the start's own
    remedy = "leave the flag out where it starts from a pipeline"
    check_facts(f"the prior of {start}", facts_of_start(start, named), here, training.may_differ, remedy, say=say)


def check_own_parts(
    training: LoopTraining,
    output_dir: Path,
    parts: Sequence[str],
    data: dict[str, Any],
    say: Callable[[str], None] = print,
) -> None:
    """
    Raises a ValueError where one of the parts that a run takes from output_dir, as no flag names it, learned from
    other files than the run's.
    """
    for part in parts:
        folder = output_dir / part
        if getattr(training, part) is None and part_of_run(part, training, output_dir) == str(folder):
            files = files_of(read_provenance(folder))
            told: dict[str, Fact] = {"data": {"files": files}} if files else {}
            remedy = f"name it by --training.{part} {folder}"
            check_facts(str(folder), told, {"data": {"files": data["files"]}}, training.may_differ, remedy, say=say)


def sources_of(names: list[str]) -> dict[str, str]:
    """What the pipelines among these models were trained on, {source: licence}, which a model made of them is, too."""
    sources: dict[str, str] = {}
    for name in filter(is_pipeline, names):
        sources |= read_index(pipeline_folder(name)).get("data") or {}
    return sources


def brought_in(dvae: str | None) -> dict[str, str]:
    """
    {source: licence} of the first stage that a flag names: a pipeline's, or a public one; {} of one that says what it
    learned from, or did it here.
    """
    if dvae is None:
        return {}
    if is_pipeline(dvae):
        known = known_of(dvae)
        return known.data if known else sources_of([dvae])
    return {} if is_own(dvae) else {public_name(dvae): UNKNOWN_LICENCE}


def freeze(model: nn.Module, patterns: list[str]) -> None:
    """Parameters whose names match a shell pattern learn nothing. Raises a ValueError for one that matches none."""
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"freeze: no parameter matches {pattern!r}; there are {names[0]}, {names[1]}, …")
    for name, parameter in model.named_parameters():
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"freeze={patterns} leaves nothing to train")


def lora_config(model: nn.Module, settings: LoraSettings, base: str | None = None):
    """
    peft's own config of the adapter; base: the name of what it was trained on, for whoever loads it. Raises a
    ValueError for a module to train that the model does not have.
    """
    from peft import LoraConfig

    names = [name for name, _ in model.named_modules()]
    for wanted in settings.train:
        if not any(name.endswith(wanted) for name in names):  # as peft looks for it
            there = ", ".join(name for name in names if name.startswith("embeddings."))
            raise ValueError(f"lora.train: no module's name ends with {wanted!r}; there are {there}, …")

    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType]  # any number, which is divided by the rank
        lora_dropout=settings.dropout,
        target_modules=rf"layers\..*\.({'|'.join(settings.targets)})",
        modules_to_save=list(settings.train) or None,
        base_model_name_or_path=base,
    )
