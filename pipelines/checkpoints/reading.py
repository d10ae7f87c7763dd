"""A file that is not what it should be, told in a line that names it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dvae.image_processing_dvae import LFS_POINTER


def check_fetched(path: Path) -> None:
    """Raises an OSError for what a clone without git-lfs leaves in place of a large file."""
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise OSError(f"{path} is a git-LFS pointer, not the file itself: git lfs pull fetches it")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever a parser raises inside is an OSError that names the file."""
    check_fetched(path)
    try:
        yield
    except Exception as error:  # what parsers raise on foreign files is anything; that of tokenizers is a bare one
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise OSError(f"{path} cannot be read ({reason}): fetch it again") from error
