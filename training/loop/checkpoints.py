"""A run's checkpoints: whole or not there at all, whatever ends the process.

    run-checkpoints/step-0000020/
        progress.json                   step, batch size, processes, steps skipped
        model.safetensors, …            a file a part; of a sharded run one a process: model-3.safetensors
        rng-0.safetensors               the random generators of each process

A folder is written as `partial`, brought to disk, and renamed. Nodes of one run share the folder; another run is kept
out by a lock on run-checkpoints.lock.
"""

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

from .provenance import Fact, check_facts
from .states import load_state, restore, rng_state, save_state, set_rng_state, sync
from .stepping import agreed


class Checkpoints:
    """
    The checkpoints in `folder`, of which the newest `keep` stay.

    parts: by name, each a module, an optimiser, or anything with state_dict() and load_state_dict().
    sharded: whether each process holds a piece of the parts, and writes it, rather than all of them.
    """

    def __init__(self, folder: Path, keep: int, accelerator: Accelerator, parts: dict[str, Any], sharded: bool):
        self.folder, self.keep, self.accelerator, self.parts, self.sharded = folder, keep, accelerator, parts, sharded
        self.held: int | None = None  # the lock's file

    def lock(self) -> None:
        """
        Until `unlock`, or the end of this process, which may be a kill, no other run saves here. Raises a ValueError,
        on all processes of the run, where another one does. Where the system knows no locks there is none.
        """
        taken = False
        if self.accelerator.is_main_process:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                self.held = os.open(f"{self.folder}.lock", os.O_RDWR | os.O_CREAT, 0o666)
                if fcntl is not None:
                    fcntl.lockf(self.held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # flock's would live on in workers
            except BlockingIOError:
                taken = True
            except OSError:
                pass
        if agreed(self.accelerator, taken)[0]:
            self.unlock()
            raise ValueError(
                f"another run saves its checkpoints in {self.folder}: wait until it ends, stop it, or take another "
                "--output_dir"
            )

    def unlock(self) -> None:
        if self.held is not None:
            os.close(self.held)
            self.held = None

    def whole(self) -> list[Path]:
        """Oldest first: step-N and no other name, such as a copy's."""
        return sorted((path for path in self.folder.glob("step-*") if path.name[5:].isdecimal()), key=step_of)

    def find(self, resume_from: str | None) -> Path | None:
        """
        "latest" of the folder, None where it has none yet; or the checkpoint at a path. The first process chooses.

        Raises a FileNotFoundError, on all processes, where one of them sees none at the path.
        """
        if resume_from is None:
            return None
        if resume_from == "latest":
            [found] = broadcast_object_list([str(self.whole()[-1]) if self.whole() else None])
            if found is None:
                self.accelerator.print(f"no checkpoint in {self.folder} yet: starting from step 0")
                return None
            resume_from = found
        if agreed(self.accelerator, not (Path(resume_from) / "progress.json").is_file())[0]:
            names = [path.name for path in self.whole()]
            raise FileNotFoundError(
                f"no checkpoint at {resume_from}: {self.folder} holds {names} here; all nodes of a run must share it"
            )
        return Path(resume_from)

    def told(self, path: Path) -> dict[str, Any]:
        """What the checkpoint at `path` says of its run: its progress.json."""
        return json.loads((path / "progress.json").read_text())

    def load(
        self, path: Path, batch_size: int, facts: dict[str, Fact], may_differ: Sequence[str] = ()
    ) -> dict[str, Any]:
        """
        Puts the checkpoint at `path` into the parts and this process's random generators -> its progress.

        may_differ: names of facts that may be others.

        Raises a ValueError where the place in the data, the shards, the parts or one of the facts would be others.
        """
        progress = self.told(path)
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        if progress["batch_size"] != batch_size:
            raise ValueError(
                f"{path} was made with batch_size={progress['batch_size']}, not {batch_size}: its place in the data "
                "would be another; resume with the same one, or start anew with --training.init_from"
            )
        if (self.sharded or progress["sharded"]) and (progress["processes"], progress["sharded"]) != (
            processes,
            self.sharded,
        ):
            kinds = {True: "sharded", False: "whole"}
            raise ValueError(
                f"{path} was made by {progress['processes']} processes, {kinds[progress['sharded']]}; this run has "
                f"{processes}, {kinds[self.sharded]}: resume with the same, or start anew with --training.init_from"
            )
        anew = "start anew without --training.resume_from"
        check_facts(str(path), progress, facts, may_differ, anew, say=self.accelerator.print)
        missing = [name for name in self.parts if not (path / self._file(name)).is_file()]
        if missing:
            raise ValueError(
                f"{path} has no {', '.join(missing)}, which this run goes on with: resume with data.streaming, "
                "mixed_precision and adversaries as they were, or start anew with --training.init_from"
            )
        for name, part in self.parts.items():
            restore(part, load_state(path / self._file(name)))
        if progress["processes"] == processes:
            set_rng_state(load_state(path / f"rng-{rank}.safetensors"))
        else:
            self.accelerator.print(f"{path} was made by {progress['processes']} processes: noise will differ")
        return progress

    def clean(self, step: int) -> None:
        """
        At a run's start from `step`: removes what a killed one left half written, and sets aside, for the user to
        delete, as `aside-step-N-TIME`, checkpoints of a later step, which "latest" would take for this run's.
        """
        if self.accelerator.is_main_process:
            for path in self.folder.glob("partial*"):
                shutil.rmtree(path)
            for path in self.whole():
                if step_of(path) > step:
                    aside = path.rename(path.with_name(f"aside-{path.name}-{time.time_ns()}"))
                    print(f"{path} is not this run's, which starts at step {step}: set aside as {aside.name}")
        self.accelerator.wait_for_everyone()

    def save(self, step: int, **progress: Any) -> bool:
        """
        Writes step-N, then removes the oldest. Where the disk is full all processes return False, after one line that
        says so, and the checkpoints before are as they were.
        """
        target, partial = self.folder / f"step-{step:07d}", self.folder / "partial"
        if target.exists():
            return True
        error = self._write(partial, {"step": step, **progress})
        if agreed(self.accelerator, error is not None)[0]:
            if error is not None:
                self._report(step, error)
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                shutil.rmtree(partial, ignore_errors=True)
            return False
        if self.accelerator.is_main_process:
            sync(partial)
            partial.rename(target)
            sync(self.folder)
            self._prune()
        self.accelerator.wait_for_everyone()
        return True

    def _write(self, partial: Path, progress: dict[str, Any]) -> Exception | None:
        """This process's files -> the error of a disk that is full."""
        accelerator = self.accelerator
        states = {name: part.state_dict() for name, part in self.parts.items()}  # a stream gathers all processes'
        try:
            partial.mkdir(parents=True, exist_ok=True)
            if self.sharded or accelerator.is_main_process:
                for name, state in states.items():
                    save_state(state, partial / self._file(name))
            save_state(rng_state(), partial / f"rng-{accelerator.process_index}.safetensors")
            if accelerator.is_main_process:
                path = partial / "progress.json"
                facts = {**progress, "processes": accelerator.num_processes, "sharded": self.sharded}
                path.write_text(json.dumps(facts, indent=2) + "\n")
                sync(path)
        except (OSError, SafetensorError) as error:
            return error
        return None

    def _file(self, name: str) -> str:
        return f"{name}-{self.accelerator.process_index}.safetensors" if self.sharded else f"{name}.safetensors"

    def _report(self, step: int, error: Exception) -> None:
        whole = self.whole()
        last = f"{whole[-1]} is whole" if whole else "there is none before it"
        free = shutil.disk_usage(self.folder).free / 2**20
        print(f"checkpoint of step {step} not written: {error} ({free:,.0f} MiB free); {last}", flush=True)

    def _prune(self) -> None:
        """Under another name first: what is half removed must not look like a checkpoint."""
        for old in self.whole()[: -self.keep]:
            shutil.rmtree(old.rename(old.with_name(f"partial-{old.name}")))


def step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))
