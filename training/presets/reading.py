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

import itertools
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipelines.checkpoints.known import load_yaml
from pipelines.commands import check_installed

from ..pictures.data_arguments import DataArguments
from .models import MODELS, TAKEN_FROM_PARTS, check_model

if TYPE_CHECKING:
    from .flags import Flags

SECTIONS = ("output_dir", "data", "tokenizer", "dvae", "prior", "reranker", "gan")
# by which jsonargparse would import and make any class
CLASS_PATH = re.compile(r"""\bclass_path\b["']?\s*[:=]|\.class_path\b""")


def parse(
    section: str,
    training_type: type,
    argv: list[str] | None = None,
    doc: str | None = None,
    program: str | None = None,
):
    """`PRESET [--data.… --model.… --training.… --output_dir …]` -> a namespace of these, each of its own type."""
    argv = list(sys.argv[1:] if argv is None else argv)
    program = program or f"train_{section}"
    keys = "[--training.KEY VALUE …] [--model.KEY VALUE …] [--data.KEY VALUE …]"
    parser = new_parser(program, doc, f"python -m training.{program} PRESET {keys}")
    parser.add_argument("--config", action="config", help="a YAML of the keys below; a PRESET has sections of them")
    parser.add_argument("--output_dir", type=str, required=True)
    parser.add_settings(DataArguments, "data")
    parser.add_settings(training_type, "training")
    if section in MODELS:
        parser.add_argument("--model", type=dict[str, Any] | None, default=None, help="of the model's config: below")
    for config, place in MODELS.get(section, {}).items():
        parser.explain(config, place, without=TAKEN_FROM_PARTS if section in ("prior", "reranker") else ())
    if argv and not argv[0].startswith("-"):
        try:
            argv[:1] = ["--config", json.dumps(read_preset(Path(argv[0]), section))]
        except (OSError, ValueError) as error:
            parser.error(str(error))
    named = [value for flag, value in itertools.pairwise(argv) if flag == "--config"]
    named += [flag.removeprefix("--config=") for flag in argv if flag.startswith("--config=")]
    files = [Path(name) for name in named if not name.startswith("{")]
    try:  # as they are read: a key may be written in many ways
        texts = [*argv, *(json.dumps(load_yaml(file.read_text("utf-8")), default=str) for file in files)]
    except (OSError, ValueError, yaml.YAMLError) as error:
        parser.error(str(error))
    if any(CLASS_PATH.search(text) for text in texts):
        parser.error("there is no class_path: a setting names no class to be made")
    if "--print_config" in argv:  # which ends the program before the settings are checked against each other
        checked(parser, [flag for flag in argv if flag != "--print_config"], section)
    return checked(parser, argv, section)


def checked(parser: "Flags", argv: list[str], section: str) -> Any:
    args = parser.instantiate(parser.parse_args(argv))
    if getattr(args.training, "crops", 1) > 1 and args.data.crop != "dalle":
        raise ValueError(f"crops={args.training.crops} of a picture would all be its centre: add --data.crop dalle")
    if getattr(args.training, "init_from", None) is None:  # else the model's config is that of what it starts from
        check_model(section, getattr(args, "model", None))
    return args


def new_parser(program: str, doc: str | None, usage: str | None = None) -> "Flags":
    """
    Of the command training.`program`, whose help begins with `doc` as it is written. A prefix of a flag does not stand
    for it: `--training.step` would be `--training.steps`. Raises a ValueError where what reads flags is not installed.
    """
    check_installed("train", "jsonargparse")
    from jsonargparse import set_parsing_settings

    from .flags import AsWritten, Flags

    set_parsing_settings(instantiate_subclass_spec_in_any=False)
    shown = {"description": doc, "usage": usage, "formatter_class": AsWritten}
    return Flags(prog=f"python -m training.{program}", allow_abbrev=False, **shown)


def read_preset(path: Path, section: str) -> dict[str, Any]:
    """The YAML at `path` -> what the trainer of `section` reads of it. Raises a ValueError that names a wrong key."""
    if not path.is_file():
        raise FileNotFoundError(f"no preset at {path}: training/configs/ holds those of this project")
    try:
        preset = load_yaml(path.read_text("utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(preset, dict):
        raise ValueError(f"{path} holds a {type(preset).__name__}: a preset has keys, {', '.join(SECTIONS)}")
    if flat := [name for name in SECTIONS[1:] if not isinstance(preset.get(name) or {}, dict)]:
        raise ValueError(f"{path}: {flat[0]}={preset[flat[0]]!r} holds no keys")
    unknown = set(preset) - set(SECTIONS)
    if unknown:
        raise ValueError(f"{path}: unknown key {sorted(unknown)[0]!r}; a preset holds {', '.join(SECTIONS)}")
    check_sections(path, {name: part for name, part in preset.items() if name != section})
    own = renamed(preset.get(section) or {})
    if section == "tokenizer":
        own = {"training": own}
    shared = {key: preset[key] for key in ("output_dir", "data") if key in preset}
    return {**shared, **own}


def check_sections(path: Path, preset: dict[str, Any]) -> None:
    """Raises a ValueError for a section whose model cannot be: before another part trains for hours."""
    for name in SECTIONS[1:]:
        own = preset.get(name) or {}
        training = own.get("training") or {}
        if name in MODELS and isinstance(own.get("model"), dict) and not training.get("init_from"):
            try:
                check_model(name, own["model"])
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error


def renamed(section: dict[str, Any]) -> dict[str, Any]:
    """A section with the keys of today in place of those of older presets."""
    settings = (section.get("training") or {}).get("pixel_adversary")
    if not isinstance(settings, dict) or "r1" not in settings:
        return section
    settings = {"r1_gamma" if key == "r1" else key: value for key, value in settings.items()}
    return {**section, "training": {**section["training"], "pixel_adversary": settings}}
