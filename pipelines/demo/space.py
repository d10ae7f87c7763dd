"""The page as a Hugging Face Space: what it needs, put together and pushed. The Space then stands on its own."""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ..folder.locate import EMBEDDED, find_pipeline, pipeline_files

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PACKAGES = ("dvae", "prior_transformer", "pipelines")
FILES = Path(__file__).parent.parent / "space"
OWN_FILES = ("app.py", "README.md", "requirements.txt")  # of FILES: the Space's settings stand in its README.md
PUSHED = "pipelines/pushed.json"  # in the Space: the names of all files that were pushed
MARK = "Pushed by `python -m pipelines demo --push-space"  # in the README.md of Spaces that have no such list yet
MADE_BY_THE_HUB = {".gitattributes", "README.md"}  # with a new Space, and nothing else


def push_space(
    space_id: str,
    *,
    model: str | None = None,
    private: bool = False,
    token: str | None = None,
    overwrite: bool = False,
) -> str:
    """Upload the page, with the sources and the model, as one Space; returns its address.

    Of a Space that is there it replaces, and deletes, what it pushed itself. Everything else stays.

    Args:
        space_id: `user/name`. It is made when it is not there, else it gets one commit more.
        model: folder or Hub id of a saved pipeline, None for the embedded one: a copy goes into the Space.
        token: one that may write there; None takes that of `hf auth login` or HF_TOKEN.
        overwrite: also over files of the same names that it did not push.

    Raises:
        OSError: when there is no such model, or the Hub refuses.
        FileExistsError: when the Space has files of the same names that were not pushed by this.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with TemporaryDirectory() as place:
        names = gather(Path(place), model)
        repo = api.create_repo(space_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        there = set(api.list_repo_files(repo.repo_id, repo_type="space"))
        pushed = pushed_before(api, repo.repo_id, there)
        foreign = sorted((there & names) - pushed) if there - MADE_BY_THE_HUB else []
        if foreign and not overwrite:
            raise FileExistsError(
                f"the Space {repo.repo_id} has {len(foreign)} files that this did not push and would replace, "
                f"{foreign[0]} first; name a new Space, or pass --overwrite"
            )
        api.upload_folder(
            repo_id=repo.repo_id,
            repo_type="space",
            folder_path=place,
            commit_message="Upload the page of armchair",
            delete_patterns=sorted((pushed & there) - names) or None,  # shards of a model before would be loaded
        )
    return str(repo)


def pushed_before(api: "HfApi", space_id: str, there: set[str]) -> set[str]:
    """The names of what an earlier push left in a Space."""

    def read(name: str) -> str:
        return Path(api.hf_hub_download(space_id, name, repo_type="space")).read_text(encoding="utf-8")

    if PUSHED in there:
        return set(json.loads(read(PUSHED)))
    if "README.md" in there and MARK in read("README.md"):
        return {name for name in there if name in OWN_FILES or name.split("/")[0] in (*PACKAGES, "model")}
    return set()


def gather(place: Path, model: str | None = None) -> set[str]:
    """Everything that the Space needs, into an empty folder: its own files, the sources, the model's parts and nothing
    that lies beside them. Returns the names.
    """
    sources = Path(__file__).parents[2]
    wanted = {name: FILES / name for name in OWN_FILES}
    for package in PACKAGES:
        for path in [*(sources / package).rglob("*.py"), sources / package / "py.typed"]:
            if not path.is_relative_to(FILES) and not path.is_relative_to(EMBEDDED):
                wanted[path.relative_to(sources).as_posix()] = path
    folder = find_pipeline(model)
    wanted |= {f"model/{path.relative_to(folder).as_posix()}": path for path in pipeline_files(folder)}
    for name, path in wanted.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place / name)
    names = {*wanted, PUSHED}
    (place / PUSHED).write_text(json.dumps(sorted(names), indent=0) + "\n", encoding="utf-8")
    return names
