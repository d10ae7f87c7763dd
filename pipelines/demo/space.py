"""The page as a Hugging Face Space: what it needs, put together and pushed. The Space then stands on its own."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from ..folder.locate import EMBEDDED, find_pipeline

PACKAGES = ("dvae", "prior_transformer", "pipelines")
FILES = Path(__file__).parent.parent / "space"  # app.py, README.md with the Space's settings, requirements.txt


def push_space(space_id: str, *, model: str | None = None, private: bool = False, token: str | None = None) -> str:
    """Upload the page, with the sources and the model, as one Space; returns its address.

    Args:
        space_id: `user/name`. It is made when it is not there, else it gets one commit more.
        model: folder or Hub id of a saved pipeline, None for the embedded one: a copy goes into the Space.
        token: one that may write there; None takes that of `hf auth login` or HF_TOKEN.

    Raises:
        OSError: when there is no such model, or the Hub refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with TemporaryDirectory() as place:
        gather(Path(place), model)
        repo = api.create_repo(space_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo.repo_id,
            repo_type="space",
            folder_path=place,
            commit_message="Upload the page of armchair",
            delete_patterns="*",  # shards of a model that was there before would be loaded
        )
    return str(repo)


def gather(place: Path, model: str | None = None) -> None:
    """Everything that the Space needs, into an empty folder: its own files, the packages, the model."""
    folder = find_pipeline(model)
    shutil.copytree(FILES, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.png"))
    for name in PACKAGES:
        source = Path(__file__).parents[2] / name
        shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__", EMBEDDED.name, FILES.name))
    shutil.copytree(folder, place / "model")
