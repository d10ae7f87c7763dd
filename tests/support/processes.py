"""Several CPU processes under torchrun, as a user starts them; of a run that fails the test shows what it said.

They meet at the loopback address, whatever this machine calls itself and whatever network it is on.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENT = {
    "ACCELERATE_USE_CPU": "true",
    "OMP_NUM_THREADS": "1",
    "PYTHONFAULTHANDLER": "1",
    "PYTHONPATH": str(ROOT),
} | ({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {})


def launch(*arguments: str, processes: int = 2) -> list[str]:
    """The command; arguments: a script of tests/support/ and its own, or -m and a module."""
    script = [str(ROOT / "tests/support" / arguments[0])] if arguments[0].endswith(".py") else [arguments[0]]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    return [*torchrun, "--nproc_per_node", str(processes), *script, *arguments[1:]]


def run_processes(*arguments: str, processes: int = 2, timeout: float = 300) -> None:
    """Raises a RuntimeError with the last 8,000 characters of what they said if one of them fails."""
    command, both = launch(*arguments, processes=processes), {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, timeout=timeout, text=True, errors="replace", **both)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout[-8000:]}")
