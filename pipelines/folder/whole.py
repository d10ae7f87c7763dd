"""A folder saved whole: whoever is killed at any moment leaves what was there, or what is new, and never some of each.

    folder/.partial/…       what is being written: the next one to save removes it
    folder/.ready/…         all of it is written: it is the folder's content now, and moves to its place

The rename of `.partial` is the moment of the change. Who reads such a folder calls `settled` first, which moves what a
killed process left in `.ready`. All renames are within the folder, so it may be a mount, a link, or the one that the
program runs in.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such locks, nor handles of folders
    fcntl = None

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")  # `replaced` of one model's folder: it may have fewer shards
PARTIAL, READY, GONE = ".partial", ".ready", ".gone.json"


@contextmanager
def saved_whole(folder: str | Path, replaced: Sequence[str]) -> Iterator[Path]:
    """
    An empty folder to write into. What it holds in the end takes its place in `folder`, from which all goes that
    matches `replaced`, patterns of names, and was not written anew; what else lies there stays. After an error
    `folder` is as it was.
    """
    folder = Path(folder)
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        _settle(folder)
        partial = folder / PARTIAL
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
        except BaseException:
            shutil.rmtree(partial)
            if new:
                folder.rmdir()
            raise
        written = {path.name for path in partial.iterdir()}
        gone = {path.name for pattern in replaced for path in folder.glob(pattern)} - written - {PARTIAL}
        (partial / GONE).write_text(json.dumps(sorted(gone)), encoding="utf-8")
        partial.rename(folder / READY)
        _settle(folder)


def settled(folder: str | Path) -> Path:
    """The folder, after what was written whole has moved to its place."""
    folder = Path(folder)
    if _is_ready(folder / READY):
        with _alone(folder):
            _settle(folder)
    return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process or thread is in here for this folder; where the system knows no locks they may be."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _settle(folder: Path) -> None:
    ready = folder / READY
    if not _is_ready(ready):
        return
    gone = ready / GONE
    if gone.exists():
        for name in _names_in(gone):
            _remove(folder / name)
        gone.unlink()
    for path in sorted(ready.iterdir()):
        target = folder / path.name
        if path.is_dir() or target.is_dir():
            _remove(target)
        path.replace(target)
    ready.rmdir()


def _is_ready(folder: Path) -> bool:
    """A link is none that a save left: what it leads to stays there."""
    return folder.is_dir() and not folder.is_symlink()


def _names_in(gone: Path) -> list[str]:
    """Raises an OSError for what is not inside the folder: it may have come with the folder from anywhere."""
    try:
        names = json.loads(gone.read_text(encoding="utf-8"))
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and _is_name(name) for name in names):
        raise OSError(f"{str(gone)!r} lists what is no name of a file beside it: nothing was removed; delete it")
    return names


def _is_name(name: str) -> bool:
    return name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"} and Path(name).name == name


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
