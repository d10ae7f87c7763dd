"""Any first stage by its files alone: one of ours, a public VQGAN, or OpenAI's dVAE."""

import json
import re
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers.utils.hub import cached_file

from dvae import (
    FIRST_STAGES,
    DVAEConfig,
    FirstStage,
    VQGANConfig,
    load_first_stage,
    load_first_stage_config,
)

from ..folder.locate import fetch, is_hub_id
from ..folder.whole import settled
from .known import LLAMAGEN_CODES, RUDALLE_CODES, load_yaml, named, told_side
from .openai_dvae import holds_openai_dvae, openai_dvae_config, read_openai_dvae
from .pickles import read_pickle
from .stored import Stored, read_safetensors
from .vqgans import holds_vqgan, read_vqgan, vqgan_config

SETTINGS = ["config.json", "*.yaml", "*.yml"]
OPENAI = ("encoder.pkl", "decoder.pkl")
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
# What a repository is asked for, one after the other: what holds a first stage alone, then whole models
ALONE = ["vq*.pt", "encoder.pkl", "decoder.pkl", "stage1*.ckpt", "last.ckpt", RUDALLE_CODES]
FILES = [ALONE, ["*.safetensors"], ["*.bin", "*.ckpt"]]
REMEDY = (
    "pass a first stage's folder, file or Hub id: ours, a VQGAN's, or encoder.pkl and decoder.pkl of OpenAI's dVAE"
)


def find_first_stage(
    name: str | Path, *, dtype: torch.dtype | None = None, image_size: int | None = None, **hub_options: Any
) -> FirstStage:
    """
    The first stage of a folder, a file or a Hub id, in evaluation mode.

    dtype: of its weights; None keeps the stored one. image_size: of a public one, which works at any; None is what its
        settings say, or else what it was published for. hub_options: revision, token, cache_dir, ….

    Raises an OSError where there is none, or it is not whole.
    """
    if is_own(name, **hub_options):
        options = {"dtype": "auto" if dtype is None else dtype, **hub_options}
        return load_first_stage(settled(name) if Path(name).is_dir() else name, **options)
    stored, told = find_stored(name, hub_options)
    read = read_openai_dvae if holds_openai_dvae(stored) else read_vqgan
    return read(stored, image_size=image_size or told, dtype=dtype)


def find_first_stage_config(
    name: str | Path, *, image_size: int | None = None, **hub_options: Any
) -> DVAEConfig | VQGANConfig:
    """The config alone of what `find_first_stage` finds, from the shapes of a public one's tensors."""
    if is_own(name, **hub_options):
        return load_first_stage_config(settled(name) if Path(name).is_dir() else name, **hub_options)
    stored, told = find_stored(name, hub_options)
    config_of = openai_dvae_config if holds_openai_dvae(stored) else vqgan_config
    return config_of(stored, image_size or told)


def is_own(name: str | Path, **hub_options: Any) -> bool:
    """Whether the config.json of a folder or a Hub id is that of one of our first stages."""
    if Path(name).is_dir():
        path = settled(name) / "config.json"
    elif isinstance(name, str) and is_hub_id(name):
        found = cached_file(name, "config.json", _raise_exceptions_for_missing_entries=False, **hub_options)
        path = None if found is None else Path(found)
    else:
        path = None
    if path is None or not path.is_file():
        return False
    return value_of(settings_of(path), ["model_type"]) in FIRST_STAGES


def find_stored(name: str | Path, hub_options: dict[str, Any]) -> tuple[Stored, int | None]:
    """
    The tensors of a public first stage, and the side of its pictures as the settings beside it have it. A LlamaGen's
    folder has the side in the name of its prior; its VQGAN alone, and a repository, paint what it learned first.
    """
    path = Path(name)
    if path.is_file():
        return one_of([[path]], path), told_size(path.parent)
    if path.is_dir():
        codes, priors = named(path, LLAMAGEN_CODES), named(path, "t2i_")
        if codes and priors:
            return one_of([codes[:1]], path), told_side(priors[0])
        return one_of(groups_of(path), path), told_size(path)
    if not (isinstance(name, str) and is_hub_id(name)):
        raise FileNotFoundError(f"there is no folder or file {str(name)!r}; {REMEDY}")
    for patterns in FILES:
        folder = fetch(name, hub_options, [*SETTINGS, *patterns], REMEDY)
        groups = [group for group in groups_of(folder) if any(path.match(end) for end in patterns for path in group)]
        if groups:
            return one_of(groups, folder), told_size(folder)
    raise OSError(f"{name!r} has none of the files {', '.join(end for some in FILES for end in some)}; {REMEDY}")


def groups_of(folder: Path) -> list[list[Path]]:
    """The files of tensors in a folder, those of one model together: safetensors first, then pickles."""
    groups: dict[tuple[bool, str], list[Path]] = {}
    for path in sorted(folder.glob("*")):  # of a repository that has none of the files there is no folder
        if path.suffix in (".safetensors", *PICKLES) and path.is_file():
            model = "" if path.name in OPENAI else re.sub(r"-\d+-of-\d+$", "", path.stem)
            groups.setdefault((path.suffix != ".safetensors", model), []).append(path)
    return [groups[key] for key in sorted(groups)]


def one_of(groups: list[list[Path]], where: Path) -> Stored:
    """The first group that holds a first stage. Raises an OSError of the first file that could not be read."""
    reasons = []
    for paths in groups:
        try:
            stored = joined(paths)
        except OSError as error:
            reasons.append(str(error))
            continue
        if holds_openai_dvae(stored) or holds_vqgan(stored):
            return stored
    names = ", ".join(path.name for paths in groups for path in paths)
    raise OSError(reasons[0] if reasons else f"{str(where)!r} holds no first stage in its files ({names}); {REMEDY}")


def joined(paths: list[Path]) -> Stored:
    """The tensors of several files as of one; of OpenAI's pair each under its part's name."""
    tensors, foreign = {}, {}
    for path in paths:
        stored = read_safetensors(path) if path.suffix == ".safetensors" else read_pickle(path)
        prefix = f"{path.stem}." if path.name in OPENAI else ""
        tensors |= {prefix + name: tensor for name, tensor in stored.tensors.items()}
        foreign |= {prefix + name: what for name, what in stored.foreign.items()}
    return Stored(tensors, str(paths[0] if len(paths) == 1 else paths[0].parent), foreign)


def told_size(folder: Path) -> int | None:
    """
    What the settings beside a checkpoint say of its pictures' side: the `resolution` of taming-transformers' and
    minDALL-E's YAML; of Janus in transformers' layout its codes along a side, in DeepSeek's that of the pictures that
    it reads.
    """
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            settings = settings_of(path)
        except OSError:  # of something else, with tags of its own
            continue
        if isinstance(size := value_of(settings, ["model", "params", "ddconfig", "resolution"]), int):
            return size
        if isinstance(size := value_of(settings, ["stage1", "hparams", "resolution"]), int):
            return size
    path = folder / "config.json"
    settings = settings_of(path) if path.is_file() else {}
    multipliers = value_of(settings, ["vq_config", "channel_multiplier"])
    if isinstance(side := value_of(settings, ["vq_config", "num_patches"]), int) and isinstance(multipliers, list):
        return side * 2 ** (len(multipliers) - 1)
    side = value_of(settings, ["vision_config", "params", "image_size"])
    return side if isinstance(side, int) else None


def settings_of(path: Path) -> Any:
    """Of a YAML or JSON file. Raises an OSError where it is none."""
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else load_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise OSError(f"{path} cannot be read: {' '.join(str(error).split())}") from error


def value_of(settings: Any, keys: list[str]) -> Any:
    """What lies under the keys, one inside the other; None where there is nothing."""
    for key in keys:
        settings = settings.get(key) if isinstance(settings, dict) else None
    return settings
