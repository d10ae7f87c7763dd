"""`python -m pipelines demo`: the page as a process, or pushed as a Space. What is heavy comes last."""

import argparse
import sys
from pathlib import Path

from ..locate import find_pipeline
from ..one_line import OneLineParser, one_line

EPILOG = """\
examples:
  python -m pipelines demo
  python -m pipelines demo --model you/your-model --port 8080
  python -m pipelines demo --push-space you/armchair        (with a token: hf auth login)

Ctrl-C stops it. A prompt that is the word demo: python -m pipelines -- demo
"""


def build_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m pipelines demo",
        description="Paint on a page in the browser.",
        epilog=EPILOG,
    )
    parser.add_argument("--model", metavar="NAME", help="folder or Hub id of a saved pipeline (default: the embedded)")
    parser.add_argument(
        "--device", default="cpu", help="where to paint, as torch names it, such as cuda (default: cpu)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen at (default: 7860)")
    parser.add_argument(
        "--push-space", metavar="ID", help="upload the page as the Hugging Face Space of this id, and do not start it"
    )
    parser.add_argument("--private", action="store_true", help="with --push-space: a private one")
    return parser


def main(argv: list[str]) -> int:
    """Show the page until stopped; returns the exit code: 0, or 2 for what a user can put right, in one line."""
    args = build_parser().parse_args(argv)
    try:
        if args.push_space:
            from .space import push_space

            print(push_space(args.push_space, model=args.model, private=args.private))
            return 0
        folder = find_pipeline(args.model)
        check_installed()
        show(args, folder)
    except (OSError, ValueError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 2
    return 0


def check_installed() -> None:
    """Raises ValueError when the package of the extra is not there."""
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ValueError(f"the page needs {error.name}; pip install 'armchair[demo]'") from error


def show(args: argparse.Namespace, folder: Path) -> None:
    """Load the pipeline and answer until Ctrl-C."""
    from transformers.utils import logging

    from ..text_to_image import TextToImagePipeline
    from .page import build_page, launch_options
    from .studio import Studio

    logging.disable_progress_bar()  # loading takes no time worth a bar
    pipeline = TextToImagePipeline.from_pretrained(folder).to(args.device)
    studio = Studio(pipeline, name=args.model or "embedded")
    page = build_page(studio).queue(max_size=32)
    page.launch(
        server_name=args.host,
        server_port=args.port,
        allowed_paths=[str(studio.folder)],
        max_file_size="10mb",
        share=False,
        ssr_mode=False,
        quiet=True,
        prevent_thread_lock=True,
        **launch_options(),
    )
    print(f"the page is at {page.local_url}", flush=True)
    page.block_thread()
