"""Load one part of a saved pipeline, and refuse what is broken: transformers itself would fill the gaps at random."""

from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import SafetensorError
from transformers import PreTrainedModel

from .locate import REMEDY, SAMPLES_NAME


def load_component(component_class: type, folder: Path, **options: Any) -> Any:
    """A part from its folder, never from a pickle.

    Raises OSError when the folder's files do not make a `component_class`.
    """
    try:
        if issubclass(component_class, PreTrainedModel):
            return _load_model(component_class, folder, **options)
        return component_class.from_pretrained(folder, **options)
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise OSError(
            f"{str(folder)!r} cannot be loaded as {component_class.__name__} ({reason}); {REMEDY}"
        ) from error


def _load_model(model_class: type[PreTrainedModel], folder: Path, **options: Any) -> PreTrainedModel:
    model, info = model_class.from_pretrained(folder, use_safetensors=True, output_loading_info=True, **options)
    problems = {kind: sorted(map(str, keys)) for kind, keys in info.items() if keys}
    if problems:
        raise ValueError("; ".join(f"{kind}: {', '.join(keys[:3])}" for kind, keys in problems.items()))
    return model


def load_samples(folder: Path) -> Image.Image | None:
    """The pipeline's sample picture, if it has one; read whole, so that the file may be written over."""
    path = folder / SAMPLES_NAME
    return Image.open(path).copy() if path.is_file() else None
