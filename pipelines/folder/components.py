"""Load one part of a saved pipeline, refusing what is broken, which transformers would fill at random; save one."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel

from dvae import UnusablePicture, read_picture
from dvae.image_processing_dvae import LFS_POINTER

from .locate import REMEDY, SAMPLES_NAME


def load_component(component_class: type, folder: Path, **options: Any) -> Any:
    """A part from its folder, never from a pickle.

    Raises OSError when the folder's files do not make a `component_class`.
    """
    try:
        if issubclass(component_class, PreTrainedModel):
            return _load_model(component_class, folder, **options)
        return component_class.from_pretrained(folder, **options)
    except Exception as error:  # what parsers raise on foreign files is anything: KeyError, StrictDataclassError, …
        reason = f"{type(error).__name__}: {error}"
        if pointer := lfs_pointer(folder):
            reason = f"{pointer.name} is a git-LFS pointer, not the file itself: git lfs pull fetches it"
        raise OSError(
            f"{str(folder)!r} cannot be loaded as {component_class.__name__} ({reason}); {REMEDY}"
        ) from error


def load_one_of(classes: dict[str, type], folder: Path, **options: Any) -> Any:
    """The part whose class the model_type of its config.json picks; raises as `load_component` does."""
    try:
        model_type = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
        component_class = classes[model_type]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"its config.json names none of the model types {', '.join(classes)}: {type(error).__name__}: {error}"
        raise OSError(f"{str(folder)!r} cannot be loaded ({reason}); {REMEDY}") from error
    return load_component(component_class, folder, **options)


def load_text_encoder(folder: Path, dtype: torch.dtype | str) -> PreTrainedModel:
    """
    What a prior reads prompts through, in evaluation mode: the half that reads, of a whole T5 or alone. Raises as
    `load_component` does.
    """
    from transformers import T5EncoderModel

    return load_component(T5EncoderModel, folder, dtype=dtype, left_out=("lm_head.weight",))


def lfs_pointer(folder: Path) -> Path | None:
    """The first file that a clone without git-lfs left as a text of three lines."""
    for path in sorted(folder.glob("*")):
        if path.is_file():
            with path.open("rb") as file:
                if file.read(len(LFS_POINTER)) == LFS_POINTER:
                    return path
    return None


def _load_model(
    model_class: type[PreTrainedModel], folder: Path, left_out: Sequence[str] = (), **options: Any
) -> PreTrainedModel:
    """left_out: weights of a larger model that has this one, which may be there."""
    loaded: Any = model_class.from_pretrained(folder, use_safetensors=True, output_loading_info=True, **options)
    model, info = loaded  # which transformers' own type leaves out
    problems = {kind: sorted(str(key) for key in keys if key not in left_out) for kind, keys in info.items()}
    problems = {kind: keys for kind, keys in problems.items() if keys}
    if problems:
        raise ValueError("; ".join(f"{kind}: {', '.join(keys[:3])}" for kind, keys in problems.items()))
    return model


def save_component(component: Any, folder: Path, name: str) -> None:
    """A part with its code into folder/name. transformers' Auto classes look for code from the repository's root, so
    `auto_map` names the subfolder too: `AutoModel.from_pretrained(id, subfolder=name, trust_remote_code=True)`.
    """
    component.save_pretrained(folder / name)
    for path in (folder / name).glob("*config.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        auto_map = config.get("auto_map", {})
        for auto_class, modules in auto_map.items():
            slow_and_fast = isinstance(modules, list)  # a tokenizer's, either may be None
            modules = [module and f"{name}/{module}" for module in (modules if slow_and_fast else [modules])]
            auto_map[auto_class] = modules if slow_and_fast else modules[0]
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_samples(folder: Path) -> Image.Image | None:
    """The pipeline's sample picture, if it has one. One that cannot be read is left out, with a warning."""
    path = folder / SAMPLES_NAME
    try:
        return read_picture(path.read_bytes()) if path.is_file() else None
    except (OSError, UnusablePicture) as error:
        warnings.warn(f"{str(path)!r} is left out, it cannot be read: {error}", stacklevel=2)
        return None
