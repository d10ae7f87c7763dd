"""Which public checkpoint a folder holds, by its settings or names, and which files are read. Light to import."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SETTINGS = ("*.json", "*.jinja", "*.txt", "*.yaml", "tokenizer/*.json", "tokenizer/*.txt")


@dataclass(frozen=True)
class Known:
    """
    name: the module here that reads it. telling: the file of a repository that tells it. is_one: whether a folder is
    one. weights: what a repository is asked for, the first of these that it has. others: what else a folder is asked.
    """

    name: str
    title: str
    telling: str
    is_one: Callable[[Path], bool]
    weights: tuple[str, ...]
    others: tuple[str, ...] = ()

    def files(self, folder: Path) -> list[Path]:
        """Those that its reader may read."""
        patterns = (*SETTINGS, *self.weights, *self.others)
        return sorted({path for pattern in patterns for path in folder.glob(pattern)})


def is_janus(folder: Path) -> bool:
    """In transformers' layout, or in DeepSeek's, whose JanusFlow has no head for codes."""
    config = read_settings(folder / "config.json")
    kind = config.get("model_type")
    return kind == "janus" or (kind == "multi_modality" and "gen_head_config" in config)


def is_mindalle(folder: Path) -> bool:
    prior = read_settings(folder / "config.yaml").get("stage2")
    return isinstance(prior, dict) and prior.get("type") == "transformer1d" and "vocab_size_txt" in prior


LLAMAGEN_CODES = "vq_ds16_t2i.pt"


def is_llamagen(folder: Path) -> bool:
    """By the names of its files, which have no settings: of its prior, or of its VQGAN."""
    return bool(named(folder, "t2i_")) or (folder / LLAMAGEN_CODES).is_file()


def named(folder: Path, start: str) -> list[Path]:
    """The files of tensors whose names start so."""
    return sorted(path for path in folder.glob(f"{start}*") if path.suffix in (".pt", ".safetensors"))


KNOWN = (
    Known("janus", "Janus", "config.json", is_janus, ("*.safetensors", "pytorch_model*.bin")),
    Known("mindalle", "minDALL-E", "config.yaml", is_mindalle, ("stage*_last.ckpt",)),
    Known(
        "llamagen",
        "LlamaGen",
        LLAMAGEN_CODES,
        is_llamagen,
        ("t2i_XL_stage1_256.pt", "t2i_XL_stage2_512.pt"),
        ("t2i_*", "vq_*", "*/*.json", "*/*.safetensors"),
    ),
)
TELLING = tuple({known.telling: None for known in KNOWN})  # the files that tell which one it is


def known_checkpoint(folder: Path) -> Known | None:
    """None for a folder of anything else."""
    return next((known for known in KNOWN if known.is_one(folder)), None)


def read_settings(path: Path) -> dict[str, Any]:
    """Of JSON or YAML; {} where there are none."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        settings = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}
