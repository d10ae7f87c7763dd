"""Which public checkpoint a folder holds, by its settings or a file's name, and what is read of it. Light."""

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
    name: the module here that reads it. told_by: the file that tells it, by is_one of what it holds as settings, or by
        being there at all. weights: what a repository is asked for, the first of these that it has.
    """

    name: str
    title: str
    told_by: str
    is_one: Callable[[dict[str, Any]], bool] | None
    weights: tuple[str, ...]


def is_janus(config: dict[str, Any]) -> bool:
    """In transformers' layout, or in DeepSeek's, whose JanusFlow has no head for codes."""
    kind = config.get("model_type")
    return kind == "janus" or (kind == "multi_modality" and "gen_head_config" in config)


def is_mindalle(config: dict[str, Any]) -> bool:
    prior = config.get("stage2")
    return isinstance(prior, dict) and prior.get("type") == "transformer1d" and "vocab_size_txt" in prior


KNOWN = (
    Known("janus", "Janus", "config.json", is_janus, ("*.safetensors", "pytorch_model*.bin")),
    Known("mindalle", "minDALL-E", "config.yaml", is_mindalle, ("stage*_last.ckpt",)),
    Known("rudalle", "ruDALL-E", "pytorch_model_v3.bin", None, ("pytorch_model_v3.bin",)),
)
TELLING = tuple({known.told_by: None for known in KNOWN})  # the files that tell which one it is


def known_checkpoint(folder: Path) -> Known | None:
    """None for a folder of anything else."""
    return next((known for known in KNOWN if _is_one(known, folder / known.told_by)), None)


def _is_one(known: Known, path: Path) -> bool:
    return path.is_file() if known.is_one is None else known.is_one(read_settings(path))


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
