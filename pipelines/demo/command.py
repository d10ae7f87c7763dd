"""`python -m pipelines demo`: the page as a process, or pushed as a Space. What is heavy comes last."""

import argparse
import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from ..commands import OneLineParser, add_where, check_installed, load, one_line
from ..folder.locate import find_pipeline, public_name

if TYPE_CHECKING:
    from gradio import Blocks

    from .. import TextToImagePipeline
    from .studio import Studio

EPILOG = """\
examples:
  python -m pipelines demo
  python -m pipelines demo --model you/your-model --port 8080
  python -m pipelines demo --push-space you/armchair        (with a token: hf auth login)

Ctrl-C or SIGTERM stops it, and its pictures go. A prompt that is the word demo: python -m pipelines -- demo
"""


def build_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m pipelines demo",
        description="Paint on a page in the browser.",
        epilog=EPILOG,
    )
    parser.add_argument("--model", metavar="NAME", help="folder or Hub id of a saved pipeline (default: the embedded)")
    add_where(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen at (default: 7860)")
    parser.add_argument(
        "--push-space", metavar="ID", help="upload the page as the Hugging Face Space of this id, and do not start it"
    )
    parser.add_argument("--private", action="store_true", help="with --push-space: a private one")
    parser.add_argument(
        "--overwrite", action="store_true", help="with --push-space: also over files that it did not push itself"
    )
    return parser


def main(argv: list[str]) -> int:
    """Show the page until stopped; returns the exit code: 0, or 2 for what a user can put right, in one line."""
    parser = build_parser()
    args = parser.parse_args(argv)
    for name in ("private", "overwrite"):
        if getattr(args, name) and not args.push_space:
            parser.error(f"--{name} says how to push; pass --push-space ID with it")
    try:
        if args.push_space:
            from .space import push_space

            print(push_space(args.push_space, model=args.model, private=args.private, overwrite=args.overwrite))
            return 0
        folder = find_pipeline(args.model)
        check_installed("demo", "gradio")
        show(args, load(folder, args.device, args.dtype))
    except (OSError, ValueError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before the page is there
        return 130
    return 0


def show(args: argparse.Namespace, pipeline: "TextToImagePipeline") -> None:
    """Answer until Ctrl-C or SIGTERM. Whatever is painted or uploaded lies in a folder that goes with the process."""
    from .studio import Studio

    studio = Studio(pipeline, name=public_name(args.model))
    os.environ["GRADIO_TEMP_DIR"] = str(studio.folder / "uploads")  # which gradio reads where it keeps a file
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from .looks import launch_options
    from .page import build_page

    page = build_page(studio).queue(max_size=32)
    try:
        page.launch(
            server_name=args.host,
            server_port=args.port,
            max_file_size="10mb",
            share=False,
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
            **launch_options(),
        )
        print(f"the page is at {page.local_url}", flush=True)
        wait_for_a_stop(page, studio)
    finally:
        studio.close()


def wait_for_a_stop(page: "Blocks", studio: "Studio") -> None:
    """Until Ctrl-C or SIGTERM, after which nothing is answered, and no picture kept, any more."""
    try:
        while True:
            time.sleep(1)
            studio.forget_old()
    except KeyboardInterrupt:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # which shows each visitor who is cut off
        page.server.force_exit = True  # it would wait for them to go
        page.close(verbose=False)
