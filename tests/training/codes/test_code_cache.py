"""The cache of codes: what the dVAE says, in shards, by any number of processes, restarted, never stale."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import broken_sets
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import Accelerator
from messages import holds, refused
from processes import ENVIRONMENT, ROOT, launch, run_processes

from dvae import DVAE, DVAEConfig, DVAEImageProcessor
from training import encode_dataset
from training.codes import cache as code_cache
from training.codes import views
from training.codes.cache import CodeCache
from training.codes.cached import MappedCodes
from training.codes.of_run import code_caches
from training.codes.views import Contents, Views
from training.emoji.named_cutouts import NamedCutouts
from training.loop.fingerprints import codes_digest, codes_digests_of_before, digest_of
from training.pictures.data_arguments import DataArguments
from training.pictures.rows import open_picture
from training.pictures.sources import open_splits
from training.pictures.splits import load_split
from training.presets.trainers import PriorTraining
from training.sets import KINDS


class Process(Accelerator):
    """One of several processes, each run after the other in this one."""

    index, number = 0, 1
    process_index = property(lambda self: self.index)
    num_processes = property(lambda self: self.number)

    def wait_for_everyone(self) -> None:
        pass


@pytest.fixture
def small_shards(monkeypatch) -> None:
    monkeypatch.setattr(code_cache, "SHARD", 16)


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, str]:
    return {kind: broken_sets.write(kind, tmp_path_factory.mktemp(kind)) for kind in ("parquet", "tar")}


def cache(folder: Path, dvae, path: str, crop: str = "center", **settings) -> CodeCache:
    data = DataArguments(path=path, validation_split="train", crop=crop)
    return CodeCache(folder, dvae, Contents(load_split(data, "train"), data, dvae.config.image_size, **settings))


def test_codes_are_the_dvaes_of_every_good_row_in_order(small_shards, sets, tiny_dvae, tmp_path):
    made = cache(tmp_path / "codes", tiny_dvae, sets["parquet"])
    encoded = made.dataset(Accelerator())
    assert encoded["row"] == [i for i in range(100) if i not in broken_sets.BROKEN]
    assert [json.loads(parts)["text"] for parts in encoded["parts"]] == [broken_sets.row(i)[1] for i in encoded["row"]]
    assert Counter(made.skipped()) == broken_sets.expected("parquet")
    [row] = open_splits(sets["parquet"])["train"].rows(41, 42)
    image = DVAEImageProcessor(16)(open_picture(row.columns["image"], made.data))["pixel_values"]
    at = encoded["row"].index(41)
    assert encoded[at]["codes"] == tiny_dvae.encode(image).flatten().tolist()
    assert not any(encoded["composed"]) and len(made.shards) == 7


def test_processes_share_the_shards_and_a_restart_keeps_what_is_there(small_shards, sets, tiny_dvae, tmp_path):
    alone = cache(tmp_path / "alone", tiny_dvae, sets["tar"])
    alone.fill(Accelerator())
    shared = cache(tmp_path / "shared", tiny_dvae, sets["tar"])
    process = Process()
    process.number, process.index = 3, 0
    shared.fill(process)
    assert shared.missing() == [1, 2, 4, 5]
    first = {path: path.stat().st_mtime_ns for path in shared.shards if path.exists()}
    (tmp_path / "shared" / ".codes-00001-of-00007.parquet.123.partial").write_bytes(b"cut off by a kill")
    for process.index in (1, 2):
        cache(tmp_path / "shared", tiny_dvae, sets["tar"]).fill(process)
    assert shared.missing() == [] and all(path.stat().st_mtime_ns == time for path, time in first.items())
    for one, other in zip(alone.shards, shared.shards, strict=True):
        assert pq.read_table(one).equals(pq.read_table(other), check_metadata=True)
    shared.shards[3].unlink()
    assert len(cache(tmp_path / "shared", tiny_dvae, sets["tar"]).dataset(Accelerator())) == 95


def test_a_stale_cache_is_refused_with_both_fingerprints_and_what_differs(sets, tiny_dvae, tmp_path):
    first = cache(tmp_path / "codes", tiny_dvae, sets["tar"])
    first.fill(Accelerator())
    cache(tmp_path / "codes", copy.deepcopy(tiny_dvae), sets["tar"])
    other = copy.deepcopy(tiny_dvae)
    with torch.no_grad():
        next(other.decoder.parameters()).add_(1e-3)
        assert codes_digest(other) == codes_digest(tiny_dvae), "the decoder makes no codes"
        next(other.encoder.parameters()).add_(1e-3)
    second = cache(tmp_path / "other", other, sets["tar"])
    with refused(ValueError, first.fingerprint, second.fingerprint, "dvae", tmp_path / "codes", "--training.codes"):
        cache(tmp_path / "codes", other, sets["tar"])
    with refused(ValueError, "flips", "False", "True"):
        cache(tmp_path / "codes", tiny_dvae, sets["tar"], views=Views(flips=True))
    broken_sets.write("tar", tmp_path / "half", count=50)
    with refused(ValueError, "rows", 100, 50):
        cache(tmp_path / "codes", tiny_dvae, str(tmp_path / "half"))


def changed(dvae, **config):
    """The dVAE with other settings of its config, its weights as they are."""
    other = copy.deepcopy(dvae)
    for name, value in config.items():
        setattr(other.config, name, value)
    return other


def test_a_fingerprint_is_of_what_decides_the_codes_and_of_nothing_else(tiny_dvae):
    own = codes_digest(tiny_dvae)
    for nothing in (
        {"transformers_version": "4.0", "architectures": ["Another"], "dtype": "float16", "_name_or_path": "there"},
        {"likelihood": "laplace", "min_log_scale": -2.0, "commitment": 0.5, "style_prior": "flow"},
        {"post_gain": tiny_dvae.config.gain},
    ):
        assert codes_digest(changed(tiny_dvae, **nothing)) == own, nothing
    for setting in ({"post_gain": 0.3}, {"resampling": "shuffle"}, {"posterior": "vq"}):
        assert codes_digest(changed(tiny_dvae, **setting)) != own, setting
    assert codes_digest(copy.deepcopy(tiny_dvae).to(memory_format=torch.channels_last)) == own


def test_a_shard_is_of_what_it_says_or_not_read(small_shards, sets, tiny_dvae, tmp_path):
    first = cache(tmp_path / "codes", tiny_dvae, sets["tar"])
    first.fill(Accelerator())
    (tmp_path / "codes" / "cache.json").unlink()
    cache(tmp_path / "codes", tiny_dvae, sets["tar"])  # each shard says it
    with refused(ValueError, first.shards[0], first.fingerprint):
        cache(tmp_path / "codes", changed(tiny_dvae, post_gain=0.3), sets["tar"])
    unmarked(first.shards[2])
    with refused(ValueError, first.shards[2], first.folder):
        cache(tmp_path / "codes", tiny_dvae, sets["tar"])


def unmarked(shard: Path) -> None:
    """As shards were written before they had a fingerprint."""
    table = pq.read_table(shard)
    told = {key: value for key, value in table.schema.metadata.items() if key != b"fingerprint"}
    pq.write_table(table.replace_schema_metadata(told), shard)


def test_a_cache_of_before_is_read_on(small_shards, sets, tiny_dvae, tmp_path):
    """Its cache.json hashed the whole config; its shards said nothing. Both are as the codes were made."""
    first = cache(tmp_path / "codes", tiny_dvae, sets["tar"])
    codes = first.dataset(Accelerator())["codes"]
    for shard in first.shards:
        unmarked(shard)
    settings = first.settings() | {"dvae": codes_digests_of_before(tiny_dvae)[0]}
    told = {"fingerprint": digest_of(settings), "settings": settings}
    (tmp_path / "codes" / "cache.json").write_text(json.dumps(told))
    with refused(ValueError, "dvae", settings["dvae"]):
        cache(tmp_path / "codes", changed(tiny_dvae, post_gain=0.3), sets["tar"])
    times = [shard.stat().st_mtime_ns for shard in first.shards]
    first.shards[3].unlink()
    for _ in range(2):  # the second time under the fingerprint of today
        again = cache(tmp_path / "codes", tiny_dvae, sets["tar"])
        assert again.dataset(Accelerator())["codes"] == codes
    kept = [shard.stat().st_mtime_ns for shard in first.shards]
    assert kept[:3] + kept[4:] == times[:3] + times[4:], "no code was made again"
    shutil.copy(first.shards[0], first.shards[1])
    with refused(ValueError, first.shards[1]):
        cache(tmp_path / "codes", tiny_dvae, sets["tar"])


def test_a_caption_or_a_picture_beside_the_table_makes_another_cache_and_a_seed_without_a_draw_does_not(
    tiny_dvae, tmp_path
):
    folder = Path(broken_sets.write("folder", tmp_path / "set", count=4))
    table, picture = folder / "metadata.jsonl", next((folder / "pictures").iterdir())

    def fingerprint(**settings) -> str:
        return cache(tmp_path / "codes", tiny_dvae, str(folder), **settings).fingerprint

    first = fingerprint()
    assert fingerprint(seed=7) == first and fingerprint(crop="dalle") == first
    crops = fingerprint(views=Views("dalle"))
    assert fingerprint(views=Views("dalle"), seed=7) != crops
    os.utime(picture, ns=(0, picture.stat().st_mtime_ns + 1))
    touched = fingerprint()
    assert touched != first
    table.write_text(table.read_text()[::-1].replace("0", "7", 1)[::-1])
    assert fingerprint() not in (first, touched), "as long as before"


@pytest.mark.parametrize("kind", ["parquet", "arrow", "tar"])
def test_an_edit_that_leaves_names_and_sizes_makes_another_cache(kind, tmp_path):
    path = broken_sets.write(kind, tmp_path / "set", count=4)
    [file] = Path(path).iterdir()
    before, content = open_splits(path)["train"].digest(), bytearray(file.read_bytes())
    at = content.index(b"a red square")
    content[at] = ord("A")
    file.write_bytes(content)
    after = open_splits(path)["train"].digest()
    os.utime(file, ns=(0, 0))
    assert open_splits(path)["train"].digest() == after != before, "of the content, not of the time"


def test_crops_and_flips_are_further_rows_of_their_picture(sets, tiny_dvae, tmp_path):
    encoded = cache(
        tmp_path / "codes", tiny_dvae, sets["tar"], crop="dalle", views=Views("dalle", crops=3, flips=True)
    ).dataset(Accelerator())
    assert set(Counter(encoded["row"]).values()) == {6}
    of_one = np.array(encoded.with_format("numpy")["codes"][:6])
    assert len(np.unique(of_one[::2], axis=0)) > 1, "crops differ"
    assert len(set(encoded["parts"][:6])) == 1
    with refused(ValueError, "crops=3", "data.crop"):
        cache(tmp_path / "other", tiny_dvae, sets["tar"], views=Views(crops=3))


def test_a_run_has_the_crops_in_training_and_the_centre_in_validation(sets, tiny_dvae, tmp_path):
    data = DataArguments(path=sets["parquet"], crop="dalle")
    training = PriorTraining(crops=2, codes=str(tmp_path / "elsewhere"))
    caches = code_caches(tiny_dvae, data, training, tmp_path)
    assert caches["train"].folder == tmp_path / "elsewhere" / "train"
    assert [cache.contents.views for cache in caches.values()] == [Views("dalle", 2), Views()]


def test_a_set_past_the_share_is_not_encoded(sets, tiny_dvae, tmp_path):
    made = cache(tmp_path / "codes", tiny_dvae, sets["tar"])
    made.data = DataArguments(path=sets["tar"], max_broken_share=0.01)
    with refused(ValueError, 5, "max_broken_share=0.01", 100):
        made.fill(Accelerator())
    assert len(made.missing()) == 1


def test_a_set_past_the_share_in_all_its_shards_is_not_encoded_by_processes_that_are_not(
    small_shards, sets, tiny_dvae, tmp_path
):
    made = cache(tmp_path / "codes", tiny_dvae, sets["tar"])
    made.data = DataArguments(path=sets["tar"], max_broken_share=0.04)
    process = Process()
    process.number = 2
    made.fill(process)
    process.index = 1
    with refused(ValueError, 5, "max_broken_share=0.04", 100):
        made.fill(process)


def test_a_shard_of_broken_rows_alone_is_left_out_and_nothing_else_is_an_error(
    small_shards, sets, tiny_dvae, tmp_path
):
    good = pq.read_table(next(Path(sets["parquet"]).glob("*.parquet"))).slice(0, 1)["image"][0].as_py()["bytes"]
    for name, pictures in {"hole": [good] * 16 + [b""] * 16 + [good], "void": [b""] * 17}.items():
        pq.write_table(pa.table({"image": pictures, "text": ["x"] * len(pictures)}), tmp_path / f"{name}.parquet")
        made = cache(tmp_path / name, tiny_dvae, str(tmp_path / f"{name}.parquet"))
        made.data = DataArguments(path=made.data.path, max_broken_share=1.0)
        if name == "hole":
            assert MappedCodes(made.dataset(Accelerator())).row(16)[0] == {"text": "x"}
        else:
            with refused(ValueError, tmp_path / "void", 17, "undecodable"):
                made.dataset(Accelerator())


def test_the_command_encodes_and_a_second_time_finds_it_done(sets, tiny_dvae, tmp_path, capsys):
    tiny_dvae.save_pretrained(tmp_path / "run" / "dvae")
    preset = tmp_path / "preset.yaml"
    preset.write_text(f"output_dir: {tmp_path / 'run'}\ndata: {{path: {sets['parquet']}}}\n")
    for there, flags in ((0, []), (1, ["--training.flips", "false"])):
        encode_dataset.main([str(preset), *flags])
        printed = capsys.readouterr().out.splitlines()
        assert any(holds(line, "train", there, 1) for line in printed), "shards that are there, of how many"
    assert len(pq.read_table(next((tmp_path / "run" / "codes" / "train").glob("*.parquet")))) == 90
    with refused(ValueError, "flips", "False", "True"):
        encode_dataset.main([str(preset), "--training.flips", "true"])


def test_codes_are_read_where_they_lie(small_shards, sets, tiny_dvae, tmp_path):
    encoded = cache(tmp_path / "codes", tiny_dvae, sets["parquet"]).dataset(Accelerator())
    mapped = MappedCodes(encoded)
    assert not any(codes.flags.owndata or codes.flags.writeable for codes in mapped.codes)
    for i in (0, 15, 16, 94):
        parts, codes = mapped.row(i)
        assert codes.dtype == torch.long and codes.tolist() == encoded[i]["codes"]
        assert parts == json.loads(encoded[i]["parts"])


@pytest.mark.slow
def test_two_processes_that_are_killed_leave_whole_shards_and_a_restart_makes_the_others(sets, tiny_dvae, tmp_path):
    tiny_dvae.save_pretrained(tmp_path / "run" / "dvae")
    preset = tmp_path / "preset.yaml"
    preset.write_text(f"output_dir: {tmp_path / 'run'}\ndata: {{path: {sets['tar']}}}\n")
    command = ["encode_shards.py", str(preset)]
    folder = tmp_path / "run" / "codes" / "train"
    launcher = subprocess.Popen(launch(*command), env=os.environ | ENVIRONMENT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(there := list(folder.glob("codes-*.parquet"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    for file in tmp_path.glob("pid-*"):  # each process leaves its own
        os.kill(int(file.name.removeprefix("pid-")), signal.SIGKILL)
        file.unlink()
    assert launcher.wait(timeout=60) != 0
    assert 3 <= len(there) < 12
    first = {path: path.stat().st_mtime_ns for path in there}
    run_processes(*command)
    shards = sorted(folder.glob("codes-*.parquet"))
    assert len(shards) == 12 and all(path.stat().st_mtime_ns == time for path, time in first.items())
    data = DataArguments(path=sets["tar"])
    alone = CodeCache(tmp_path / "alone", tiny_dvae, Contents(load_split(data, "train"), data, 16))
    alone.fill(Accelerator())
    assert pq.read_table(shards).to_pylist() == pq.read_table(alone.shards).to_pylist()


def test_workers_of_a_process_that_is_killed_end_too(tiny_dvae, tmp_path):
    """Captions fill the pipe to the process, which a worker would wait for."""
    tiny_dvae.save_pretrained(tmp_path / "run" / "dvae")
    images = [{"bytes": broken_sets.row(0)[0] + bytes([i]), "path": None} for i in range(64)]
    table = pa.table({"image": images, "text": ["x" * 100_000] * 64})
    pq.write_table(table, tmp_path / "train.parquet")
    preset = f"output_dir: {tmp_path / 'run'}\ndata: {{path: {tmp_path / 'train.parquet'}}}\n"
    (tmp_path / "preset.yaml").write_text(preset)
    command = [sys.executable, str(ROOT / "tests/support/encode_shards.py"), str(tmp_path / "preset.yaml")]
    command += ["--training.num_workers", "2"]
    process = psutil.Popen(command, env=os.environ | ENVIRONMENT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run" / "codes" / "train").glob("*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = process.children()
    process.kill()
    process.wait()
    assert len(workers) == 2
    assert psutil.wait_procs(workers, timeout=30)[1] == []


@pytest.mark.parametrize("kind", ["scenes", "broken"])
def test_workers_write_the_shards_that_none_would(kind, small_shards, sets, tiny_dvae, tmp_path, monkeypatch):
    monkeypatch.setattr(views, "CHUNK", 6)  # several chunks a shard, those of different shards mixed
    data = DataArguments() if kind == "scenes" else DataArguments(path=sets["parquet"], validation_split="train")
    source = load_split(data, "train", KINDS).select(range(100))
    settings = {"scenes": 60} if kind == "scenes" else {"views": Views(flips=True)}
    shards, draws = {}, torch.get_rng_state()
    for workers in (0, 3):
        made = CodeCache(tmp_path / str(workers), tiny_dvae, Contents(source, data, 16, **settings))
        made.fill(Accelerator(), num_workers=workers)
        assert torch.equal(torch.get_rng_state(), draws), "a training draws the same, with codes there or not"
        shards[workers] = [pq.read_table(path) for path in made.shards]
    assert all(one.equals(other, check_metadata=True) for one, other in zip(*shards.values(), strict=True))
    rows = pa.concat_tables(shards[3]).to_pydict()
    assert (len(rows["row"]), sum(rows["composed"])) == ((160, 60) if kind == "scenes" else (190, 0))


def test_codes_of_scenes_that_were_drawn_otherwise_are_refused(tiny_dvae, tmp_path, monkeypatch):
    data = DataArguments()
    source = load_split(data, "validation", KINDS)
    before = CodeCache(tmp_path, tiny_dvae, Contents(source, data, 16, scenes=4)).settings()
    monkeypatch.setattr(NamedCutouts, "version", -1)
    after = CodeCache(tmp_path, tiny_dvae, Contents(source, data, 16, scenes=4)).settings()
    assert {name for name in before if before[name] != after[name]} == {"layout"}
    assert CodeCache(tmp_path, tiny_dvae, Contents(source, data, 16)).settings()["layout"] == 0


def test_of_no_picture_there_are_no_codes():
    """As of a shard's rest: also of a first stage that folds pixels into channels, which makes nothing of nothing."""
    dvae = DVAE(DVAEConfig(image_size=16, downsample_factor=4, widths=[8] * 3, resampling="shuffle", codebook_size=8))
    assert code_cache.encode(dvae, torch.empty(0, 3, 16, 16, dtype=torch.uint8), torch.device("cpu")).shape == (0, 16)
