"""A user's mistake is one line at every command; what is none keeps its traceback."""

import ast
import os
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import StrictDataclassError
from messages import holds
from processes import ROOT

from dvae import DVAEConfig
from training.loop import command
from training.loop.command import run_command

COMMANDS = [
    path for path in sorted((ROOT / "training").rglob("*.py")) if 'if __name__ == "__main__"' in path.read_text()
]


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """What a command sets for its whole process is not set for the tests after it."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(command, "disable_progress_bars", lambda: None)
    monkeypatch.setattr(command.logging, "disable_progress_bar", lambda: None)


def fails(error: BaseException):
    def main():
        raise error

    return main


@pytest.mark.parametrize("error", [ValueError, OSError, TypeError, ImportError, FloatingPointError])
def test_a_mistake_is_a_line_and_exit_code_1(error, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_command(fails(error("steps=0\n  trains nothing")))
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "error: steps=0 trains nothing\n"


def test_of_a_config_it_is_the_reason(capsys):
    with pytest.raises(SystemExit):
        run_command(lambda: DVAEConfig(image_size=30))
    said = capsys.readouterr().err
    assert said.startswith("error: image_size=30 ") and holds(said, "downsample_factor=8") and said.count("\n") == 1
    with pytest.raises(StrictDataclassError):
        DVAEConfig(image_size=30)


def test_what_is_no_mistake_is_raised_and_so_is_all_in_development_mode(monkeypatch):
    with pytest.raises(KeyError):
        run_command(fails(KeyError("a bug")))
    monkeypatch.setattr(command, "sys", SimpleNamespace(flags=SimpleNamespace(dev_mode=True)))
    with pytest.raises(ValueError):
        run_command(fails(ValueError("steps=0")))


@pytest.mark.parametrize(("result", "code"), [(None, 0), (1, 1), (0, 0), ("a model", 0)])
def test_the_exit_code_is_what_a_command_returns(result, code):
    done = []
    with pytest.raises(SystemExit) as stopped:
        run_command(lambda: result, lambda: done.append("after"))
    assert stopped.value.code == code and done == ["after"]


def test_another_process_lets_the_first_one_speak(capsys, monkeypatch):
    waited = []
    monkeypatch.setattr(command.time, "sleep", waited.append)
    command.say("first")
    monkeypatch.setenv("RANK", "1")
    command.say("second")
    assert waited == [command.FIRST] and capsys.readouterr().err == "error: first\nerror: second\n"
    with pytest.raises(RuntimeError):
        run_command(fails(RuntimeError("connection closed by peer")))
    assert len(waited) == 2


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_every_command_runs_so(path):
    *_, last = ast.parse(path.read_text()).body
    assert isinstance(last, ast.If) and "__name__" in ast.unparse(last.test)
    [call] = last.body
    assert ast.unparse(call.value.func) == "run_command"


LAUNCHERS = {
    "python": [sys.executable, "-m"],
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m"],
    "accelerate": [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "-m"],
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("flags", [["--data.path", "/nowhere"], ["--training.step", "1"]], ids=["run", "flag"])
def test_a_mistake_is_a_line_whatever_launches(launcher, flags, preset, tmp_path):
    """A launcher of several has more to say of its own; none of it is from here."""
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    argv = [*LAUNCHERS[launcher], "training.train_dvae", preset, *flags]
    run = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)
    lines = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert run.returncode != 0 and len(lines) == 1 and holds(lines[0], flags[0] if "step" in flags[0] else flags[1])
    assert "/training/" not in run.stderr.replace(lines[0], ""), "no line of a traceback is ours"
    if launcher == "python":
        assert len(run.stderr.splitlines()) == 1
