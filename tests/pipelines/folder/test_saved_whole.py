"""A folder is saved whole: whoever is killed leaves what was there or what is new, and nothing foreign is lost."""

import copy
import json
import os
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from messages import refused
from saved_files import FILES

from pipelines import TextToImagePipeline
from pipelines.folder.whole import GONE, PARTIAL, READY, saved_whole, settled

OLD = {"a": "old", "part/x": "old", "part/y": "old", "gone/x": "old", "notes": "mine"}
NEW = {"a": "new", "part/x": "new", "more/x": "new"}
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "open")


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def save(folder: Path) -> None:
    with saved_whole(folder, ["a", "part", "gone", "more"]) as partial:
        write(partial, NEW)


def killed_at(moment: int, work, *arguments) -> bool:
    """Whether a process that does the work came to change a file for the `moment`-th time, before which it died."""
    child = os.fork()
    if child == 0:
        seen = [0]

        def die(event: str, details: tuple) -> None:
            if event in CHANGES and (event != "open" or (details[2] or 0) & (os.O_WRONLY | os.O_RDWR)):
                seen[0] += 1
                if seen[0] == moment:
                    os._exit(9)

        try:
            sys.addaudithook(die)
            work(*arguments)
            os._exit(0)
        finally:  # an error ends it, too: it must not go on with the tests
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9), "the work failed"
    return code == 9


def test_killed_at_any_moment_a_folder_is_the_old_or_the_new_one(tmp_path):
    """Killed again while it is settled it still is, and the next one to save finds nothing in its way."""
    found, moment = [], 0
    while True:
        moment += 1
        folder = tmp_path / str(moment)
        write(folder, OLD)
        if not killed_at(moment, save, folder):
            break
        for again in (1, 3):
            killed_at(again, settled, folder)
        left = {name: text for name, text in contents(settled(folder)).items() if not name.startswith(PARTIAL)}
        assert left in (OLD, NEW | {"notes": "mine"}), moment
        found.append(left == OLD)
        save(folder)
        assert contents(folder) == NEW | {"notes": "mine"}
    assert contents(folder) == NEW | {"notes": "mine"}
    assert 3 < sum(found) < len(found) - 3 and sorted(found, reverse=True) == found, "it changes at one moment"


def test_an_error_leaves_all_as_it_was(tmp_path):
    write(tmp_path / "old", OLD)
    for folder in (tmp_path / "old", tmp_path / "new"):
        with pytest.raises(RuntimeError), saved_whole(folder, ["a"]) as partial:
            write(partial, NEW)
            raise RuntimeError
    assert contents(tmp_path) == {f"old/{name}": text for name, text in OLD.items()}
    assert not (tmp_path / "new").exists()


def test_who_reads_waits_for_the_one_that_moves_and_takes_nothing_from_it(tmp_path):
    write(tmp_path, OLD)
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            settled(tmp_path)

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        try:
            for _ in range(30):
                save(tmp_path)
                assert contents(tmp_path) == NEW | {"notes": "mine"}
        finally:
            stop.set()
        for reader in readers:
            reader.result()


@pytest.mark.parametrize("names", [["{other}"], ["../other"], [""], ["."], [3], {"a": 1}, "a"], ids=str)
def test_a_folder_from_elsewhere_removes_nothing_outside_it(tmp_path, names):
    """Whoever made it wrote what its .ready says."""
    folder, other = tmp_path / "folder", tmp_path / "other"
    write(folder, OLD)
    write(other, {"photo": "mine"})
    names = [str(other) if name == "{other}" else name for name in names] if isinstance(names, list) else names
    write(folder, {f"{READY}/{GONE}": json.dumps(names), f"{READY}/a": "new"})
    with refused(OSError, folder / READY / GONE):
        settled(folder)
    assert contents(other) == {"photo": "mine"}
    assert {name: text for name, text in contents(folder).items() if not name.startswith(READY)} == OLD


def test_a_link_is_nothing_that_a_save_left(tmp_path):
    """What it leads to stays where it is."""
    write(tmp_path / "model", OLD)
    write(tmp_path / "photos", {"mine": "x"})
    (tmp_path / "model" / READY).symlink_to(tmp_path / "photos")
    settled(tmp_path / "model")
    assert contents(tmp_path / "photos") == {"mine": "x"} and (tmp_path / "model" / READY).is_symlink()


def test_it_may_be_the_folder_that_the_program_runs_in_or_a_link(tmp_path, monkeypatch):
    (tmp_path / "place").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "place")
    save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and contents(tmp_path / "place") == NEW
    monkeypatch.chdir(tmp_path / "place")
    save(Path("."))
    assert contents(Path(".")) == NEW


def painted(folder) -> torch.Tensor:
    return TextToImagePipeline.from_pretrained(folder)("a red apple", seed=0, progress_bar=False).codes


@pytest.fixture
def other(tiny_pipeline) -> TextToImagePipeline:
    """Of the same sizes and other weights."""
    pipeline = copy.deepcopy(tiny_pipeline)
    with torch.no_grad():
        for part in (pipeline.dvae, pipeline.prior):
            for weight in part.parameters():
                weight.copy_(torch.randn_like(weight))
    return pipeline


@pytest.mark.parametrize("part", ["prior", "tokenizer", "image_processor"])
def test_stopped_between_two_parts_the_old_pipeline_is_whole(tiny_folder, other, tmp_path, monkeypatch, part):
    folder = shutil.copytree(tiny_folder, tmp_path / "saved")
    before = contents_of_bytes(folder)

    def stop(*arguments, **options) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(getattr(other, part)), "save_pretrained", stop)
    with pytest.raises(KeyboardInterrupt):
        other.save_pretrained(folder)
    assert contents_of_bytes(folder) == before


def contents_of_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_a_pipeline_that_was_written_and_not_yet_moved_is_the_new_one(tiny_folder, other, tmp_path):
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "saved"))
    other.save_pretrained(tmp_path / "other")
    shutil.copytree(tmp_path / "other", folder / READY)
    (folder / READY / "dvae").rename(folder / READY / "moving")
    shutil.rmtree(folder / "dvae")
    (folder / READY / "moving").rename(folder / "dvae")  # killed after the first of its parts
    assert torch.equal(painted(folder), painted(tmp_path / "other"))
    assert contents_of_bytes(folder) == contents_of_bytes(tmp_path / "other")


def test_what_is_the_users_stays_and_parts_of_the_old_one_go(tiny_folder, tiny_pipeline, tmp_path):
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "saved"))
    write(
        folder, {"notes.txt": "mine", ".git/HEAD": "ref", "reranker/config.json": "{}", "text_encoder/a.txt": "mine"}
    )
    (folder / "prior" / "model-00001-of-00002.safetensors").write_bytes(b"a shard of before")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"reranker": "SmallCLIP"}))
    tiny_pipeline.save_pretrained(folder)
    assert set(contents_of_bytes(folder)) == FILES | {"notes.txt", ".git/HEAD", "text_encoder/a.txt"}


@pytest.mark.parametrize("name", ["prior", "dvae", "reranker"])
def test_a_training_runs_folder_is_not_written_over(tiny_pipeline, tmp_path, name):
    tiny_pipeline.prior.save_pretrained(tmp_path / name)
    before = contents_of_bytes(tmp_path)
    for folder in (tmp_path, tmp_path / name):
        with refused(FileExistsError, folder):
            tiny_pipeline.save_pretrained(folder)
    assert contents_of_bytes(tmp_path) == before
