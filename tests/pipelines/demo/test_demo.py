"""The page's work without a browser: what is kept can be painted again, what is refused is said; a Space is whole."""

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import HfApi, snapshot_download
from messages import holds, refused
from PIL import Image
from processes import ROOT

from pipelines import TextToImagePipeline
from pipelines.__main__ import main
from pipelines.demo.space import gather
from pipelines.demo.studio import Studio
from pipelines.demo.widgets import explained
from pipelines.folder.locate import pipeline_files


@pytest.fixture
def studio(tiny_pipeline) -> Studio:
    return Studio(tiny_pipeline, name="someone/tiny")


def test_pictures_grow_by_rows_and_the_last_is_the_calls(studio, tiny_pipeline):
    shown = list(studio.paint("a red apple", seed=3, num_images_per_prompt=2, temperature=0.7))
    assert [(now.step, now.total) for now in shown] == [(4, 16), (8, 16), (12, 16), (16, 16)]
    assert [len(now.kept) for now in shown] == [0, 0, 0, 2]
    expected = tiny_pipeline("a red apple", seed=3, num_images_per_prompt=2, temperature=0.7, progress_bar=False)
    assert [image.tobytes() for image in shown[-1].images] == [image.tobytes() for image in expected.images]


def test_a_kept_picture_says_how_to_paint_it_again(studio, tiny_pipeline):
    *_, last = studio.paint("a red apple", "two cats", seed=3, num_images_per_prompt=2, top_k=9)
    for kept in last.kept:
        with Image.open(kept.path) as picture:
            told, pixels = picture.text, np.asarray(picture).astype(int)
        assert (told["prompt"], json.loads(told["seed"]), told["model"]) == (kept.prompt, kept.seed, "someone/tiny")
        again = tiny_pipeline(
            told["prompt"],
            negative_prompt=told["negative_prompt"],
            seed=json.loads(told["seed"]),
            progress_bar=False,
            **json.loads(told["sampling"]),
        )
        assert np.abs(np.asarray(again.images[0]).astype(int) - pixels).max() <= 1  # decoded alone, not with another
    assert [kept.seed for kept in last.kept] == [3, 4]


def test_no_negative_prompt_is_none(studio, tiny_pipeline):
    *_, last = studio.paint("a red apple", "  ", seed=0, guidance_scale=1.0)
    expected = tiny_pipeline("a red apple", seed=0, guidance_scale=1.0, progress_bar=False)
    assert last.images[0].tobytes() == expected.images[0].tobytes()
    with Image.open(last.kept[0].path) as picture:
        assert "negative_prompt" not in picture.text


def test_inpainting_keeps_what_is_not_masked(studio, tiny_pipeline):
    picture = tiny_pipeline("a red apple", seed=0, progress_bar=False).images[0].resize((448, 448), 0)
    mask = Image.new("L", picture.size)
    mask.paste(255, (112, 224, 224, 336))  # the cell of row 2, column 1
    mask.paste(255, (112, 336, 224, 448))  # and the one below it
    growing, whole = studio.inpaint("a red apple", picture, mask, seed=5, best_of=2)
    assert (growing.step, growing.total, len(growing.images), growing.kept) == (10, 16, 2, [])
    (kept,) = whole.kept
    expected = tiny_pipeline.inpaint("a red apple", picture, mask, seed=5, best_of=2, progress_bar=False)
    with Image.open(kept.path) as painted:
        assert painted.tobytes() == expected.images[0].tobytes()
    changed = (expected.codes[0] != tiny_pipeline.encode_images(picture)[0]).nonzero().tolist()
    assert all(place in ([2, 1], [3, 1]) for place in changed)


def test_a_reconstruction_shows_its_codes(studio, tiny_pipeline):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    made = studio.reconstruct(picture)
    assert made.original.size == made.picture.size == (16, 16)
    codes = torch.from_numpy(made.codes)[None]
    assert tiny_pipeline.postprocess(tiny_pipeline.decode_codes(codes))[0].tobytes() == made.picture.tobytes()
    error = np.square(np.asarray(made.original, float) - np.asarray(made.picture, float)).mean()
    assert made.psnr == pytest.approx(10 * np.log10(255**2 / error))


def test_the_page_is_built_and_asks_for_no_fonts(studio):
    pytest.importorskip("gradio", minversion="6", reason="the page needs gradio: pip install 'armchair[demo]'")
    from pipelines.demo.looks import launch_options
    from pipelines.demo.page import build_page
    from pipelines.demo.picture_tabs import split_drawing, written

    labels = {block.get("props", {}).get("label") for block in build_page(studio).get_config_file()["components"]}
    assert {"Prompt", "Negative prompt", "Seed", "Pictures", "Temperature", "Guidance (1: none)", "Its seed"} <= labels
    assert "url(" not in str(launch_options()["theme"]._font_css)

    drawn = Image.new("RGBA", (8, 8))
    drawn.paste((255, 0, 0, 255), (2, 3, 4, 5))
    background, mask = split_drawing({"background": Image.new("RGB", (8, 8), "blue"), "layers": [drawn]})
    assert background.size == (8, 8)
    assert np.argwhere(np.asarray(mask)).tolist() == [[3, 2], [3, 3], [4, 2], [4, 3]]
    with pytest.raises(ValueError):
        split_drawing({"background": background, "layers": [Image.new("RGBA", (8, 8))]})
    with pytest.raises(ValueError):
        split_drawing(None)
    assert written(np.array([[1, 20], [300, 4]])) == "  1  20\n300   4"


def test_an_untouched_slider_leaves_the_models_own_schedule(tiny_pipeline):
    gradio = pytest.importorskip("gradio", minversion="6", reason="pip install 'armchair[demo]'")
    from pipelines.demo.page import build_page

    own = TextToImagePipeline(**tiny_pipeline.components, sampling={"temperature": [1.0, 0.3], "top_k": 20})
    page = build_page(Studio(own, name="tiny"))
    runs = {len(fn.inputs): fn.fn for fn in page.fns.values() if fn.name == "run"}
    run, run_editor = runs[10], runs[5]
    sliders = [1.0, 1.0, 20, 1.0, 0.0]
    for temperature, words in ((1.0, [1.0, 0.3]), (0.6, 0.6)):
        *_, (_, _, kept, *_) = run([], "a red apple", "", 3.0, 1, temperature, *sliders[1:])
        with Image.open(kept[0].path) as picture:
            sampling = json.loads(picture.text["sampling"])
        assert (sampling["temperature"], sampling["top_k"]) == (words, 20)
    with refused(gradio.Error, "seed"):
        next(run([], "a red apple", "", None, 1, *sliders))
    drawn = {"background": Image.new("RGB", (16, 16)), "layers": [Image.new("RGBA", (16, 16), "red")]}
    with refused(gradio.Error, "seed"):
        next(run_editor(drawn, "a red apple", None, 1, 1))


@pytest.mark.parametrize("kind", ["whole", "malformed EXIF", "palette", "eps", "half"])
def test_an_upload_is_read_as_everywhere_or_refused_in_words(kind, studio, tmp_path):
    """By the components themselves, before any of the page's functions; in the editor as a file and as bytes."""
    gradio = pytest.importorskip("gradio", minversion="6", reason="pip install 'armchair[demo]'")
    from gradio.components.image_editor import EditorData

    from pipelines.demo.page import build_page

    page, path, picture = build_page(studio), tmp_path / "upload.png", Image.new("RGB", (16, 16), "red")
    picture.save(tmp_path / "a.jpg")
    picture.save(tmp_path / "a.eps")
    jpeg, file = (tmp_path / "a.jpg").read_bytes(), io.BytesIO()
    picture.convert("P").save(file, "PNG", transparency=9)
    body = b"Exif\0\0no TIFF header"
    written = {
        "whole": jpeg,
        "malformed EXIF": jpeg[:2] + b"\xff\xe1" + bytes([0, len(body) + 2]) + body + jpeg[2:],
        "palette": file.getvalue(),
        "eps": (tmp_path / "a.eps").read_bytes(),
        "half": jpeg[:300],
    }
    path.write_bytes(written[kind])
    blocks = {block.elem_id: block for block in page.blocks.values() if getattr(block, "elem_id", None)}
    data = gradio.FileData(path=str(path), orig_name="upload.png")
    editors = [EditorData(background=data, layers=[], composite=None), path.read_bytes()]
    reads = [
        lambda: blocks["upload"].preprocess(data),
        lambda: blocks["editor"].preprocess(editors[0])["background"],
        lambda: blocks["editor"].convert_and_format_image(editors[1], flatten_on_white=True),
    ]
    for read in reads:
        if kind in ("eps", "half"):
            with pytest.raises(gradio.Error, match=r"no picture that can be used \(undecodable\); pass one of JPEG"):
                read()
        else:
            levels = np.asarray(read().convert("RGB"), int)
            assert levels.shape == (16, 16, 3) and np.abs(levels - (255, 0, 0)).max() < 5


def test_kept_pictures_go_an_hour_later_and_all_with_the_studio(studio):
    *_, last = studio.paint("a red apple", seed=0)
    (old,) = last.kept
    os.utime(old.path, (0, 0))
    *_, last = studio.paint("a red apple", seed=1)
    (new,) = last.kept
    studio.forget_old()
    assert not old.is_there and new.is_there and not Path(old.path).exists()
    studio.close()
    assert not studio.folder.exists()


def test_a_studio_that_is_closed_while_it_paints_leaves_nothing(studio):
    """What was to come is not painted, and its folder is not made anew to keep it."""
    shown = studio.paint("a red apple", seed=0)
    next(shown)
    assert studio.is_busy
    studio.close()
    assert list(shown) == []
    assert not studio.folder.exists() and not studio.is_busy


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_page_leaves_no_file(number, tiny_folder, tmp_path):
    """Neither its pictures nor gradio's copies of them and of uploads."""
    pytest.importorskip("gradio", minversion="6", reason="the page needs gradio: pip install 'armchair[demo]'")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "pipelines", "demo", "--model", tiny_folder, "--port", str(port)]
    environment = os.environ | {"TMPDIR": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    page = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a shell's background jobs ignore SIGINT
    )
    try:
        assert "the page is at" in page.stdout.readline()
        files = {"files": ("a.png", b"uploaded")}
        assert httpx.post(f"http://127.0.0.1:{port}/gradio_api/upload", files=files).status_code == 200
        (own,) = tmp_path.glob("armchair-page-*")
        assert [path.read_bytes() for path in own.rglob("a.png")] == [b"uploaded"]
        picture = own / "a-red-apple-seed0.png"
        picture.write_bytes(b"painted for another visitor")
        assert httpx.get(f"http://127.0.0.1:{port}/gradio_api/file={picture}").status_code == 403
        page.send_signal(number)
        assert page.wait(timeout=60) == 0
    finally:
        page.kill()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix == ".png"] and not own.exists()


def test_sliders_reach_the_models_own_settings(tiny_pipeline):
    pytest.importorskip("gradio", minversion="6", reason="the page needs gradio: pip install 'armchair[demo]'")
    from pipelines.demo.page import build_page

    sampling = {"temperature": 2.5, "guidance_scale": 12.0, "top_p": 0.005}
    page = build_page(Studio(TextToImagePipeline(**tiny_pipeline.components, sampling=sampling), name="tiny"))
    (run,) = [fn for fn in page.fns.values() if fn.name == "run" and len(fn.inputs) == 10]
    for slider in run.inputs[5:]:
        assert slider.preprocess(slider.value) == slider.value  # gradio refuses what is outside


def test_the_editor_shows_candidates_while_they_grow(studio):
    pytest.importorskip("gradio", minversion="6", reason="the page needs gradio: pip install 'armchair[demo]'")
    from pipelines.demo.page import build_page

    (run,) = [fn.fn for fn in build_page(studio).fns.values() if fn.name == "run" and len(fn.inputs) == 5]
    drawn = {"background": Image.new("RGB", (16, 16)), "layers": [Image.new("RGBA", (16, 16), "red")]}
    *grown, (gallery, state, kept) = run(drawn, "a red apple", 0.0, 2, 3)
    assert [len(gallery.value) for gallery, *_ in grown] == [6, 6, 6]
    assert [holds(words, n, 16) for (_, words, _), n in zip(grown, (4, 8, 12), strict=True)] == [True] * 3
    assert len(gallery.value) == len(kept) == 2 and holds(state, 2)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--model", "no-such-folder"], ["'no-such-folder'", "save_pretrained"]),
        (["--port", "many"], ["--port", "'many'", "python -m pipelines demo --help"]),
        (["--push-space", "you/page", "--model", "no-such-folder"], ["'no-such-folder'", "save_pretrained"]),
        (["--private"], ["--private", "--push-space"]),
    ],
)
def test_what_a_user_can_put_right_is_one_line(capsys, arguments, parts):
    try:
        code = main(["demo", *arguments])
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert holds(said, *parts)


def test_a_device_that_is_not_there_is_one_line(tiny_folder, capsys):
    pytest.importorskip("gradio", minversion="6", reason="the page needs gradio: pip install 'armchair[demo]'")
    assert main(["demo", "--model", tiny_folder, "--device", "abacus"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and holds(said, "--device", "abacus", "cpu")


def test_the_space_asks_for_what_the_project_does():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = (ROOT / "pipelines/space/requirements.txt").read_text().split("\n")
    assert wanted[:-1] == project["dependencies"]
    card = yaml.safe_load((ROOT / "pipelines/space/README.md").read_text().split("---")[1])
    assert (card["sdk"], card["app_file"]) == ("gradio", "app.py")
    least = re.fullmatch(r"gradio>=(\d+)", project["optional-dependencies"]["demo"][0])
    assert int(card["sdk_version"].split(".")[0]) >= int(least[1])


def test_a_pushed_space_is_whole(hub, tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_anna")
    assert main(["demo", "--push-space", "anna/page", "--model", tiny_folder, "--private"]) == 0
    assert capsys.readouterr().out.strip() == f"{hub.endpoint}/spaces/anna/page"
    repo = hub.store.repos["space", "anna/page"]
    assert (repo.private, repo.options["sdk"]) == (True, "gradio")
    place = Path(snapshot_download("anna/page", repo_type="space", local_dir=tmp_path / "space"))
    assert HfApi().repo_info("anna/page", repo_type="space").sha == repo.refs["main"]
    gather(tmp_path / "gathered", tiny_folder)
    pushed = contents(place)
    assert pushed == contents(tmp_path / "gathered") | {".gitattributes": pushed[".gitattributes"]}
    tops = {name.split("/")[0] for name in pushed} - {".gitattributes"}
    assert tops == {"README.md", "app.py", "requirements.txt", "dvae", "prior_transformer", "pipelines", "model"}
    assert {name.split("/")[0] for name in pushed if name.endswith(".safetensors")} == {"model"}
    assert not any("__pycache__" in name for name in pushed)


def test_a_space_holds_a_pipelines_parts_and_nothing_that_lies_beside_them(tiny_folder, tmp_path):
    model = shutil.copytree(tiny_folder, tmp_path / "model")
    for name in ("note.md", "prior/note.txt", "prior/optimizer.safetensors", "dvae/.env", "tokenizer/mine.json"):
        (model / name).write_text("private")
    names = gather(tmp_path / "space", str(model))
    pushed = contents(tmp_path / "space")
    assert set(pushed) == names and b"private" not in pushed.values()
    assert {"model/model_index.json", "model/prior/model.safetensors", "model/tokenizer/tokenizer.json"} <= names
    loaded = TextToImagePipeline.from_pretrained(tmp_path / "space" / "model")
    assert loaded.prior.num_parameters() == TextToImagePipeline.from_pretrained(model).prior.num_parameters()


def test_a_push_replaces_and_deletes_what_it_pushed_itself(hub, tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_anna")
    push = ["demo", "--push-space", "anna/page", "--model", tiny_folder]
    api = HfApi(token="hf_anna")

    def put(name: str) -> None:
        api.upload_file(path_or_fileobj=b"mine", path_in_repo=name, repo_id="anna/page", repo_type="space")

    assert main(push) == 0
    for name in ("notes/mine.md", "model/mine.txt"):
        put(name)
    with monkeypatch.context() as older:  # an older model had another shard

        def files(folder: Path) -> list[Path]:
            return [*pipeline_files(folder), folder / "old.bin"]

        older.setattr("pipelines.demo.space.pipeline_files", files)
        older_model = shutil.copytree(tiny_folder, tmp_path / "older")
        (older_model / "old.bin").write_bytes(b"old")
        assert main([*push[:-1], str(older_model)]) == 0
    assert "model/old.bin" in api.list_repo_files("anna/page", repo_type="space")
    assert main(push) == 0
    files = set(api.list_repo_files("anna/page", repo_type="space"))
    assert {"notes/mine.md", "model/mine.txt"} <= files and "model/old.bin" not in files
    api.create_repo("anna/other", repo_type="space", space_sdk="gradio")
    api.upload_file(path_or_fileobj=b"mine", path_in_repo="app.py", repo_id="anna/other", repo_type="space")
    capsys.readouterr()
    other = [*push[:2], "anna/other", *push[3:]]
    assert main(other) == 2
    assert "anna/other has 1 files that this did not push and would replace, app.py first" in capsys.readouterr().err
    assert set(api.list_repo_files("anna/other", repo_type="space")) == {".gitattributes", "app.py"}
    assert main([*other, "--overwrite"]) == 0
    api.create_repo("anna/site", repo_type="space", space_sdk="static")
    for name in ("README.md", "index.html"):
        api.upload_file(path_or_fileobj=b"mine", path_in_repo=name, repo_id="anna/site", repo_type="space")
    assert main([*push[:2], "anna/site", *push[3:]]) == 2
    assert holds(capsys.readouterr().err, "anna/site", "README.md", "--overwrite")


def contents(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_the_embedded_model_goes_along(tmp_path):
    gather(tmp_path / "space")
    assert (tmp_path / "space" / "model" / "model_index.json").is_file()
    assert not (tmp_path / "space" / "pipelines" / "embedded").exists()


def test_between_two_items_warnings_are_not_caught_for_the_page(monkeypatch):
    """What a process does meanwhile warns as ever; what is warned of inside is told with its item."""
    told, closed, own = [], [], warnings._showwarnmsg_impl
    monkeypatch.setattr("gradio.Warning", told.append)

    @explained
    def items():
        try:
            for i in range(3):
                warnings.warn(f"inside {i}", stacklevel=1)
                yield i
        finally:
            closed.append(True)

    shown = items()
    assert next(shown) == 0 and told == ["inside 0"]
    assert warnings._showwarnmsg_impl is own
    assert list(shown) == [1, 2] and told == ["inside 0", "inside 1", "inside 2"]
    shown = items()
    next(shown)
    shown.close()
    assert len(closed) == 2 and warnings._showwarnmsg_impl is own
