"""What a command does before it paints: look for the packages of its extra, load the pipeline where it is to paint."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .text_to_image import TextToImagePipeline


def check_installed(extra: str, *packages: str) -> None:
    """Raises ValueError when a package of the extra is not there."""
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ValueError(f"this command needs {error.name}; pip install 'armchair[{extra}]'") from error


def load(folder: Path, device: str = "cpu", dtype: str = "float32") -> "TextToImagePipeline":
    """The pipeline on a device in a dtype, both as torch names them.

    Raises OSError for a broken one, ValueError when the device cannot be used.
    """
    import torch
    from transformers.utils import logging

    from .text_to_image import TextToImagePipeline

    logging.disable_progress_bar()  # loading takes no time worth a bar
    pipeline = TextToImagePipeline.from_pretrained(folder, dtype=getattr(torch, dtype))
    try:
        return pipeline.to(device)
    except (AssertionError, RuntimeError) as error:  # of a torch without CUDA, of a machine without a GPU, of a typo
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {device} cannot be used here ({reason}); pass cpu") from error
