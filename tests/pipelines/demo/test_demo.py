"""The page's work without a browser: what is kept can be painted again, what is refused is said; a Space is whole."""

import json
import re
import tomllib
from pathlib import Path

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
    from pipelines.demo.page import build_page, launch_options
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


def contents(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_the_embedded_model_goes_along(tmp_path):
    gather(tmp_path / "space")
    assert (tmp_path / "space" / "model" / "model_index.json").is_file()
    assert not (tmp_path / "space" / "pipelines" / "embedded").exists()
