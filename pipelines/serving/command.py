"""`python -m pipelines serve`: the service as a process. Fast to say what is wrong: what is heavy comes last."""

import argparse
import os
import signal
import socket
import sys
from dataclasses import fields
from typing import TYPE_CHECKING

from ..commands import OneLineParser, add_where, check_installed, load, one_line
from ..folder.locate import find_pipeline, public_name
from .limits import ServerSettings

if TYPE_CHECKING:
    from ..steps import PipelineSteps

KEY_VARIABLE = "ARMCHAIR_API_KEY"
LAST_PASS = 10.0  # seconds for the pass that is being painted when the server stops
OTHER_FILES = 100  # that the process holds open beside its connections; some 20 are, once it serves

EPILOG = f"""\
examples:
  python -m pipelines serve
  {KEY_VARIABLE}=… python -m pipelines serve --model you/your-model --host 0.0.0.0 --max-batch 16

  curl http://127.0.0.1:8000/v1/images/generations -H 'Content-Type: application/json' \\
       -d '{{"prompt": "an armchair shaped like an avocado", "seed": 0, "response_format": "url"}}'

Beside it: /v1/models, /health (whether to start it anew), /ready (whether to ask it), /metrics (Prometheus) and
/openapi.json. SIGTERM or Ctrl-C stops it once what it has accepted is painted. A prompt that is the word serve:
python -m pipelines -- serve
"""


def build_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m pipelines serve",
        description="Paint pictures for clients of OpenAI's image API: POST /v1/images/generations.",
        epilog=EPILOG,
    )
    parser.add_argument("--model", metavar="NAME", help="folder or Hub id of a saved pipeline (default: the embedded)")
    add_where(parser)
    parser.add_argument(
        "--quantize", choices=["int8", "int4"], help="the prior's weights as smaller integers (default: as they are)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen at, 0 for a free one (default: 8000)")
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        help=f"what clients must show; better by the variable {KEY_VARIABLE} (default: none)",
    )
    parser.add_argument(
        "--no-access-log", dest="access_log", action="store_false", help="no line in the log for each answer"
    )
    for field in fields(ServerSettings):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=field.type,
            default=field.default,
            metavar="N" if field.type is int else "S",
            help=f"{field.metadata['help']} (default: {field.default})",
        )
    return parser


def main(argv: list[str]) -> int:
    """Serve until stopped; returns the exit code: 0, or 2 for what a user can put right, explained in one line."""
    args = build_parser().parse_args(argv)
    try:
        api_key = find_key(args.api_key)
        settings = ServerSettings(**{field.name: getattr(args, field.name) for field in fields(ServerSettings)})
        folder = find_pipeline(args.model)
        check_installed("serve", "fastapi", "prometheus_client", "uvicorn")
        allow_files(settings.connections + OTHER_FILES)
        listener = bind(args.host, args.port)
        pipeline = load(folder, args.device, args.dtype)
        if args.quantize:
            pipeline.quantize(args.quantize)
    except (ImportError, OSError, ValueError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # while the model loads
        return 130
    try:
        serve(pipeline, args, settings, listener, api_key)
    except OSError as error:
        print("error:", one_line(error), file=sys.stderr)
        return 2
    return 0


def find_key(given: str | None) -> str | None:
    """The key that clients must show, of --api-key or the variable, without white space around it; None for none.

    Raises ValueError if it is empty, or cannot be sent in a header.
    """
    key = os.environ.get(KEY_VARIABLE) if given is None else given
    if key is None:
        return None
    key = key.strip()  # as a client's: a file of secrets ends in a newline
    if not key:
        raise ValueError(f"the API key is empty: give one by --api-key or {KEY_VARIABLE}, or neither to ask for none")
    if not (key.isascii() and key.isprintable()):
        raise ValueError("the API key holds what is no printable ASCII, which clients cannot send; give another")
    return key


def allow_files(number: int) -> None:
    """Raises the limit of open files, of which each connection is one. Raises ValueError where it may not be so high.

    Without room for a file no connection is taken, whoever asks.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        raise ValueError(
            f"this server needs up to {number} open files, {OTHER_FILES} beside its connections, and may have {hard}; "
            f"pass --max-connections {max(hard - OTHER_FILES, 1)}, or raise ulimit -n"
        )
    if soft != resource.RLIM_INFINITY and soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


def bind(host: str, port: int) -> socket.socket:
    """A socket of this address, which refuses connections until the server listens. Raises OSError with the remedy."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio looks for TCP: TCP_NODELAY
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise cannot_listen(host, port, error) from error
    return listener


def cannot_listen(host: str, port: int, error: Exception) -> OSError:
    return OSError(f"cannot listen at {host}:{port} ({error}); pass another --host or --port")


def serve(
    pipeline: "PipelineSteps",
    args: argparse.Namespace,
    settings: ServerSettings,
    listener: socket.socket,
    api_key: str | None,
) -> None:
    """Answer until SIGTERM or SIGINT. Raises OSError with the remedy when another server listens there by now."""
    import uvicorn

    from .app import create_app
    from .connections import server_config

    name = model_name(args.model)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            host, port = listener.getsockname()[:2]
            try:
                await super().startup(sockets)
            except OSError as error:  # two may hold the port, started together, and one may listen
                await self.lifespan.shutdown()
                raise cannot_listen(host, port, error) from error
            address = f"[{host}]" if ":" in host else host
            print(f"serving {name} at http://{address}:{port}/v1{' with a key' if api_key else ''}", flush=True)

    app = create_app(pipeline, name=name, settings=settings, api_key=api_key)
    last_answer = int(settings.timeout) + 5  # seconds, by which all that was accepted is answered
    server = Server(server_config(app, settings, access_log=args.access_log, timeout_graceful_shutdown=last_answer))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn raises the signal once more when it has stopped
    server.run(sockets=[listener])
    if not app.state.batcher.ends(LAST_PASS):
        print("error: a pass is stuck; the process ends without it", file=sys.stderr, flush=True)
        os._exit(1)  # else Python would wait for its thread


def model_name(model: str | None) -> str:
    """What clients call it: a Hub id as it is, of a folder the last part alone."""
    return "armchair" if model is None else public_name(model)
