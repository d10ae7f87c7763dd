"""What a run tells of itself: curves as a picture without any tracker, and numbers and pictures in each tracker."""

import builtins
import json

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from messages import refused
from PIL import Image

from training.loop.curves import curves, read_log
from training.loop.loop_training import LoopTraining
from training.loop.run import Run
from training.plot_losses import main

PICTURE = Image.new("RGB", (8, 6), (250, 10, 20))


class Line(torch.nn.Module):
    """One weight, to run a run with."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))


def run_three_steps(output_dir, **settings) -> list[float]:
    """Three steps of w², logged each, then an evaluation; returns the losses."""
    accelerator, model = Accelerator(cpu=True), Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    training = LoopTraining(steps=3, log_every=1, evaluate_every=3, checkpoint_every=3, **settings)
    losses = []
    with Run("line", training, accelerator, output_dir, model=model, optimizer=optimizer) as run:
        for _ in range(3):
            loss = model.weight.square().sum()
            losses.append(loss.item())
            run.descend(loss)
            run.end_step({"loss": loss}, lr=0.1)
        run.evaluated({"validation_loss": 0.25})
        run.show("samples", PICTURE)
    return losses


def test_curves_are_drawn_without_a_tracker(tmp_path):
    losses = run_three_steps(tmp_path)
    lines = curves(read_log(tmp_path / "line-log.jsonl"))
    assert lines.keys() == {"loss"}
    assert lines["loss"]["validation"] == [(3, 0.25)]
    assert lines["loss"]["training"] == [(i + 1, pytest.approx(loss, rel=1e-5)) for i, loss in enumerate(losses)]
    drawn = np.asarray(Image.open(tmp_path / "line-log.png").convert("RGB"))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 10, "something is on it"
    with Image.open(tmp_path / "line-pictures" / "samples-0000003.png") as saved:
        assert saved.tobytes() == PICTURE.tobytes()


def test_steps_past_a_checkpoint_that_a_run_went_back_to_are_not_drawn(tmp_path, capsys):
    log = tmp_path / "prior-log.jsonl"
    steps = [(1, 3.0), (2, 2.0), (3, 9.0), (4, 9.0), (3, 1.5), (4, 1.0)]
    log.write_text("".join(json.dumps({"step": step, "loss": loss, "lr": 1.0}) + "\n" for step, loss in steps))
    assert curves(read_log(log)) == {"loss": {"training": [(1, 3.0), (2, 2.0), (3, 1.5), (4, 1.0)]}}
    main([str(log)])
    assert capsys.readouterr().out.strip() == str(tmp_path / "prior-log.png")


def test_a_line_that_a_full_disk_has_torn_is_not_drawn(tmp_path):
    log = tmp_path / "prior-log.jsonl"
    lines = ['{"step": 1, "loss": 3.0}', '{"step": 2, "lo{"step": 3, "loss": 1.0}', "7", '{"step": 4, "loss": 2.0}']
    log.write_text("\n".join([*lines, '{"st']))
    assert curves(read_log(log)) == {"loss": {"training": [(1, 3.0), (4, 2.0)]}}


def test_without_matplotlib_it_says_once_what_to_install(tmp_path, monkeypatch, capsys):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    accelerator, model = Accelerator(cpu=True), Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = Run("line", LoopTraining(steps=1), accelerator, tmp_path, model=model, optimizer=optimizer)
    run.evaluated({"validation_loss": 1.0})
    run.evaluated({"validation_loss": 2.0})
    assert capsys.readouterr().out.count('pip install "armchair[figures]"') == 1


def test_tensorboard_reads_back_what_was_logged(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    losses = run_three_steps(tmp_path, log_with="tensorboard")
    [folder] = (tmp_path / "tensorboard").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    scalars = [(event.step, event.value) for event in events.Scalars("loss")]
    assert scalars == [(i + 1, pytest.approx(loss, rel=1e-5)) for i, loss in enumerate(losses)]
    [event] = events.Images("samples")
    assert (event.step, event.width, event.height) == (3, 8, 6)


@pytest.mark.slow
def test_wandb_offline_writes_its_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run_three_steps(tmp_path, log_with=["wandb"])
    [folder] = (tmp_path / "wandb").glob("offline-run-*")
    assert list(folder.glob("run-*.wandb"))
    [picture] = (folder / "files" / "media" / "images").glob("samples_*.png")
    with Image.open(picture) as saved:
        assert saved.size == PICTURE.size


def test_trackio_keeps_what_was_logged(tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    for module in ("sqlite_storage", "media.utils"):
        monkeypatch.setattr(f"trackio.{module}.TRACKIO_DIR", tmp_path / "trackio", raising=False)
    losses = run_three_steps(tmp_path / "own", log_with="trackio")
    rows = SQLiteStorage.get_logs("armchair", "own-line")
    assert [row["loss"] for row in rows if "loss" in row] == pytest.approx(losses, rel=1e-5)
    [shown] = [row for row in rows if "samples" in row]
    assert shown["step"] == 3 and shown["samples"]["_type"].startswith("trackio")


def test_a_missing_tracker_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with refused(ImportError, "wandb", 'pip install "armchair[trackers]"'):
        run_three_steps(tmp_path, log_with="wandb")
