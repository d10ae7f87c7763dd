"""Who reads each of the public checkpoints that `known.py` knows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError

from prior_transformer import StreamConfig

from .janus import DATA as JANUS_DATA
from .janus import janus_config, read_janus
from .known import Known, known_checkpoint
from .mindalle import DATA as MINDALLE_DATA
from .mindalle import mindalle_config, read_mindalle
from .rudalle import DATA as RUDALLE_DATA
from .rudalle import find_codes, read_rudalle, rudalle_config

READERS: dict[str, Callable[[Path, torch.dtype | None, dict[str, Any]], dict[str, Any]]] = {
    "janus": lambda folder, dtype, _: read_janus(folder, dtype),
    "mindalle": lambda folder, dtype, _: read_mindalle(folder, dtype),
    "rudalle": read_rudalle,
}
CONFIGS: dict[str, Callable[[Path], StreamConfig]] = {
    "janus": janus_config,
    "mindalle": mindalle_config,
    "rudalle": rudalle_config,
}
DATA = {"janus": JANUS_DATA, "mindalle": MINDALLE_DATA, "rudalle": RUDALLE_DATA}


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


def read_sources(folder: Path) -> dict[str, str]:
    """What the checkpoint is called, and its licence, as its pipeline's `data` says."""
    return DATA[_known(folder).name]


def first_stage_file(folder: Path) -> Path | None:
    """The file of the first stage, where its authors may keep it in another repository; None of one that is here."""
    return find_codes(folder, {}) if _known(folder).name == "rudalle" else None


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
