"""Which public checkpoint a folder holds, by its settings or names, and which files are read. Light to import."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

SETTINGS = ("*.json", "*.jinja", "*.txt", "*.yaml", "README.md", "tokenizer/*.json", "tokenizer/*.txt")
ENCODER_FILES = ("config.json", "tokenizer.json", "*.safetensors", "model.safetensors.index.json")  # of text


@dataclass(frozen=True)
class Known:
    """
    name: the module here that reads it. telling: the files of a repository that tell it, each of them alone. is_one:
    whether a folder is one. data: what it was made of, {source: licence}. weights: what a repository is asked for, the
    first of these that it has. others: what else a folder is asked for. has_settings: whether its sizes are told by
    settings, or else by its weights. text_encoder: the folder of one inside a folder. elsewhere: {file: repository} of
    what its authors keep apart. first_stage: the file of it, where it is one of those.
    """

    name: str
    title: str
    telling: tuple[str, ...]
    is_one: Callable[[Path], bool]
    data: dict[str, str]
    weights: tuple[str, ...]
    others: tuple[str, ...] = ()
    has_settings: bool = True
    text_encoder: Callable[[Path], Path | None] = lambda folder: None
    elsewhere: dict[str, str] = field(default_factory=dict)
    first_stage: str | None = None

    def files(self, folder: Path) -> list[Path]:
        """Those that its reader may read."""
        patterns = (*SETTINGS, *self.weights, *self.others)
        found = {path for pattern in patterns for path in folder.glob(pattern)}
        if (encoder := self.text_encoder(folder)) is not None:
            found |= {path for pattern in ENCODER_FILES for path in encoder.glob(pattern)}
        return sorted(found)


def is_janus(folder: Path) -> bool:
    """In transformers' layout, or in DeepSeek's, whose JanusFlow has no head for codes."""
    config = read_settings(folder / "config.json")
    kind = config.get("model_type")
    return kind == "janus" or (kind == "multi_modality" and "gen_head_config" in config)


def is_mindalle(folder: Path) -> bool:
    prior = read_settings(folder / "config.yaml").get("stage2")
    return isinstance(prior, dict) and prior.get("type") == "transformer1d" and "vocab_size_txt" in prior


LLAMAGEN_CODES, LLAMAGEN_PRIORS = "vq_ds16_t2i", ("t2i_XL_stage1_256", "t2i_XL_stage2_512")


def is_llamagen(folder: Path) -> bool:
    """By the names of its files, which have no settings: of its prior, or of its VQGAN."""
    return bool(named(folder, "t2i_") or named(folder, LLAMAGEN_CODES))


def named(folder: Path, start: str) -> list[Path]:
    """The files of tensors whose names start so, of two of one name the safetensors first."""
    found = [path for path in folder.glob(f"{start}*") if path.suffix in (".pt", ".safetensors")]
    return sorted(found, key=lambda path: (path.stem, path.suffix == ".pt"))


def told_side(prior: Path) -> int | None:
    """Of the pictures in pixels, which the name of a LlamaGen's prior ends with; None where it does not."""
    found = re.search(r"_(\d+)$", prior.stem)
    return None if found is None else int(found[1])


def t5_of(folder: Path) -> Path | None:
    """The folder of a text encoder inside, by its settings, best with its tokenizer; None where there is none."""
    found = [*sorted(folder.glob("*/config.json")), *sorted(folder.glob("*/*/config.json"))]
    found = [path.parent for path in found if read_settings(path).get("model_type") == "t5"]
    return min(found, key=lambda inside: not (inside / "tokenizer.json").is_file(), default=None)


RUDALLE_PRIOR = "pytorch_model_v3.bin"
RUDALLE_CODES, RUDALLE_WORDS = "vqgan.gumbelf8-sber.model.ckpt", "bpe.model"


def is_rudalle(folder: Path) -> bool:
    """By the name of its third version's weights, which have no settings."""
    return (folder / RUDALLE_PRIOR).is_file()


JANUS = Known(
    name="janus",
    title="Janus",
    telling=("config.json",),
    is_one=is_janus,
    data={"Janus by DeepSeek": "DeepSeek Model License, which allows commercial use and forbids some uses"},
    weights=("*.safetensors", "pytorch_model*.bin"),
)
MINDALLE = Known(
    name="mindalle",
    title="minDALL-E",
    telling=("config.yaml",),
    is_one=is_mindalle,
    data={"minDALL-E by Kakao Brain": "CC-BY-NC-SA 4.0: not for commercial use"},
    weights=("stage*_last.ckpt",),
)
LLAMAGEN = Known(
    name="llamagen",
    title="LlamaGen",
    telling=(f"{LLAMAGEN_CODES}.safetensors", f"{LLAMAGEN_CODES}.pt"),
    is_one=is_llamagen,
    data={"LlamaGen by Peize Sun et al.": "MIT"},
    weights=tuple(f"{name}{end}" for name in LLAMAGEN_PRIORS for end in (".safetensors", ".pt")),
    others=("t2i_*", f"{LLAMAGEN_CODES}*"),
    has_settings=False,
    text_encoder=t5_of,
)
RUDALLE = Known(
    name="rudalle",
    title="ruDALL-E",
    telling=(RUDALLE_PRIOR,),
    is_one=is_rudalle,
    data={"ruDALL-E Malevich by Sber AI": "Apache License 2.0, as its code"},
    weights=(RUDALLE_PRIOR,),
    others=(RUDALLE_CODES, RUDALLE_WORDS),
    has_settings=False,
    elsewhere={RUDALLE_CODES: "sberbank-ai/rudalle-utils", RUDALLE_WORDS: "shonenkov/rudalle-utils"},
    first_stage=RUDALLE_CODES,
)
KNOWN = (JANUS, MINDALLE, LLAMAGEN, RUDALLE)
TELLING = tuple({name: None for known in KNOWN for name in known.telling})  # the files that tell which one it is


def known_checkpoint(folder: Path) -> Known | None:
    """None for a folder of anything else."""
    return next((known for known in KNOWN if known.is_one(folder)), None)


class PlainLoader(yaml.SafeLoader):
    """YAML without aliases, of which a few lines stand for gigabytes once they are written out."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias (*name): write out what that stands for")
        return super().compose_node(parent, index)


def load_yaml(text: str) -> Any:
    """Raises a YAMLError."""
    return yaml.load(text, PlainLoader)  # a SafeLoader


def read_settings(path: Path) -> dict[str, Any]:
    """Of JSON or YAML; {} where there are none."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        settings = json.loads(text) if path.suffix == ".json" else load_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}
