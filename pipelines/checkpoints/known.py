"""Which public checkpoint a folder holds, by its settings alone, and which of its files are read. Light to import."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SETTINGS = ("*.json", "*.jinja", "*.txt")


@dataclass(frozen=True)
class Known:
    """
    name: the module here that reads it. is_one: by the folder's config.json. weights: what a repository is asked for,
    the first of these that it has.
    """

    name: str
    title: str
    is_one: Callable[[dict[str, Any]], bool]
    weights: tuple[str, ...]


def is_janus(config: dict[str, Any]) -> bool:
    """In transformers' layout, or in DeepSeek's, whose JanusFlow has no head for codes."""
    kind = config.get("model_type")
    return kind == "janus" or (kind == "multi_modality" and "gen_head_config" in config)


KNOWN = (Known("janus", "Janus", is_janus, ("*.safetensors", "pytorch_model*.bin")),)


def known_checkpoint(folder: Path) -> Known | None:
    """None for a folder of anything else."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        return None
    return next((known for known in KNOWN if isinstance(config, dict) and known.is_one(config)), None)
