"""`python -m pipelines serve`: the process, from its start to its stop, and one clear line for each mistake."""

import concurrent.futures
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import openai
import pytest
import torch
from messages import holds, refused
from processes import ROOT
from running_server import client_of, until

from pipelines.__main__ import main
from pipelines.commands import load
from pipelines.serving import command
from pipelines.serving.command import bind, build_parser, find_key, model_name


def test_the_process_paints_and_stops_when_it_has_finished(tiny_folder, tiny_pipeline):
    """Stopped while pictures wait: they are painted, what comes later is refused, the exit code is 0; and no answer
    has a line in the log where none is wanted.
    """
    argv = ["serve", "--model", tiny_folder, "--port", "0", "--max-batch", "1", "--max-n", "20", "--no-access-log"]
    server = subprocess.Popen(
        [sys.executable, "-m", "pipelines", *argv],
        cwd=ROOT,
        env={**os.environ, "ARMCHAIR_API_KEY": "key"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        words = server.stdout.readline().split()
        assert Path(tiny_folder).name in words
        [address] = [word for word in words if word.startswith("http://")]
        with client_of(address.removesuffix("/v1"), "key") as client, concurrent.futures.ThreadPoolExecutor(1) as pool:
            assert [model.id for model in client.models.list()] == [Path(tiny_folder).name]
            stream = client.images.generate(prompt="a red apple", stream=True, partial_images=1)
            next(stream)
            accepted = pool.submit(client.images.generate, prompt="a red apple", n=20, extra_body={"seed": 0})
            health = client.with_options(base_url=address.removesuffix("v1"))
            until(lambda: health.get("/health", cast_to=object)["waiting"] > 0)
            server.send_signal(signal.SIGTERM)
            assert len(accepted.result().data) == 20
            assert [event.type for event in stream] == ["image_generation.completed"]
        assert server.wait(timeout=30) == 0
        with client_of(address) as late, pytest.raises(openai.APIConnectionError):
            late.images.generate(prompt="a red apple")
    finally:
        server.kill()
        said, log = server.communicate()
    assert said == "" and "Traceback" not in log


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--model", "/no/such/folder"], ["/no/such/folder", "save_pretrained"]),
        (["--max-batch", "0"], ["max_batch=0", 1]),
        (["--max-queue", "5"], ["max_queue=5", "max_n=10"]),
        (["--timeout", "nan"], ["timeout=nan"]),
        (["--body-timeout", "0"], ["body_timeout=0.0"]),
        (["--batch-wait", "500"], ["batch_wait=500.0", "timeout=120.0"]),
        (["--port", "70000"], [70000, "--port"]),
        (["--host", "256.0.0.1"], ["256.0.0.1", "--host"]),
        (["--device", "abacus"], ["--device", "abacus", "cpu"]),
        (["--api-key", " "], ["--api-key", "ARMCHAIR_API_KEY"]),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(argv, parts, tiny_folder, capsys):
    assert main(["serve", "--model", tiny_folder, *argv]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert holds(err, *parts)


def test_a_broken_model_is_one_line(tiny_folder, tmp_path, capsys):
    shutil.copytree(tiny_folder, tmp_path / "broken")
    (tmp_path / "broken/prior/model.safetensors").write_bytes(b"broken")
    assert main(["serve", "--model", str(tmp_path / "broken"), "--port", "0"]) == 2
    assert holds(capsys.readouterr().err, tmp_path / "broken/prior", "PriorTransformer")


def test_the_weights_that_were_asked_for(tiny_folder):
    args = build_parser().parse_args(["--dtype", "bfloat16"])
    pipeline = load(Path(tiny_folder), args.device, args.dtype)
    assert (pipeline.dtype, pipeline.dvae.dtype, pipeline.quantized) == (torch.bfloat16, torch.bfloat16, None)


def test_a_port_in_use_is_one_line(tiny_folder, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--model", tiny_folder, "--port", port]) == 2
    assert holds(capsys.readouterr().err, port)


def test_a_port_taken_while_the_model_loads_is_one_line(tiny_folder, tiny_pipeline, capsys, monkeypatch):
    """Of two servers started together both hold the port, and the first that is ready listens."""
    with bind("127.0.0.1", 0) as other:
        port = str(other.getsockname()[1])
        monkeypatch.setattr(command, "load", lambda *args: other.listen() or tiny_pipeline)
        monkeypatch.setattr(signal, "signal", lambda *args: signal.SIG_DFL)  # pytest's own handlers stay
        assert main(["serve", "--model", tiny_folder, "--port", port]) == 2
    out, err = capsys.readouterr()
    assert (out, "Traceback" in err) == ("", False)
    last = err.splitlines()[-1]
    assert last.startswith("error: ") and holds(last, f"127.0.0.1:{port}", "--port")


def test_a_key_is_without_the_white_space_around_it(monkeypatch):
    monkeypatch.setenv("ARMCHAIR_API_KEY", "a secret\n")
    assert find_key(None) == "a secret"
    assert find_key("\tother ") == "other"


@pytest.mark.parametrize("key", ["schlüssel", "one\nother"])
def test_a_key_that_no_client_can_send_is_refused_and_not_told(key):
    with refused(ValueError, "ASCII") as error:
        find_key(key)
    assert key not in str(error.value)


def test_a_missing_extra_says_what_to_install(tiny_folder):
    """And help needs neither it nor torch."""
    code = (
        "import sys, runpy; sys.modules.update(dict.fromkeys(['fastapi', 'torch'])); "
        "runpy.run_module('pipelines', run_name='__main__')"
    )
    run = [sys.executable, "-c", code, "serve"]
    done = subprocess.run([*run, "--model", tiny_folder], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "pip install 'armchair[serve]'" in done.stderr
    done = subprocess.run([*run, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert holds(done.stdout, "--max-queue", "127.0.0.1", "ARMCHAIR_API_KEY", 429, "/v1/images/generations")


def test_the_prompt_serve_can_be_painted(tiny_folder, tmp_path, capsys):
    assert main(["--model", tiny_folder, "--seed", "0", "--out", str(tmp_path), "--", "serve"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "serve-seed0.png")


def test_a_folder_does_not_show_where_it_lies(tiny_folder):
    assert model_name(tiny_folder) == Path(tiny_folder).name
    assert (model_name(None), model_name("you/your-model")) == ("armchair", "you/your-model")
