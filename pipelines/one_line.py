"""What a user can put right at a command line is told in one line."""

import argparse
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """Its errors are one line, not the usage and a line; its epilog keeps its lines."""

    def __init__(self, prog: str, description: str, epilog: str):
        super().__init__(prog, None, description, epilog, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; {self.prog} --help lists what can be passed\n")


def one_line(message: object) -> str:
    """White space, line breaks among it, as single spaces."""
    return " ".join(str(message).split())
