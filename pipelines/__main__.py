"""The command line: `python -m pipelines PROMPT… [--num 8] [--seed 0] [--out FOLDER] [--grid]` saves PNG pictures."""

import argparse
import io
import sys
import warnings
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from .calls import Call
from .checks import check_prompts
from .commands import OneLineParser, add_where, load, one_line
from .drawing.settings import SamplingSettings
from .folder.locate import find_pipeline, public_name
from .pictures import is_file_name, save_pictures

if TYPE_CHECKING:
    from .output import TextToImagePipelineOutput

EXAMPLES = """\
examples:
  python -m pipelines "an armchair shaped like an avocado"
  python -m pipelines "red apple" "green apple" --num 8 --grid --out apples.png
  python -m pipelines "sailboat" --seed 7 --guidance-scale 5 --out pictures
  python -m pipelines "a red armchair" --best-of 16
  python -m pipelines "a cat face" --image cat.png --mask hole.png --best-of 16
  python -m pipelines serve --port 8000    (OpenAI's image API; python -m pipelines serve --help)
  python -m pipelines demo    (a page to paint on; python -m pipelines demo --help)
  python -m pipelines convert deepseek-community/Janus-Pro-1B --out janus    (a public checkpoint as a folder of ours)

Each picture's metadata holds its prompt, seed, sampler and model, so any picture can be painted again.
"""

EDITS = ("rows", "mask", "strength")
MAX_COLUMNS = 8  # of a sheet of one prompt


def build_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m pipelines",
        description="Paint pictures from prompts and save them as PNG.",
        epilog=EXAMPLES,
    )
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
    add_where(parser)
    add_sampler(parser.add_argument_group("how codes are drawn (default: the model's own)"))
    best = parser.add_argument_group("the best of several")
    best.add_argument("--best-of", type=int, default=1, metavar="N", help="paint N for each picture, keep the best")
    best.add_argument(
        "--reranker",
        metavar="NAME",
        help="who judges: likelihood, pmi, reranker, a sum of these such as likelihood+reranker, or the folder or Hub "
        "id of a CLIP (default: likelihood, with the model's own reranker if it has one)",
    )
    add_edits(parser.add_argument_group("from a given picture (without a prompt, it goes by the picture alone)"))
    return parser


def add_sampler(group: Any) -> None:
    """The options of `SamplingSettings`, and what guidance steers away from."""
    group.add_argument(
        "--temperature",
        type=_numbers(float),
        metavar="T",
        help="0 takes the likeliest code each time, 1 samples the model as it is; 1,0.3 goes from 1 to 0.3",
    )
    group.add_argument("--top-k", type=int, metavar="K", help="draw from the K likeliest codes, 0 from all")
    group.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        help="draw from the likeliest codes with probability P together, 1 from all",
    )
    group.add_argument(
        "--min-p",
        type=float,
        metavar="P",
        help="draw from the codes at least P times as probable as the likeliest, 0 from all",
    )
    group.add_argument(
        "--guidance-scale", type=float, metavar="G", help="more follows the prompt more closely, 1 is no guidance"
    )
    group.add_argument(
        "--guidance-region",
        type=_numbers(int),
        metavar="BOX",
        help="guidance holds inside alone: left,upper,right,lower in codes of the grid, such as 0,0,8,4",
    )
    group.add_argument("--negative-prompt", metavar="TEXT", help="what guidance steers away from")


def add_edits(group: Any) -> None:
    group.add_argument("--image", type=Path, metavar="PATH", help="the picture; its top half is kept, unless told so:")
    group.add_argument("--rows", type=int, metavar="N", help="keep its first N rows of codes, paint the rest")
    group.add_argument("--mask", type=Path, metavar="PATH", help="repaint where this picture, of its size, is white")
    group.add_argument(
        "--strength", type=float, metavar="S", help="paint variations: 0 stays with the picture, 1 leaves it"
    )


def _numbers(kind: type) -> Callable[[str], Any]:
    """Reads "1" as a number, "1,2" as a list of them."""

    def read(text: str) -> Any:
        values = [kind(part) for part in text.split(",")]
        return values if len(values) > 1 else values[0]

    read.__name__ = kind.__name__  # what argparse calls it in its errors
    return read


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 2 for what a user can put right, explained in one line."""
    argv = sys.argv[1:] if argv is None else argv
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a console of cp1252 cannot show every prompt's file name
    if argv[:1] == ["serve"]:  # as a prompt: -- serve
        from .serving.command import main as serve

        return serve(argv[1:])
    if argv[:1] == ["demo"]:
        from .demo.command import main as demo

        return demo(argv[1:])
    if argv[:1] == ["convert"]:
        from .convert import main as convert

        return convert(argv[1:])
    parser = build_parser()
    if not argv:
        parser.print_help()
        return 0
    args = parser.parse_args(argv)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print("warning:", one_line(message), file=sys.stderr)
        try:
            check(args)
            paths = save_pictures(paint(args), args.out, columns=columns(args), made_by=made_by(args))
        except (OSError, TypeError, ValueError) as error:
            print("error:", one_line(error), file=sys.stderr)
            return 2
    print(*paths, sep="\n")
    return 0


def check(args: argparse.Namespace) -> None:
    """Raises TypeError or ValueError for what can be refused before anything heavy is imported."""
    edits = [name for name in EDITS if getattr(args, name) is not None]
    if edits and (args.image is None or len(edits) > 1):
        given = " and ".join(f"--{name}" for name in edits)
        raise ValueError(f"{given} given{' without --image' * (args.image is None)}; pass --image and one of them")
    for path in filter(None, (args.image, args.mask)):
        if not path.is_file():
            raise ValueError(f"there is no picture {str(path)!r}; pass a file")
    args.prompts = args.prompts or ([""] if args.image else [])
    check_prompts(args.prompts, allow_empty=args.image is not None)
    Call(**options(args))
    num_images = len(args.prompts) * args.num
    if is_file_name(args.out) and num_images > 1 and not args.grid:
        raise ValueError(
            f"--out {args.out} is one file for {num_images} pictures; pass a folder, or --grid for one sheet"
        )
    kind = args.out.suffix.lower()
    if kind != ".png" and kind in Image.registered_extensions() and not args.out.exists():
        raise ValueError(f"--out {args.out} is a {kind} picture; pass a folder, or a name that ends in .png")
    if args.out.is_file() and not is_file_name(args.out):
        raise ValueError(f"--out {args.out} is a file that is no .png; pass a folder, or a name that ends in .png")


def columns(args: argparse.Namespace) -> int | None:
    """Of the sheet: a row a prompt, or rows of 8 for a single prompt; None for no sheet."""
    if not args.grid:
        return None
    return args.num if len(args.prompts) > 1 else min(args.num, MAX_COLUMNS)


def options(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of a call."""
    return {
        "prompt": args.prompts,
        "negative_prompt": args.negative_prompt,
        "num_images_per_prompt": args.num,
        **{field.name: getattr(args, field.name) for field in fields(SamplingSettings)},
        "seed": args.seed,
        "best_of": args.best_of,
        "reranker": args.reranker,
        "progress_bar": sys.stderr.isatty(),
    }


def made_by(args: argparse.Namespace) -> dict[str, Any]:
    """For a picture's metadata: beside its prompt, seed and sampler, what else was given; of files the names alone."""
    names = ("negative_prompt", "dtype", "image", *EDITS)
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    told = {name: value.name if isinstance(value, Path) else str(value) for name, value in given.items()}
    return {"model": public_name(args.model), **told}


def paint(args: argparse.Namespace) -> "TextToImagePipelineOutput":
    folder = find_pipeline(args.model)  # a wrong name fails here, before the heavy imports
    pipeline, call = load(folder, args.device, args.dtype), options(args)
    if args.image is None:
        return pipeline(**call)
    image = picture_in(args.image)
    if args.mask is not None:
        return pipeline.inpaint(image=image, mask=picture_in(args.mask), **call)
    if args.strength is not None:
        return pipeline.vary(image=image, strength=args.strength, **call)
    return pipeline.complete(image=image, rows=args.rows, **call)


def picture_in(path: Path) -> Image.Image:
    """Raises ValueError for a file that is no picture to paint from."""
    from dvae.image_processing_dvae import FORMATS, MAX_PIXELS, UnusablePicture, read_picture

    try:
        return read_picture(path.read_bytes())
    except UnusablePicture as error:
        formats = ", ".join(FORMATS)
        raise ValueError(
            f"{str(path)!r} is no picture that can be used ({error}); pass one of {formats}, of at most "
            f"{MAX_PIXELS:,} pixels"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
