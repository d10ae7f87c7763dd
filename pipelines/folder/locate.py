"""Where a saved pipeline lies: here, in a folder, or on the Hub. Light to import: a wrong name fails at once."""

import json
from collections.abc import Collection
from pathlib import Path

from ..checkpoints.known import ENCODER_FILES, SETTINGS, TELLING, Known, known_checkpoint
from ..drawing.settings import SamplingSettings
from .whole import READY, settled

EMBEDDED = Path(__file__).parents[1] / "embedded"
INDEX_NAME = "model_index.json"
SAMPLES_NAME = "samples.png"
COMPONENT_NAMES = ("dvae", "prior", "tokenizer", "image_processor")
RERANKER, TEXT_ENCODER = OPTIONAL_NAMES = ("reranker", "text_encoder")  # components that a pipeline may do without
OWN_NAMES = (INDEX_NAME, SAMPLES_NAME, "README.md", "config.json", *COMPONENT_NAMES, *OPTIONAL_NAMES)
REMEDY = (
    "pass a folder written by save_pretrained or of a known checkpoint, a Hub id such as 'user/model', or nothing for "
    "the embedded model"
)

PART_FILES = (
    "config.json",
    "model.safetensors",
    "model-[0-9]*-of-[0-9]*.safetensors",
    "model.safetensors.index.json",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)  # of a component

_HUB_ENDS = (".json", ".safetensors", ".txt")  # of what a component is fetched with: never a pickle or code


def find_pipeline(name: str | Path | None = None, **hub_options) -> Path:
    """The folder of a saved pipeline or of a known checkpoint, fetched from the Hub when the name is an id there.

    Args:
        name: None (the embedded pipeline), a folder, or a Hub id `user/model`.
        hub_options: revision, token, cache_dir, force_download, local_files_only, as huggingface_hub knows them.

    Raises:
        TypeError: when the name is no string or path.
        OSError: when there is no such pipeline, saying what to pass instead.
    """
    if name is None:
        folder = EMBEDDED
        if not folder.is_dir():
            raise FileNotFoundError(
                f"no model is embedded here, {str(folder)!r} is missing; {REMEDY.split(', or')[0]}"
            )
    elif not isinstance(name, str | Path):
        raise TypeError(f"a pipeline's name is a string or a path, not {type(name).__name__}: {name!r}; {REMEDY}")
    elif str(name) and Path(name).is_dir():
        folder = Path(name)
    elif isinstance(name, str) and is_hub_id(name):
        folder = fetch(name, hub_options, [INDEX_NAME, *TELLING])
        if (known := known_at(folder)) is not None:
            folder = _fetch_weights(name, hub_options, known)
        else:  # whose index is read before anything large comes
            parts = component_names(_own_index(folder))
            files = [f"{part}/*{end}" for part in parts for end in _HUB_ENDS]
            folder = fetch(name, hub_options, [INDEX_NAME, SAMPLES_NAME, *files])
    else:
        raise FileNotFoundError(f"there is no folder {str(name)!r}; {REMEDY}")
    if known_at(folder) is None:
        read_index(folder)
    return folder


def known_at(folder: Path) -> Known | None:
    """The public checkpoint that lies there; None of a saved pipeline, and of anything else."""
    return None if (settled(folder) / INDEX_NAME).is_file() else known_checkpoint(folder)


def _fetch_weights(repo_id: str, hub_options: dict, known: Known) -> Path:
    for pattern in known.weights:
        folder = fetch(repo_id, hub_options, [*SETTINGS, pattern, *known.elsewhere])  # or they may lie there
        if not any(folder.glob(pattern)):
            continue
        if (encoder := known.text_encoder(folder)) is not None:
            inside = encoder.relative_to(folder).as_posix()
            folder = fetch(repo_id, hub_options, [f"{inside}/{end}" for end in ENCODER_FILES])
        return folder
    raise FileNotFoundError(f"{repo_id!r}, taken for {known.title}, has none of {', '.join(known.weights)}; {REMEDY}")


def find_file(known: Known, folder: Path, name: str, hub_options: dict) -> Path:
    """One that the authors of a public checkpoint keep apart: beside its weights, or else in their repository."""
    path, repo_id, beside = folder / name, known.elsewhere[name], folder / known.weights[0]
    if not path.is_file():
        path = fetch(repo_id, hub_options, [name], f"put {name} beside {beside}") / name
    if not path.is_file():
        raise FileNotFoundError(f"{repo_id!r} has no {name}; put it beside {beside}")
    return path


def pipeline_files(folder: Path) -> list[Path]:
    """The files of a saved pipeline that it is loaded from, and its samples: not what else lies in its folder."""
    names = component_names(read_index(folder))
    found = [folder / INDEX_NAME, folder / SAMPLES_NAME]
    found += [path for name in names for pattern in PART_FILES for path in sorted((folder / name).glob(pattern))]
    return [path for path in found if path.is_file()]


def public_name(name: str | Path | None) -> str:
    """How a model or a set is called where others read it: a Hub id, or a folder's last name, not where it lies."""
    if name is None:
        return EMBEDDED.name
    return Path(name).resolve().name if Path(name).exists() else str(name)


def read_index(folder: Path) -> dict:
    """The model_index.json of a pipeline folder with all its components, else an OSError naming what is missing."""
    index = _own_index(folder)
    missing = [name for name in component_names(index) if not (folder / name).is_dir()]
    if missing:
        raise FileNotFoundError(f"{str(folder)!r} is incomplete, it lacks {', '.join(missing)}; {REMEDY}")
    try:
        SamplingSettings(**(index.get("sampling") or {}))
    except (TypeError, ValueError) as error:
        path = folder / INDEX_NAME
        raise OSError(f"{str(path)!r} has a sampling that cannot be used ({error}); {REMEDY}") from error
    return index


def _own_index(folder: Path) -> dict:
    """The same, whether its components are there or not."""
    path = settled(folder) / INDEX_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{str(folder)!r} is no saved pipeline, it has no {INDEX_NAME}; {REMEDY}")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OSError(f"{str(path)!r} cannot be read as JSON ({error}); {REMEDY}") from error
    kind = index.get("_class_name") if isinstance(index, dict) else None
    if kind != "TextToImagePipeline":
        raise OSError(f"{str(folder)!r} holds a {kind}, not a TextToImagePipeline; {REMEDY}")
    return index


def component_names(index: dict) -> list[str]:
    """Of the pipeline that has this model_index.json."""
    return [*COMPONENT_NAMES, *(name for name in OPTIONAL_NAMES if index.get(name))]


def components_at(repo_id: str, hub_options: dict) -> list[str]:
    """Of the pipeline that a repository holds; [] where it holds none of ours."""
    try:
        return component_names(_own_index(fetch(repo_id, hub_options, [INDEX_NAME])))
    except OSError:
        return []


def files_at(repo_id: str, revision: str | None, token: str | None) -> list[str]:
    """Of a repository; [] of a branch that is not there yet."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        return HfApi(token=token).list_repo_files(repo_id, revision=revision)
    except RevisionNotFoundError:
        return []


def has_component(folder: Path, name: str) -> bool:
    """Whether a saved pipeline lies there, with one of this name."""
    try:
        return name in component_names(read_index(folder))
    except OSError:
        return False


def check_own_folder(folder: Path, parts: Collection[str] = ()) -> None:
    """Raises FileExistsError when saving these parts would write over what is no part of a saved pipeline."""
    try:
        own = component_names(read_index(folder))
        names = [name for name in parts if name not in own]
    except OSError:
        names = OWN_NAMES
    if foreign := [name for name in names if (folder / name).exists()]:
        raise FileExistsError(
            f"{str(folder / foreign[0])!r} is no saved pipeline's and would be lost; pass a folder of its own"
        )


def check_own_repository(files: Collection[str], repo_id: str) -> None:
    """Raises FileExistsError where a repository, which is no saved pipeline's, has files or folders of one's names."""
    there = {name.split("/")[0] for name in files}
    if foreign := sorted(there & (set(OWN_NAMES) - {"README.md"})):
        raise FileExistsError(
            f"{repo_id} is no pipeline's of ours, and its {foreign[0]} would be lost; push to a repository of its own"
        )


def is_hub_id(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1


def fetch(repo_id: str, hub_options: dict, patterns: list[str], remedy: str = REMEDY) -> Path:
    """The folder of a repository's files that match the patterns, and no others."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        never = [f"{READY}/*", f"*/{READY}/*"]  # which a save here leaves, and nobody there
        return Path(snapshot_download(repo_id, allow_patterns=patterns, ignore_patterns=never, **hub_options))
    except RevisionNotFoundError as error:
        cause, reason = error, f"it has no revision {hub_options['revision']!r}"
        remedy = "pass a branch, a tag or a commit's hash as revision"
    except (GatedRepoError, RepositoryNotFoundError) as error:
        cause, reason = error, "there is none of this name, or it is private and the token, if any, does not open it"
        remedy = f"pass token='hf_…' for a private one, or else {remedy.removeprefix('pass ')}"
    except OSError as error:  # offline, or the Hub is down: what it raises is an OSError
        cause, reason = error, str(error).splitlines()[0]
    raise OSError(f"{repo_id!r} is no folder here and cannot be fetched from the Hub ({reason}); {remedy}") from cause
