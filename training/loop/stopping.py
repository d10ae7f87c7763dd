"""How a run is told to stop, and how it says that it can go on."""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

RESUMABLE = 75  # EX_TEMPFAIL of sysexits.h: "try again later", with --training.resume_from latest
ORPHANED = 2.0  # seconds between two looks of a worker at whether its process is still there


class StopSignals:
    """
    Between `listen` and `ignore` SIGTERM and SIGINT do no more than set `received`, which the loop reads at the end of
    each step. A second one changes nothing: launchers repeat what the terminal sent already. SIGQUIT ends at once.
    """

    signals = (signal.SIGTERM, signal.SIGINT)

    def __init__(self):
        self.received = False
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        if threading.current_thread() is threading.main_thread():  # Python lets no other one set a handler
            self._before = {number: signal.signal(number, self._receive) for number in self.signals}

    def ignore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True


def deaf(worker: int) -> None:
    """
    A loader's worker lets pass the SIGTERM and SIGINT that a launcher sends to the whole group: without it the process
    has no next batch, and no step to stop after. The process's own SIGTERM ends it, as torch has it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "darwin":  # which does not say who sent a signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey, args=(os.getppid(),), daemon=True).start()


def _obey(parent: int) -> None:
    """Ends the worker when its process says so, or is no more: what it has not handed over would hold it for ever."""
    while os.getppid() == parent:
        told = signal.sigtimedwait({signal.SIGTERM}, ORPHANED)
        if told is not None and told.si_pid == parent:
            break
    os._exit(0)
