"""Streams: every row once an epoch over three processes, resumed at the next batch, broken rows counted."""

import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import broken_sets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from messages import holds, refused
from processes import ROOT, run_processes

from training import train_dvae
from training.pictures.data_arguments import DataArguments
from training.pictures.in_memory import Pictures
from training.pictures.loaders import some_pictures
from training.pictures.readers import ParquetReader
from training.pictures.splits import load_split
from training.pictures.streaming import Place, StreamedPictures, StreamLoader, epoch_rows

GOOD = [i for i in range(100) if i not in broken_sets.BROKEN]


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, str]:
    return {kind: broken_sets.write(kind, tmp_path_factory.mktemp(kind)) for kind in broken_sets.FORMATS}


def stream(path: str, **settings) -> StreamLoader:
    """All 100 rows: the validation split is the training split, so nothing is held out."""
    data = DataArguments(path=path, streaming=True, validation_split="train", shuffle_buffer=7)
    loading = {"batch_size": 5, "seed": 3, **settings}
    return StreamLoader(StreamedPictures(load_split(data, "train"), data, 20), **loading)


def places(images: torch.Tensor) -> list[int]:
    """The first pixel of row i is i (broken_sets.row)."""
    return images[:, 0, 0, 0].tolist()


def take(loader: StreamLoader, batches: int) -> list[list[int]]:
    return [places(images) for images in itertools.islice(loader, batches)]


@pytest.mark.parametrize("kind", broken_sets.FORMATS)
def test_an_epoch_is_every_good_row_once_in_another_order_each_time(kind, sets):
    loader = stream(sets[kind])
    first, second = (list(itertools.chain(*take(loader, 19))) for _ in range(2))
    assert sorted(first) == sorted(second) == GOOD
    assert first != second and first != GOOD
    assert loader.tally.reasons == broken_sets.expected(kind) + broken_sets.expected(kind)


@pytest.mark.slow
def test_three_processes_share_an_epoch_with_no_row_twice_and_none_left_out(sets, tmp_path):
    """Without workers and with two. A last batch is filled from the next epoch, so each lane's rows are cut to one."""
    run_processes("three_streams.py", sets["parquet"], "16", str(tmp_path / "rows.json"), processes=3)
    source = load_split(DataArguments(path=sets["parquet"], streaming=True, validation_split="train"), "train")
    for workers, states in zip((1, 2), json.loads((tmp_path / "rows.json").read_text()), strict=True):
        epoch = []
        for process, state in enumerate(states):
            assert state["rows"] == state["resumed"], "a stream that stopped half-way goes on with the next batch"
            for worker in range(workers):
                rows = epoch_rows(source, 5, 0, process * workers + worker, 3 * workers, 7)
                own = [int(row.where.rpartition(" ")[2]) + start_of(row.where) for row in rows]
                assert len(own) - 100 // (3 * workers) in (0, 1)
                good = [i for i in own if i not in broken_sets.BROKEN]
                epoch += list(itertools.chain(*state["rows"][worker::workers]))[: len(good)]
                assert epoch[-len(good) :] == good
        assert sorted(epoch) == GOOD


@pytest.mark.parametrize("lanes", [1, 3, 7, 94])
def test_lanes_cut_an_epoch_into_spans_of_the_same_length(lanes, sets):
    source = load_split(DataArguments(path=sets["tar"], streaming=True), "train")  # 95 rows: 5 are held out
    spans = [[row.where for row in epoch_rows(source, 0, 4, lane, lanes, buffer=9)] for lane in range(lanes)]
    assert sorted(itertools.chain(*spans)) == sorted(row.where for row in source.rows())
    assert max(map(len, spans)) - min(map(len, spans)) <= 1


def start_of(where: str) -> int:
    return int(where.partition("train-")[2][:5])


@pytest.mark.parametrize("stop", [4, 19])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stream_resumes_with_the_very_next_batch_and_decodes_none_before(num_workers, stop, sets, monkeypatch):
    settings = {"num_workers": num_workers, "flip": True}
    whole = take(stream(sets["tar"], **settings), stop + 6)
    stopped = stream(sets["tar"], **settings)
    before = take(stopped, stop)
    resumed = stream(sets["tar"], **settings)
    resumed.load_state_dict(stopped.state_dict())
    decoded, draw = multiprocessing.Value("i", 0), StreamedPictures.draw  # workers are forks

    def counted(*args):
        with decoded.get_lock():
            decoded.value += 1
        return draw(*args)

    monkeypatch.setattr(StreamedPictures, "draw", counted)
    assert before + take(resumed, 6) == whole
    ahead = 1 + 3 * num_workers  # batches
    assert 6 * 5 <= decoded.value <= (6 + ahead) * 5 + len(broken_sets.BROKEN)
    assert (
        resumed.tally.seen
        == stopped.tally.seen + sum(resumed.tally.reasons.values()) - sum(stopped.tally.reasons.values()) + 6 * 5
    )


def test_on_another_number_of_workers_a_stream_goes_on_with_the_next_epoch(sets):
    stopped = stream(sets["arrow"], num_workers=0)
    take(stopped, 25)
    resumed = stream(sets["arrow"], num_workers=2)
    resumed.load_state_dict(stopped.state_dict())
    assert resumed.batches.places == [Place(2), Place(2)]


@pytest.mark.parametrize(("seed", "buffer"), [(4, 7), (3, 8)])
def test_in_another_order_a_stream_goes_on_with_the_next_epoch(seed, buffer, sets):
    stopped, resumed = stream(sets["arrow"]), stream(sets["arrow"], seed=seed)
    take(stopped, 4)
    resumed.batches.pictures.data.shuffle_buffer = buffer
    resumed.load_state_dict(stopped.state_dict())
    assert resumed.batches.places == [Place(1)]


def test_the_share_of_broken_rows_is_the_sets_and_not_a_lanes(tmp_path):
    """6 of 120, two of them in one lane's 15; then 24 of 120, half of them in each lane."""
    pictures = [broken_sets.row(i)[0] for i in (0, 11)]
    for name, broken in {"few": range(0, 36, 6), "many": range(0, 120, 5)}.items():
        cells = [pictures[i in broken] for i in range(120)]
        pq.write_table(pa.table({"image": cells, "text": ["x"] * 120}), tmp_path / f"{name}.parquet")
    for process in range(8):
        take(stream(str(tmp_path / "few.parquet"), process=process, processes=8), 3)
    with pytest.raises(ValueError, match=r"\b1[3-6]\b.* max_broken_share=0\.1\b.*\b120\b"):
        take(stream(str(tmp_path / "many.parquet"), num_workers=2), 30)


def test_a_stream_says_at_its_end_how_many_rows_it_skipped(sets, capsys):
    loader = stream(sets["tar"])
    for _ in zip(range(19), loader, strict=False):
        pass
    last = capsys.readouterr().out.splitlines()[-1]
    assert holds(last, loader.tally.broken, loader.tally.seen, sets["tar"])
    assert loader.tally.broken >= 5


def test_a_skipped_block_is_not_read(sets, monkeypatch):
    source = load_split(DataArguments(path=sets["parquet"], streaming=True, validation_split="train"), "train")
    read, rows = [], list(epoch_rows(source, seed=0, epoch=0, lane=0, lanes=1, buffer=10))
    monkeypatch.setattr(ParquetReader, "read", lambda *args: read.append(args[1]) or own_read(*args))
    rest = list(epoch_rows(source, seed=0, epoch=0, lane=0, lanes=1, buffer=10, skip=73))
    assert [row.where for row in rest] == [row.where for row in rows[73:]]
    assert len(read) <= 4, "units hold 16 rows or 8; 27 of 100 are left"


own_read = ParquetReader.read


def test_a_buffer_mixes_rows_of_different_units(sets):
    source = load_split(DataArguments(path=sets["parquet"], streaming=True, validation_split="train"), "train")
    files = [start_of(row.where) for row in epoch_rows(source, 0, 0, 0, 1, buffer=100)]
    changes = np.count_nonzero(np.diff(files))
    assert changes > 30
    assert np.count_nonzero(np.diff([start_of(r.where) for r in epoch_rows(source, 0, 0, 0, 1, buffer=1)])) < 10


def test_a_stream_stops_past_the_share_with_both_numbers_and_needs_a_row_a_lane(sets):
    data = DataArguments(path=sets["csv"], streaming=True, max_broken_share=0.01)
    train = load_split(data, "train")
    pictures = StreamedPictures(train, data, 20)
    with refused(ValueError, "max_broken_share=0.01", 100):
        take(StreamLoader(pictures, batch_size=5, seed=0), 20)
    with refused(ValueError, len(train), 60, 2, "num_workers"):
        StreamLoader(pictures, batch_size=5, seed=0, num_workers=2, processes=60)
    with refused(ValueError, "scenes=0.5", "data.streaming"):
        StreamedPictures(train, DataArguments(path=sets["csv"], streaming=True, scenes=0.5), 20)


def test_a_presets_scenes_keep_no_captioned_pictures_from_streaming(preset, capsys):
    """The set composes none: they are taken as 0, streamed or not."""
    train_dvae.main([preset, "--data.scenes", "0.5", "--data.streaming", "true", "--training.steps", "1"])
    assert holds(capsys.readouterr().out, "scenes", 0)


@pytest.mark.parametrize("crop", ["center", "dalle"])
def test_streamed_pictures_are_those_in_memory(crop, sets):
    data = DataArguments(path=sets["jsonl"], streaming=True, crop=crop)
    train = load_split(data, "train")
    memory = Pictures(train, DataArguments(path=sets["jsonl"]), 20)
    images = torch.cat(list(some_pictures(StreamedPictures(train, data, 20), 70, seed=0)))
    assert images.shape == (70, 3, 20, 20)
    of_memory = {memory.single(i)[0].tobytes() for i in range(len(memory))}
    same = sum(image.permute(1, 2, 0).contiguous().numpy().tobytes() in of_memory for image in images)
    assert same == 70 if crop == "center" else 0 < same < 40, "one crop in five is the centre"


def preset(path: Path, data: dict) -> str:
    model = {"image_size": 16, "downsample_factor": 4, "codebook_size": 16, "codebook_dim": 8, "widths": [8, 8, 8]}
    loop = {"steps": 6, "batch_size": 8, "checkpoint_every": 3, "evaluate_every": 100, "kmeans_latents": 64}
    training = {**loop, "log_every": 1, "autoencoder_steps": 2, "lr": 2e-3}
    model |= {"posterior": "gumbel_codebook", "min_log_scale": -2.5}
    sections = {"output_dir": str(path / "run"), "data": data, "dvae": {"model": model, "training": training}}
    (path / "preset.yaml").write_text(yaml.safe_dump(sections))
    return str(path / "preset.yaml")


@pytest.mark.parametrize("streaming", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind == "tar" else pytest.mark.slow) for kind in broken_sets.FORMATS]
)
def test_a_set_with_broken_rows_trains(kind, streaming, sets, tmp_path):
    train_dvae.main([preset(tmp_path, {"path": sets[kind], "streaming": streaming})])
    lines = [json.loads(line) for line in (tmp_path / "run" / "dvae-log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]


def test_a_streamed_run_resumes_bit_for_bit(sets, tmp_path, capsys):
    argv = [preset(tmp_path, {"path": sets["parquet"], "streaming": True, "crop": "dalle"})]
    whole = train_dvae.main(argv).state_dict()
    checkpoint = tmp_path / "run" / "dvae-checkpoints" / "step-0000003"
    resumed = train_dvae.main([*argv, "--training.resume_from", str(checkpoint)]).state_dict()
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key
    fewer = ["--training.steps", "2", "--training.autoencoder_steps", "1"]
    train_dvae.main([*argv, "--training.resume_from", str(checkpoint), *fewer])
    printed = capsys.readouterr().out.splitlines()
    assert any(holds(line, "step-0000003", "steps=2", "--training.steps") for line in printed)


def test_a_state_counts_what_was_skipped(sets):
    loader = stream(sets["folder"])
    take(loader, 19)
    state = loader.state_dict()["processes"][0]
    assert Counter(state["skipped"]) == broken_sets.expected("folder") and state["seen"] == 100


@pytest.mark.parametrize("streaming", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_signal_to_the_whole_group_lets_the_workers_feed_the_last_step(streaming, sets, tmp_path):
    argv = [preset(tmp_path, {"path": sets["parquet"], "streaming": streaming}), "--training.steps", "100000"]
    argv += ["--training.num_workers", "2", "--training.checkpoint_every", "100000"]
    root, run = ROOT, tmp_path / "run"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "training.train_dvae", *argv]
    with open(tmp_path / "printed", "wb") as printed:
        process = subprocess.Popen(command, env=environment, stderr=printed, start_new_session=True)
    deadline, log = time.monotonic() + 120, run / "dvae-log.jsonl"
    while process.poll() is None and time.monotonic() < deadline and not (log.exists() and log.stat().st_size > 300):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    try:
        assert process.wait(timeout=60) == 75, (tmp_path / "printed").read_text()
    finally:
        process.kill()
    assert len(list((run / "dvae-checkpoints").glob("step-*"))) == 1
