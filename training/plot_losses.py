"""Draws the curves of a run's log, as every evaluation does while it runs.

python -m training.plot_losses runs/emoji_cpu/prior-log.jsonl
"""

from pathlib import Path

from pipelines.commands import OneLineParser

from .loop.command import run_command
from .loop.curves import plot_losses


def main(argv: list[str] | None = None) -> None:
    parser = OneLineParser("python -m training.plot_losses", __doc__)
    parser.add_argument("log", type=Path, help="NAME-log.jsonl")
    print(plot_losses(parser.parse_args(argv).log))


if __name__ == "__main__":
    run_command(main)
