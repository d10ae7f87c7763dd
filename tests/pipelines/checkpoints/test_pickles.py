"""torch's files read without running them: as torch reads them, lazily, and nothing else that a pickle could do."""

import collections
import json
import pickle
import random
import zipfile
from argparse import Namespace

import pytest
import torch
from messages import refused
from safetensors.torch import save_file
from torch import nn

from pipelines.checkpoints.pickles import LIMIT, MAGIC, PROTOCOL, read_pickle
from pipelines.checkpoints.stored import read_safetensors

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int8,
    torch.uint8,
    torch.bool,
]


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return (torch.rand(shape, generator=generator) * 4).to(dtype)


@pytest.fixture(params=[True, False], ids=["zip", "older"])
def save(request, tmp_path):
    def to_file(value):
        path = tmp_path / "saved.pt"
        torch.save(value, path, _use_new_zipfile_serialization=request.param)
        return path

    return to_file


def same(read: torch.Tensor, saved: torch.Tensor) -> bool:
    return read.dtype == saved.dtype and read.is_contiguous() and torch.equal(read, saved)


def test_every_dtype_and_every_view_is_read_as_it_was(save):
    whole = drawn(6, 8)
    saved = {str(dtype): drawn(3, 5, dtype=dtype) for dtype in DTYPES}
    saved |= {"part": whole[2:, 1:4], "turned": whole.T, "scalar": torch.tensor(2.5), "none": torch.empty(0, 3)}
    saved |= {"parameter": nn.Parameter(drawn(4)), "one": torch.ones(1)}
    stored = read_pickle(save(saved))
    assert list(stored) == list(saved)
    for name, tensor in saved.items():
        assert stored[name].shape == tensor.shape and same(stored[name].read(), tensor.detach()), name


def test_tensors_of_trainers_and_modules_have_the_names_of_their_state_dicts(save):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Linear(4, 2, bias=False)))
    optimizer = torch.optim.AdamW(module.parameters())
    checkpoint = {"epoch": 3, "state_dict": module.state_dict(), "optimizer": optimizer.state_dict(), "args": [1.5]}
    checkpoint["settings"] = Namespace(lr=0.1, best=drawn(2))
    stored = read_pickle(save(checkpoint))
    for name, tensor in module.state_dict().items():
        assert same(stored[f"state_dict.{name}"].read(), tensor)
    assert same(stored["settings.best"].read(), drawn(2))
    assert stored.foreign["settings"] == "argparse Namespace"
    assert same(stored.under("state_dict.")["0.bias"].read(), module[0].bias.detach())
    whole = read_pickle(save(module))
    assert whole.keys() == module.state_dict().keys()
    assert all(same(whole[name].read(), tensor) for name, tensor in module.state_dict().items())


class Runs:
    """What a pickle of it does where it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_what_a_pickle_would_run_is_named_and_not_run(save, tmp_path):
    witness = tmp_path / "it-ran"
    stored = read_pickle(save({"weight": drawn(3), "hook": Runs(witness), "deep": [{"x": Runs(witness)}]}))
    assert not witness.exists()
    assert list(stored) == ["weight"]
    assert stored.foreign.keys() == {"hook", "deep.0.x"} and stored.foreign["hook"].endswith("open")
    with refused(OSError, "saved.pt", "open"):
        read_pickle(save(Runs(witness)))
    assert not witness.exists()
    torch.load(tmp_path / "saved.pt", weights_only=False).close()
    assert witness.exists(), "so the test can fail"


@pytest.mark.parametrize("protocol", range(2, 6))
def test_every_protocol_is_read(tmp_path, protocol):
    torch.save({"a": drawn(2, 3), "b": {1: drawn(4)}}, tmp_path / "saved.pt", pickle_protocol=protocol)
    stored = read_pickle(tmp_path / "saved.pt")
    assert same(stored["a"].read(), drawn(2, 3)) and same(stored["b.1"].read(), drawn(4))


PLAIN = [
    {"a": (1, -2, 2**40, 2**80), "b": [None, True, False, 1.5, "ü", b"x" * 300], (1, 2): 3},
    [[], {}, (), set(), frozenset([1]), bytearray(b"ab")],
    collections.OrderedDict(a=1),
]


@pytest.mark.parametrize("value", PLAIN, ids=["values", "containers", "ordered"])
@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_of_every_protocol_do_not_stop_it(tmp_path, value, protocol):
    """Each opcode that pickle itself writes for them; among torch's they are epochs, paths and settings."""
    path = tmp_path / "saved.pt"
    torch.save({}, path)
    rewritten(path, lambda pickled: pickle.dumps(value, protocol=protocol))
    with refused(OSError, "no tensors", "list" if isinstance(value, list) else "dict"):
        read_pickle(path)


def rewritten(path, change):
    """The zip at `path` with its pickle changed by `change`, its tensors as they are."""
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, change(content) if name.endswith("data.pkl") else content)
    return path


NESTED = b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b"."
HANDED = b"\x80\x02(" + b"N" * 100_000 + b"tq\x000" + b"ca\nb\nh\x00R0" * 20 + b"N."  # one tuple to twenty calls
STORED = b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\n%bX\x03\x00\x00\x00cpuK\x01tQ."
DEEP = STORED % (b"N" + b"\x85" * 5000)  # a storage's key within 5,000 tuples
WIDE = STORED % (b"N" + b"2\x86" * 60)  # and one of 2 to the 60th parts
LAUGHS = b"\x80\x02]q\x00" + b"".join(b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(100)) + b"."


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda pickled: pickled[:-5], ["broken"]),
        (lambda pickled: b"", ["broken"]),
        (lambda pickled: pickled + b" " * LIMIT, [LIMIT]),
        (lambda pickled: pickled.replace(b"K\x06", b"K\x07"), [28, 24]),  # bytes of its storage
        (lambda pickled: b"\x80\x02h\x05.", ["5"]),
        (lambda pickled: b"\x80\x02a.", ["broken"]),
        (lambda pickled: b"\x80\x04\x82\x01.", ["EXT1"]),
        (lambda pickled: b"\x80\x02r\xff\xff\xff\xff.", ["broken"]),  # a memo of 4 billion places
        (lambda pickled: b"\x80\x02\x8e" + b"\xff" * 7 + b"\x7f.", ["broken"]),  # 9 exabytes of bytes
        (lambda pickled: HANDED, [2**20]),
        (lambda pickled: DEEP, ["key"]),
        (lambda pickled: WIDE, ["key"]),
        (lambda pickled: b"\x80\x04))\x93.", ["text"]),  # a class named by two tuples
        (lambda pickled: NESTED, ["list"]),
        (lambda pickled: LAUGHS, ["list"]),
        (lambda pickled: b"\x80\x02]q\x00h\x00a.", ["list"]),  # a list that holds itself
    ],
)
def test_a_broken_pickle_is_refused(tmp_path, change, words):
    path = tmp_path / "saved.pt"
    torch.save({"weight": torch.arange(6.0).view(2, 3)}, path)
    rewritten(path, change)
    with refused(OSError, str(path), *words):
        read_pickle(path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older"])
def test_whichever_bytes_are_wrong_it_is_read_or_refused(tmp_path, zipped):
    """200 files, a few bytes of each changed, left out or put in; of those that are read every tensor is read."""
    path, rng = tmp_path / "saved.pt", random.Random(0)
    torch.save(
        {"state_dict": nn.Linear(3, 4).state_dict(), "module": nn.Linear(2, 2), "x": [1.5, {"a": b"c"}]},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    whole, read = path.read_bytes(), 0
    for _ in range(200):
        changed = bytearray(whole)
        for _ in range(rng.choice([1, 2, 5])):
            place, width = rng.randrange(len(changed)), rng.randrange(3)
            changed[place : place + width] = rng.randbytes(rng.randrange(3))
        path.write_bytes(changed)
        try:
            read += len([tensor.read() for tensor in read_pickle(path).values()])
        except OSError as error:
            assert str(path) in str(error)
    assert read > 0


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path):
    path = tmp_path / "saved.pt"
    torch.save({"weight": torch.ones(1).expand(1000, 1000)}, path)
    with refused(OSError, str(path), 1_000_000, 1):
        read_pickle(path)


def test_files_that_are_none_are_refused(tmp_path, save):
    path = save({"weight": drawn(50, 50)})
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not a pickle", pickle.dumps({"a": 1})):
        path.write_bytes(content)
        with refused(OSError, str(path)):
            read_pickle(path)
    path.write_bytes(whole := whole[:-50])
    told = [len(whole)] if whole.startswith(b"PK") else []
    with refused(OSError, str(path), *told):
        read_pickle(path)
    older = [MAGIC, PROTOCOL, {"little_endian": True}, {}, [[1]]]  # whose storages have keys that are none
    path.write_bytes(b"".join(map(pickle.dumps, older)))
    with refused(OSError, "storages"):
        read_pickle(path)
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("saved/data.pkl", pickle.dumps({"a": 1}))
    with refused(OSError, "compressed"):
        read_pickle(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "")
    with refused(OSError, "data.pkl", 0):
        read_pickle(path)


def test_a_tensor_is_read_when_it_is_asked_for(tmp_path):
    """The file may be larger than memory: what is not asked for is not read."""
    path = tmp_path / "saved.pt"
    torch.save({"weight": drawn(50, 50)}, path)
    stored = read_pickle(path)
    path.write_bytes(path.read_bytes()[:500])
    with refused(OSError, str(path), 10_000):
        stored["weight"].read()


def test_safetensors_are_read_alike(tmp_path):
    saved = {str(dtype): drawn(3, 5, dtype=dtype) for dtype in DTYPES} | {"none": torch.empty(0, 2)}
    save_file(saved, tmp_path / "saved.safetensors", {"format": "pt"})
    stored = read_safetensors(tmp_path / "saved.safetensors")
    assert stored.keys() == saved.keys()
    assert all(same(stored[name].read(), tensor) for name, tensor in saved.items())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 16,
        b"\x02\0\0\0\0\0\0\0[]",
        b'\x0f\0\0\0\0\0\0\0{"a": "b" "c" }',
        b"\x0a\0\0\0\0\0\0\0" + b'{"a": {}} ',
    ],
)
def test_files_that_are_no_safetensors_are_refused(tmp_path, content):
    (tmp_path / "saved.safetensors").write_bytes(content)
    with refused(OSError, "saved.safetensors"):
        read_safetensors(tmp_path / "saved.safetensors")


@pytest.mark.parametrize("read", [read_pickle, read_safetensors])
def test_a_git_lfs_pointer_is_told(tmp_path, read):
    (tmp_path / "saved").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with refused(OSError, str(tmp_path / "saved"), "git lfs pull"):
        read(tmp_path / "saved")


def long_names() -> bytes:
    """A class's name put together again and again, 8 MiB each time."""
    return b"\x80\x02X" + (2**20).to_bytes(4, "little") + b"a" * 2**20 + b"q\0" + b"h\0h\0\x93" * 2000 + b"."


def empty_states() -> bytes:
    """An object that is given the same long tuple, of nothing, a million times."""
    return b"\x80\x02(" + b"N" * 2**19 + b"tq\0ca\nb\n" + b"h\0b" * 10**6 + b"."


def long_persistent_ids() -> bytes:
    return b"\x80\x02(X\7\0\0\0storage" + b"N" * 2**19 + b"tq\0" + b"h\0Q0" * 10**6 + b"N."


@pytest.mark.parametrize("made", [long_names, empty_states, long_persistent_ids])
def test_a_small_pickle_takes_no_time_and_no_memory_without_end(made, tmp_path):
    path = tmp_path / "model.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", made())
        archive.writestr("model/byteorder", "little")
    with refused(OSError, path):
        read_pickle(path)


def test_tensors_that_share_their_bytes_are_refused(tmp_path):
    """Of one file a few would stand for a model of any size."""
    path, header = tmp_path / "model.safetensors", {}
    for i in range(3):
        header[f"w{i}"] = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    with refused(OSError, path, "overlap"):
        read_safetensors(path)
    path.write_bytes((10**5).to_bytes(8, "little") + b"[" * 10**5)
    with refused(OSError, path, "RecursionError"):
        read_safetensors(path)
