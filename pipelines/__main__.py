"""The command line: `python -m pipelines PROMPT… [--num 8] [--seed 0] [--out FOLDER] [--grid]` saves PNG pictures."""

import argparse
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from .checks import check_count, check_prompts, check_seeds
from .locate import find_pipeline
from .pictures import is_file_name, save_pictures
from .settings import SamplingSettings

if TYPE_CHECKING:
    from .text_to_image import TextToImagePipelineOutput

EXAMPLES = """\
examples:
  python -m pipelines "an armchair shaped like an avocado"
  python -m pipelines "red apple" "green apple" --num 8 --grid --out apples.png
  python -m pipelines "sailboat" --seed 7 --guidance-scale 5 --out pictures
  python -m pipelines serve --port 8000    (OpenAI's image API; python -m pipelines serve --help)

Each picture's metadata holds its prompt, seed, sampler and model, so any picture can be painted again.
"""


SAMPLER = ("temperature", "top_k", "top_p", "min_p", "guidance_scale")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line rather than the usage and a line."""
        self.exit(2, f"error: {message}; python -m pipelines --help lists what can be passed\n")


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m pipelines",
        description="Paint pictures from prompts and save them as PNG.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own = "the model's own"
    parser.add_argument(
        "prompts", nargs="*", metavar="PROMPT", help="what to paint, in quotes; several are painted in turn"
    )
    parser.add_argument("--num", type=int, default=1, metavar="N", help="pictures of each prompt (default: 1)")
    parser.add_argument(
        "--seed",
        type=int,
        metavar="S",
        help="seed of a prompt's first picture, the next has S + 1, … (default: a fresh one)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("."),
        metavar="PATH",
        help="folder to save in, or a .png file for one picture (default: here)",
    )
    parser.add_argument(
        "--grid", action="store_true", help="save one sheet with all pictures, a row a prompt, rather than a file each"
    )
    parser.add_argument(
        "--model", metavar="NAME", help="folder or Hub id of a saved pipeline (default: the embedded model)"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help=f"0 takes the likeliest code each time, 1 samples the model as it is (default: {own})",
    )
    parser.add_argument(
        "--top-k", type=int, metavar="K", help=f"draw from the K likeliest codes, 0 from all (default: {own})"
    )
    parser.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        help=f"draw from the likeliest codes with probability P together, 1 from all (default: {own})",
    )
    parser.add_argument(
        "--min-p",
        type=float,
        metavar="P",
        help=f"draw from the codes at least P times as probable as the likeliest, 0 from all (default: {own})",
    )
    parser.add_argument(
        "--guidance-scale",
        type=float,
        metavar="G",
        help=f"more follows the prompt more closely, 1 is no guidance (default: {own})",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 2 for what a user can put right, explained in one line."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["serve"]:  # as a prompt: -- serve
        from .serving.command import main as serve

        return serve(argv[1:])
    parser = build_parser()
    if not argv:
        parser.print_help()
        return 0
    args = parser.parse_args(argv)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print("warning:", _one_line(message), file=sys.stderr)
        try:
            check(args)
            paths = save_pictures(paint(args), args.out, grid=args.grid, model=args.model or "embedded")
        except (OSError, TypeError, ValueError) as error:
            print("error:", _one_line(error), file=sys.stderr)
            return 2
    print(*paths, sep="\n")
    return 0


def check(args: argparse.Namespace) -> None:
    """Raises TypeError or ValueError for what can be refused before anything heavy is imported."""
    check_prompts(args.prompts)
    check_count("num_images_per_prompt", args.num)
    check_seeds(args.seed, num_images=1)
    SamplingSettings(**{name: value for name, value in sampler(args).items() if value is not None})
    num_images = len(args.prompts) * args.num
    if is_file_name(args.out) and num_images > 1 and not args.grid:
        raise ValueError(
            f"--out {args.out} is one file for {num_images} pictures; pass a folder, or --grid for one sheet"
        )
    if args.out.is_file() and not is_file_name(args.out):
        raise ValueError(f"--out {args.out} is a file that is no .png; pass a folder, or a name that ends in .png")


def sampler(args: argparse.Namespace) -> dict[str, float | None]:
    return {name: getattr(args, name) for name in SAMPLER}


def paint(args: argparse.Namespace) -> "TextToImagePipelineOutput":
    folder = find_pipeline(args.model)  # a wrong name fails here, before the heavy imports
    from transformers.utils import logging

    from .text_to_image import TextToImagePipeline

    logging.disable_progress_bar()  # loading takes no time worth a bar
    pipeline = TextToImagePipeline.from_pretrained(folder)
    return pipeline(
        args.prompts,
        num_images_per_prompt=args.num,
        **sampler(args),
        seed=args.seed,
        progress_bar=sys.stderr.isatty(),
    )


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


if __name__ == "__main__":
    sys.exit(main())
