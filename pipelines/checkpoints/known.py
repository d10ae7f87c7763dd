"""Which public checkpoint a folder holds, by its settings alone, and which of its files are read. Light to import."""

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
    name: the module here that reads it. settings: the file that tells it, by is_one of what it holds. weights: what a
    repository is asked for, the first of these that it has.
    """

    name: str
    title: str
    settings: str
    is_one: Callable[[dict[str, Any]], bool]
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
)
TELLING = tuple({known.settings: None for known in KNOWN})  # the files that tell which one it is


def known_checkpoint(folder: Path) -> Known | None:
    """None for a folder of anything else."""
    return next((known for known in KNOWN if known.is_one(read_settings(folder / known.settings))), None)


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
