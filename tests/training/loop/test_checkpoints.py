"""Never lose a run: killed, stopped, out of disk, or with numbers that are not finite."""

import errno
import fcntl
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from messages import holds, refused
from processes import ROOT, run_processes
from safetensors import SafetensorError
from toy_run import Toy, toy_run
from tqdm import tqdm

from training.loop.checkpoints import Checkpoints
from training.loop.states import load_state, restore, rng_state, save_state, set_rng_state


def equal(first: Toy, second: Toy) -> bool:
    weights = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in weights)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_state_comes_back_as_it_was(tmp_path):
    state = {"a": torch.randn(3), 1: [torch.arange(4), (True, None, "x")], "b": {"pi": 0.1 + 0.2, "empty": []}}
    save_state(state, tmp_path / "state.safetensors")
    loaded = load_state(tmp_path / "state.safetensors")
    assert torch.equal(loaded["a"], state["a"]) and torch.equal(loaded[1][0], state[1][0])
    assert loaded[1][1] == (True, None, "x") and loaded["b"] == state["b"]
    with refused(TypeError, "state.f", "builtin_function_or_method"):
        save_state({"f": print}, tmp_path / "other.safetensors")


def test_a_process_keeps_the_generator_of_its_own_gpu_alone(monkeypatch):
    """A run on other machines may see fewer GPUs."""
    restored = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: torch.tensor([7]))
    monkeypatch.setattr(torch.cuda, "set_rng_state", restored.append)
    set_rng_state(rng_state())
    assert restored == [torch.tensor([7])]


def test_another_models_state_is_refused_by_name():
    state = Toy().state_dict()
    with refused(ValueError, "linear.bias"):
        restore(Toy(), {name: tensor for name, tensor in state.items() if name != "linear.bias"})
    with refused(ValueError, "linear.bias", "(3,)", "(64,)"):
        restore(Toy(), {**state, "linear.bias": torch.zeros(3)})


def test_a_checkpoint_is_safetensors_and_json_alone(tmp_path):
    toy_run(tmp_path, steps=5, scaler=torch.amp.GradScaler("cpu"))
    parts = ["average", "model", "optimizer", "rng-0", "scaler"]
    expected = sorted([f"{part}.safetensors" for part in parts] + ["progress.json"])
    assert names(tmp_path / "toy-checkpoints" / "step-0000005") == expected


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("kind", ["plain", "scaled"])
def test_resumed_equals_not_stopped(kind, accumulation, tmp_path):
    """Bit for bit, the average too; the scaler doubles at every third step."""

    def scaler() -> torch.amp.GradScaler | None:
        return torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3) if kind == "scaled" else None

    settings = {"steps": 20, "gradient_accumulation_steps": accumulation}
    whole = toy_run(tmp_path / "whole", scaler=scaler(), **settings)
    stop = {8: lambda: os.kill(os.getpid(), signal.SIGTERM)}
    with pytest.raises(SystemExit) as left:
        toy_run(tmp_path / "stopped", scaler=scaler(), before_step=stop, **settings)
    assert left.value.code == 75
    assert names(tmp_path / "stopped" / "toy-checkpoints") == ["step-0000005", "step-0000008"]
    resumed = toy_run(tmp_path / "stopped", scaler=scaler(), resume_from="latest", **settings)
    assert equal(whole, resumed)
    for name in ("average", "optimizer", *["scaler"] * (kind == "scaled")):
        first, second = (
            load_state(tmp_path / run / "toy-checkpoints" / "step-0000020" / f"{name}.safetensors")
            for run in ("whole", "stopped")
        )
        torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_full_disk_leaves_the_checkpoint_before_whole_and_is_said_in_one_line(tmp_path, capsys):
    """A limit on a file's size stands for the disk; the run goes on, and saves again when there is room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    fill = {8: lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))}
    free = {13: lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)}
    try:
        toy_run(tmp_path, steps=14, before_step=fill)
        printed, reason = capsys.readouterr().out.splitlines(), os.strerror(errno.EFBIG)
        assert sum(holds(line, 10, reason, "step-0000005") for line in printed) == 1
        assert names(tmp_path / "toy-checkpoints") == ["step-0000005"]
        toy_run(tmp_path, steps=15, before_step=free, resume_from="latest")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resumed = toy_run(tmp_path, steps=20, resume_from="latest")
    assert equal(toy_run(tmp_path / "whole", steps=20), resumed)


def test_a_full_disk_does_not_end_the_run_at_its_log(tmp_path, capsys):
    (tmp_path / "toy-log.jsonl").symlink_to("/dev/full")
    toy_run(tmp_path, steps=2)
    printed = capsys.readouterr().out.splitlines()
    assert any(holds(line, 2, os.strerror(errno.ENOSPC)) for line in printed)


@pytest.fixture
def one_thread():
    """torch's pool of threads does not come along in a fork, which would wait for it for ever."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_killed_at_random_moments_the_final_weights_are_those_of_a_run_left_alone(one_thread, tmp_path):
    """kill −9, up to 20 times, mostly while it saves: there is a checkpoint every other step."""
    settings = {"steps": 60, "checkpoint_every": 2}
    whole = toy_run(tmp_path / "whole", **settings)
    rng, kills, found = random.Random(0), 0, set()
    while kills < 20:
        child = os.fork()
        if child == 0:
            try:
                tqdm.set_lock(threading.RLock())  # not the one that processes share: a kill would leave it taken
                toy_run(tmp_path / "killed", resume_from="latest", delay=0.01, **settings)
                os._exit(0)
            finally:
                os._exit(1)
        time.sleep(rng.uniform(0.0, 0.2))
        os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, -signal.SIGKILL)
        if code == 0:
            break  # it was done before the kill
        kills += 1
        found.add(max(names(tmp_path / "killed" / "toy-checkpoints"), default=None))
    assert kills > 5 and len(found) > 3, "it was killed, and went on"
    resumed = toy_run(tmp_path / "killed", resume_from="latest", **settings)
    assert names(tmp_path / "killed" / "toy-checkpoints") == ["step-0000058", "step-0000060"]
    assert equal(whole, resumed)


def test_a_later_checkpoint_of_another_run_is_set_aside_and_left_behind_pieces_go(tmp_path, capsys):
    folder = tmp_path / "toy-checkpoints"
    toy_run(tmp_path, steps=10)
    (folder / "partial").mkdir()
    (folder / "partial-step-0000002").mkdir()
    toy_run(tmp_path, steps=6, keep_checkpoints=1)
    pattern = r"aside-step-0000005-\d+ aside-step-0000010-\d+ step-0000006"
    assert re.fullmatch(pattern, " ".join(names(folder)))
    aside = names(folder)[:2]
    assert holds(capsys.readouterr().out, *aside)
    toy_run(tmp_path, steps=5)
    toy_run(tmp_path, steps=4, checkpoint_every=4)
    assert set(aside) < set(names(folder)) and len(names(folder)) == 5, "what was set aside is the user's to delete"


def test_a_copy_of_a_checkpoint_is_none_and_they_are_sorted_by_number(tmp_path):
    folder = tmp_path / "toy-checkpoints"
    toy_run(tmp_path, steps=5)
    shutil.copytree(folder / "step-0000005", folder / "step-0000005-best")
    toy_run(tmp_path, steps=10, resume_from="latest", keep_checkpoints=1)
    assert names(folder) == ["step-0000005-best", "step-0000010"]
    checkpoints = Checkpoints(folder, 2, Accelerator(cpu=True), {}, sharded=False)
    for name in ("step-9999999", "step-10000000"):
        (folder / name).mkdir()
    assert [path.name for path in checkpoints.whole()] == ["step-0000010", "step-9999999", "step-10000000"]


def test_a_second_run_in_a_folder_is_refused_until_the_first_is_killed(one_thread, tmp_path):
    """Though a child of the first, such as a loader's worker, lives on."""
    read, write = os.pipe()
    run = os.fork()
    if run == 0:

        def leave_a_child() -> None:
            child = os.fork()
            if child == 0:
                time.sleep(20)
                os._exit(0)
            os.write(write, str(child).encode())
            time.sleep(20)

        try:
            toy_run(tmp_path, steps=10, before_step={7: leave_a_child})
        finally:
            os._exit(1)
    os.close(write)
    child = int(os.read(read, 20))
    try:
        with refused(ValueError, tmp_path / "toy-checkpoints", "--output_dir"):
            toy_run(tmp_path, steps=6)
        assert names(tmp_path / "toy-checkpoints") == ["step-0000005"]
        os.kill(run, signal.SIGKILL)
        os.waitpid(run, 0)
        toy_run(tmp_path, steps=6, resume_from="latest")
    finally:
        os.kill(child, signal.SIGKILL)
    assert names(tmp_path / "toy-checkpoints") == ["step-0000005", "step-0000006"]


def test_where_nothing_can_be_locked_a_run_goes_on(tmp_path, monkeypatch):
    def refuse(*args) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    toy_run(tmp_path, steps=5)
    assert names(tmp_path / "toy-checkpoints") == ["step-0000005"]


def test_a_run_that_is_past_its_steps_says_so(tmp_path, capsys):
    toy_run(tmp_path, steps=10)
    toy_run(tmp_path, steps=6, resume_from="latest")
    printed = capsys.readouterr().out.splitlines()
    assert any(holds(line, "step-0000010", "steps=6", "--training.steps", 10) for line in printed)


def test_what_would_be_another_run_is_refused(tmp_path):
    toy_run(tmp_path, steps=5)
    with refused(ValueError, "batch_size=4", 8, "--training.init_from"):
        toy_run(tmp_path, steps=5, batch_size=8, resume_from="latest")
    with refused(FileNotFoundError, "nowhere", "step-0000005"):
        toy_run(tmp_path, steps=5, resume_from="nowhere")


def test_a_run_that_may_not_go_on_lets_another_process_save(one_thread, tmp_path):
    """As in a notebook, where the process lives on."""
    toy_run(tmp_path, steps=5)
    with pytest.raises(ValueError, match="batch_size"):
        toy_run(tmp_path, steps=6, batch_size=8, resume_from="latest")
    code = (
        "import fcntl, sys; file = open(sys.argv[1], 'r+'); fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB); "
        "print('free')"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "toy-checkpoints.lock")]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "free\n"


def test_what_has_other_parts_is_refused_with_both_and_the_remedy(tmp_path):
    """A run begun in memory has no place in a stream; where more is frozen, the optimiser learns less."""
    toy_run(tmp_path, steps=5)
    (tmp_path / "toy-checkpoints" / "step-0000005" / "average.safetensors").unlink()
    with refused(ValueError, "step-0000005", "average", "--training.init_from"):
        toy_run(tmp_path, steps=6, resume_from="latest")
    state = torch.optim.AdamW(Toy().parameters()).state_dict()
    frozen = torch.optim.AdamW(list(Toy().parameters())[1:])
    with refused(ValueError, 4, "[4]", 3, "[3]", "freeze", "--training.init_from"):
        restore(frozen, state)


def test_a_truncated_file_is_an_error_and_not_other_weights(tmp_path):
    toy_run(tmp_path, steps=5)
    path = tmp_path / "toy-checkpoints" / "step-0000005" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SafetensorError):
        toy_run(tmp_path, steps=5, resume_from="latest")


@pytest.mark.slow
def test_two_processes_stop_at_one_step_when_one_is_told_and_skip_one_that_is_spoilt_on_either(tmp_path):
    run_processes("toy_run.py", str(tmp_path))
    first, second = (json.loads((tmp_path / f"found-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second and first["code"] == 75 and first["whole"] == first["resumed"]
    assert first["missing"] == "toy-checkpoints/step-0000020"
    folder = tmp_path / "stopped" / "toy-checkpoints" / "step-0000020"
    assert {"rng-0.safetensors", "rng-1.safetensors"} < set(names(folder))
    assert json.loads((folder / "progress.json").read_text())["skipped"] == 2


@pytest.mark.slow
def test_a_dvaes_run_killed_up_to_three_times_ends_with_the_weights_of_one_left_alone():
    """With its warm-up, k-means and decoder's phase; tests/benchmarks/kill.py does so 20 times, and for the prior."""
    command = [sys.executable, "-m", "tests.benchmarks.kill", "--kills", "3", "--trainer", "dvae"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True, text=True, timeout=900)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] >= 1 and found["equal"]
