"""`python -m pipelines convert NAME --out FOLDER`: a public checkpoint as one of our folders."""

import sys
from pathlib import Path

from .commands import OneLineParser, load, one_line
from .folder.locate import check_own_folder, find_pipeline

EPILOG = """\
examples:
  python -m pipelines convert deepseek-community/Janus-Pro-1B --out janus
  python -m pipelines "a red bicycle" --model janus

Known by their files: Janus-Pro-1B and 7B and Janus-1.3B, in DeepSeek's layout or transformers', LlamaGen's
text-to-image models, minDALL-E, and ruDALL-E Malevich (v3).
The folder holds what painting needs, in the stored dtype, as safetensors; nothing in a checkpoint is run.
"""


def build_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m pipelines convert",
        description="Save a public checkpoint, or any pipeline, as a folder that from_pretrained loads.",
        epilog=EPILOG,
    )
    parser.add_argument("name", metavar="NAME", help="folder or Hub id of a checkpoint")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="a new folder, or a saved pipeline's"
    )
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], help="of the weights (default: as they are stored)"
    )
    return parser


def main(argv: list[str]) -> int:
    """Returns the exit code: 0, or 2 for what a user can put right, explained in one line."""
    args = build_parser().parse_args(argv)
    try:
        check_own_folder(args.out)
        load(find_pipeline(args.name), dtype=args.dtype).save_pretrained(args.out)
    except (OSError, ValueError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 2
    print(args.out)
    return 0
