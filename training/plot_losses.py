"""Draws the curves of a run's log, as every evaluation does while it runs.

python -m training.plot_losses runs/emoji_cpu/prior-log.jsonl
"""

import argparse
from pathlib import Path

from .loop.curves import plot_losses


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.plot_losses", description=__doc__)
    parser.add_argument("log", type=Path, help="NAME-log.jsonl")
    print(plot_losses(parser.parse_args(argv).log))


if __name__ == "__main__":
    main()
