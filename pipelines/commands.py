"""What commands share: errors in one line, the packages of an extra looked for, the pipeline loaded.

A command stands above the pipeline, which it loads by its public name, here alone.
"""

import argparse
import importlib
import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from . import TextToImagePipeline


class OneLineParser(argparse.ArgumentParser):
    """
    Its errors are one line, not the usage and a line; its epilog keeps its lines. A flag is written out in full: a
    prefix would be another flag's tomorrow.
    """

    def __init__(self, prog: str, description: str | None, epilog: str = ""):
        kept = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, None, description, epilog, formatter_class=kept, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        if found := re.search(r"unrecognized arguments: (-[^\s=]+)", message):
            message = there_is_no(found[1], [option for action in self._actions for option in action.option_strings])
        self.exit(2, f"error: {message}; {self.prog} --help lists what can be passed\n")


def there_is_no(key: str, flags: Iterable[str]) -> str:
    """
    An unknown key, with the flag that is most like it, as a whole and after its last dot. key: as a flag is passed, or
    as a preset has it, without dashes.
    """
    name = f"--{key.lstrip('-')}"

    def likeness(flag: str) -> float:
        end, other = (text.lstrip("-").rpartition(".")[2] for text in (name, flag))
        alike = SequenceMatcher(None, name, flag).ratio() + SequenceMatcher(None, end, other).ratio()
        return 2.0 if flag.startswith(name) else alike

    near = max(flags, key=likeness, default="")
    hint = f"; the nearest is {near if key.startswith('-') else near.lstrip('-')}" if likeness(near) > 1.4 else ""
    return f"there is no {key}{hint}"


def one_line(message: object) -> str:
    """White space, line breaks among it, as single spaces; what a terminal would obey is written out."""
    return printable(" ".join(str(message).split()))


def printable(text: str) -> str:
    """What is no sign, such as an escape, as "\\x1b"."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def check_installed(extra: str, *packages: str) -> None:
    """Raises ValueError when a package of the extra is not there."""
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ValueError(f"this command needs {error.name}; pip install 'armchair[{extra}]'") from error


def add_where(parser: argparse.ArgumentParser) -> None:
    """What `load` takes."""
    parser.add_argument(
        "--device", default="cpu", help="where to paint, as torch names it, such as cuda (default: cpu)"
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        help="of the weights (default: float32, or the stored one of a public checkpoint)",
    )


def load(folder: Path, device: str = "cpu", dtype: str | None = None) -> "TextToImagePipeline":
    """The pipeline on a device in a dtype, both as torch names them; None is what `from_pretrained` takes.

    Raises OSError for a broken one, ValueError when the device cannot be used.
    """
    from transformers.utils import logging

    from . import TextToImagePipeline

    logging.disable_progress_bar()  # loading takes no time worth a bar
    pipeline = TextToImagePipeline.from_pretrained(folder, dtype=dtype)
    try:
        return pipeline.to(device)
    except (AssertionError, RuntimeError) as error:  # of a torch without CUDA, of a machine without a GPU, of a typo
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {device} cannot be used here ({reason}); pass cpu") from error
