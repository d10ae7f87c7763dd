"""Presets: one YAML for all trainers, overridden by dotted flags; a typo is an error that names the key.

    output_dir: runs/mine
    data: {path: ..., ...}
    tokenizer: {vocab_size: ..., ...}
    dvae: {model: {...}, training: {...}}
    prior: {model: {...}, training: {...}}
    reranker: {model: {...}, training: {...}}
    gan: {model: {generator: {...}, discriminator: {...}}, training: {...}}

A trainer reads `output_dir`, `data` and its own section, so that `--training.lr` means its own.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from ..pictures.data_arguments import DataArguments

SECTIONS = ("output_dir", "data", "tokenizer", "dvae", "prior", "reranker", "gan")


def parse(
    section: str,
    training_type: type,
    argv: list[str] | None = None,
    doc: str | None = None,
    program: str | None = None,
):
    """`PRESET [--data.… --model.… --training.… --output_dir …]` -> a namespace of these, each of its own type."""
    from jsonargparse import ArgumentParser

    argv = list(sys.argv[1:] if argv is None else argv)
    program = f"python -m training.{program or f'train_{section}'}"
    usage = f"{program} PRESET [--training.KEY VALUE …] [--model.KEY VALUE …] [--data.KEY VALUE …]"
    parser = ArgumentParser(prog=program, usage=usage, description=doc)
    parser.add_argument("--config", action="config", help="a YAML of the keys below; a PRESET has sections of them")
    parser.add_argument("--output_dir", type=str, required=True)
    parser.add_class_arguments(DataArguments, "data")
    parser.add_class_arguments(training_type, "training")
    parser.add_argument("--model", type=dict[str, Any] | None, default=None, help="fields of the model's config")
    if argv and not argv[0].startswith("-"):
        try:
            argv[:1] = ["--config", json.dumps(read_preset(Path(argv[0]), section))]
        except (OSError, ValueError) as error:
            parser.error(str(error))
    if "--print_config" in argv:  # which ends the program before the settings are checked against each other
        parser.instantiate(parser.parse_args([flag for flag in argv if flag != "--print_config"]))
    args = parser.parse_args(argv)
    return parser.instantiate(args)


def read_preset(path: Path, section: str) -> dict[str, Any]:
    """The YAML at `path` -> what the trainer of `section` reads of it. Raises a ValueError that names a wrong key."""
    if not path.is_file():
        raise FileNotFoundError(f"no preset at {path}: training/configs/ holds those of this project")
    preset = yaml.safe_load(path.read_text()) or {}
    unknown = set(preset) - set(SECTIONS)
    if unknown:
        raise ValueError(f"{path}: unknown key {sorted(unknown)[0]!r}; a preset holds {', '.join(SECTIONS)}")
    own = renamed(preset.get(section) or {})
    if section == "tokenizer":
        own = {"training": own}
    shared = {key: preset[key] for key in ("output_dir", "data") if key in preset}
    return {**shared, **own}


def renamed(section: dict[str, Any]) -> dict[str, Any]:
    """A section with the keys of today in place of those of older presets."""
    settings = (section.get("training") or {}).get("pixel_adversary")
    if not isinstance(settings, dict) or "r1" not in settings:
        return section
    settings = {"r1_gamma" if key == "r1" else key: value for key, value in settings.items()}
    return {**section, "training": {**section["training"], "pixel_adversary": settings}}
