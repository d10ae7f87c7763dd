"""Who reads each of the public checkpoints that `known.py` knows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError

from prior_transformer import StreamConfig

from .janus import janus_config, read_janus
from .known import Known, known_checkpoint
from .llamagen import llamagen_config, read_llamagen
from .mindalle import mindalle_config, read_mindalle
from .rudalle import read_rudalle, rudalle_config

READERS: dict[str, Callable[[Path, torch.dtype | None, dict[str, Any]], dict[str, Any]]] = {
    "janus": lambda folder, dtype, _: read_janus(folder, dtype),
    "mindalle": lambda folder, dtype, _: read_mindalle(folder, dtype),
    "llamagen": read_llamagen,
    "rudalle": read_rudalle,
}
CONFIGS: dict[str, Callable[[Path], StreamConfig]] = {
    "janus": janus_config,
    "mindalle": mindalle_config,
    "llamagen": llamagen_config,
    "rudalle": rudalle_config,
}


def read_checkpoint(folder: Path, dtype: torch.dtype | None = None, **hub_options: Any) -> dict[str, Any]:
    """
    What a pipeline is made of, by the names of its arguments, of a folder that `known_checkpoint` knows.

    dtype: of the weights; None is the stored one. hub_options: token, cache_dir, local_files_only, of a part that lies
        in a repository of its own. Raises an OSError for the first tensor that is missing or wrong.
    """
    known = _known(folder)
    with told(folder, known):
        return READERS[known.name](folder, dtype, hub_options)


def read_prior_config(folder: Path) -> StreamConfig:
    """The prior's alone, for which no weights of Janus and minDALL-E need be there."""
    known = _known(folder)
    with told(folder, known):
        return CONFIGS[known.name](folder)


def _known(folder: Path) -> Known:
    known = known_checkpoint(folder)
    assert known is not None  # as the caller asked before
    return known


@contextmanager
def told(folder: Path, known: Known) -> Iterator[None]:
    """Whatever settings of another shape raise inside is an OSError that says what the folder was taken for."""
    try:
        yield
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError, StrictDataclassError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise OSError(f"{str(folder)!r}, taken for {known.title}, cannot be read ({reason})") from error
