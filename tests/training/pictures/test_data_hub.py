"""A set on the Hub, with a server on loopback: downloaded and found again offline, or read where it lies."""

import json
import os
import subprocess
import sys
from pathlib import Path

import broken_sets
import pytest
from hub_server import Hub
from hub_store import File
from processes import ROOT

READ = """
import json
from training.pictures.in_memory import Pictures
from training.pictures.splits import load_split
from training.pictures.data_arguments import DataArguments
data = DataArguments(path="anna/squares", streaming={streaming})
source = load_split(data, "train")
pictures = Pictures(source, data, 16)
print(json.dumps([source.readers[0].path, [parts["text"] for parts in pictures.parts]]))
"""


def read(endpoint: str, home: Path, streaming: bool, **more: str) -> tuple[str, list[str]]:
    """In a process of its own, which knows the Hub by its environment: the first file, and the captions."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **more}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-c", READ.format(streaming=streaming)]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return tuple(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_a_set_on_the_hub_is_downloaded_once_or_streamed(tmp_path):
    broken_sets.write("parquet", tmp_path / "set")
    with Hub(users={"hf_anna": "anna"}) as hub:
        repo = hub.store.create("anna", {"name": "squares", "type": "dataset"}) and hub.store.repos
        tree = {path.name: File(path.read_bytes(), large=False) for path in (tmp_path / "set").iterdir()}
        repo["dataset", "anna/squares"].commit("main", tree)
        downloaded, captions = read(hub.endpoint, tmp_path, streaming=False)
        lies, streamed = read(hub.endpoint, tmp_path, streaming=True)
    offline, again = read(hub.endpoint, tmp_path, streaming=False, HF_HUB_OFFLINE="1")
    assert lies.startswith("hf://datasets/anna/squares@") and downloaded == offline
    assert captions == streamed == again and len(captions) == 90
    assert not hub.unknown
