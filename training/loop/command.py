"""How a command here runs: a user's mistake is one line, by however many processes it is made."""

import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from datasets import disable_progress_bars
from huggingface_hub.errors import StrictDataclassError
from transformers.utils import logging

from pipelines.commands import one_line

MISTAKES = (FloatingPointError, ImportError, OSError, StrictDataclassError, TypeError, ValueError)
FIRST = 10.0  # seconds in which the first process has its say: when it ends, the launcher ends the others


def run_command(main: Callable[[], Any], *after: Callable[[], Any]) -> NoReturn:
    """
    Runs a command, then what is to be done after it, and ends the program: with main's exit code where it returns a
    number, else 0; with 1 after a mistake. Warnings are a line each; of progress bars there are our own.

    In Python's development mode (PYTHONDEVMODE=1) a mistake is raised, with its traceback.
    """
    warnings.showwarning = lambda message, *_: print("warning:", one_line(message), file=sys.stderr)
    disable_progress_bars()
    logging.disable_progress_bar()
    try:
        code = main()
        for step in after:
            step()
    except Exception as error:
        if sys.flags.dev_mode or not isinstance(error, MISTAKES):
            let_the_first_speak()
            raise
        say(error.__cause__ or error if isinstance(error, StrictDataclassError) else error)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def say(mistake: object) -> None:
    """A line on standard error."""
    let_the_first_speak()
    print("error:", one_line(mistake), file=sys.stderr, flush=True)


def let_the_first_speak() -> None:
    """Another process than the first waits: a mistake is all processes' own, and the end of one is felt by all."""
    if int(os.environ.get("RANK", 0)) > 0:
        time.sleep(FIRST)
