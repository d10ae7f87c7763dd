"""`python -m pipelines`: pictures that say what made them, one clear line for each mistake, exit code 2."""

import copy
import io
import json
import subprocess
import sys
from pathlib import Path

import broken_sets
import pytest
import torch
from messages import holds
from PIL import Image
from processes import ROOT

from pipelines import TextToImagePipeline
from pipelines.__main__ import main
from pipelines.pictures import free_path, make_grid, slug


@pytest.fixture
def run(tiny_folder, tmp_path, monkeypatch, capsys):
    """Runs the command line in an empty folder with the tiny model -> exit code, lines of stdout, lines of stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: str, model: str = tiny_folder):
        code = main([*argv, "--model", model])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


def test_pictures_say_what_made_them(run, tiny_folder):
    code, paths, errors = run(
        "an armchair", "a red apple", "--num", "2", "--seed", "5", "--top-p", "0.9", "--out", "new/pictures"
    )
    assert (code, errors) == (0, [])
    names = ["an-armchair-seed5", "an-armchair-seed6", "a-red-apple-seed5", "a-red-apple-seed6"]
    assert paths == [f"new/pictures/{name}.png" for name in names]
    with Image.open(paths[1]) as image:
        assert image.size == (16, 16)
        text = image.text
    sampling = json.loads(text["sampling"])
    assert sampling == {
        "temperature": 1.0,
        "top_k": 20,
        "top_p": 0.9,
        "min_p": 0.0,
        "guidance_scale": 2.0,
        "guidance_region": None,
    }
    assert (text["prompt"], text["seed"], text["model"]) == ("an armchair", "6", Path(tiny_folder).name)
    pipeline = TextToImagePipeline.from_pretrained(tiny_folder)
    again = pipeline(text["prompt"], seed=int(text["seed"]), **sampling, progress_bar=False).images[0]
    assert again.tobytes() == Image.open(paths[1]).tobytes()


def test_the_best_of_several_says_its_own_seed(run, tiny_pipeline):
    argv = ["an armchair", "--seed", "5", "--temperature", "1,0.5", "--guidance-region", "0,0,4,2"]
    code, (path,), errors = run(*argv, "--best-of", "4", "--negative-prompt", "a red apple", "--min-p", "0.01")
    assert (code, errors) == (0, [])
    options = {"temperature": [1, 0.5], "guidance_region": [0, 0, 4, 2], "negative_prompt": "a red apple"}
    expected = tiny_pipeline("an armchair", seed=5, best_of=4, min_p=0.01, **options, progress_bar=False)
    with Image.open(path) as image:
        assert image.tobytes() == expected.images[0].tobytes()
        assert image.text["seed"] == str(expected.seeds[0])
        assert image.text["negative_prompt"] == "a red apple"
        assert json.loads(image.text["sampling"])["temperature"] == [1, 0.5]


@pytest.mark.parametrize(
    ("argv", "method", "options"),
    [
        ([], "complete", {}),
        (["--rows", "3"], "complete", {"rows": 3}),
        (["--mask", "mask.png"], "inpaint", {}),
        (["--strength", "0.3"], "vary", {"strength": 0.3}),
    ],
)
def test_from_a_given_picture(run, tiny_pipeline, argv, method, options):
    image, mask = Image.new("RGB", (24, 20), "red"), Image.new("L", (24, 20))
    mask.paste(255, (0, 0, 12, 20))
    image.save("in.png")
    mask.save("mask.png")
    if method == "inpaint":
        options = {"mask": mask}
    for prompts in (["an armchair"], []):
        code, (path,), errors = run(*prompts, "--image", "in.png", *argv, "--seed", "1", "--out", "out.png")
        assert (code, errors) == (0, [])
        prompt = prompts[0] if prompts else ""
        output = getattr(tiny_pipeline, method)(image=image, prompt=prompt, seed=1, progress_bar=False, **options)
        with Image.open(path) as painted:
            assert painted.tobytes() == output.images[0].tobytes()
            assert (painted.text["prompt"], painted.text["image"]) == (prompt, "in.png")
            assert [painted.text[flag.strip("-")] for flag in argv[:1]] == argv[1:]


def test_on_a_device_and_in_a_dtype(run, tiny_pipeline):
    code, (path,), errors = run(
        "an armchair", "--seed", "1", "--device", "cpu", "--dtype", "bfloat16", "--out", "a.png"
    )
    assert (code, errors) == (0, [])
    half = copy.deepcopy(tiny_pipeline).to(torch.bfloat16)
    with Image.open(path) as image:
        assert image.tobytes() == half("an armchair", seed=1, progress_bar=False).images[0].tobytes()
        assert image.text["dtype"] == "bfloat16"
    code, printed, errors = run("an armchair", "--device", "abacus")
    assert (code, printed) == (2, []) and holds(errors[0], "--device", "abacus", "cpu")


def test_without_a_seed_the_file_names_it(run):
    _, (path,), _ = run("an armchair")
    with Image.open(path) as image:
        assert path == f"an-armchair-seed{image.text['seed']}.png"


def test_a_made_up_name_is_never_written_over(run):
    _, first, _ = run("an armchair", "--seed", "0")
    _, second, _ = run("an armchair", "--seed", "0", "--temperature", "0")
    assert (first, second) == (["an-armchair-seed0.png"], ["an-armchair-seed0-2.png"])
    assert free_path(Path("."), "an-armchair-seed0") == Path("an-armchair-seed0-3.png")


def test_a_named_file_is_written_over(run):
    for seed in ("0", "1"):
        code, paths, _ = run("an armchair", "--seed", seed, "--out", "chair.png")
        assert (code, paths) == (0, ["chair.png"])
    with Image.open("chair.png") as image:
        assert image.text["seed"] == "1"


def test_grid_is_one_sheet_a_row_a_prompt(run):
    code, paths, _ = run("an armchair", "a red apple", "--num", "3", "--seed", "0", "--grid", "--out", "sheet.png")
    assert (code, paths) == (0, ["sheet.png"])
    _, singles, _ = run("a red apple", "--seed", "1")
    with Image.open("sheet.png") as sheet, Image.open(singles[0]) as single:
        assert sheet.size == (48, 32)
        assert json.loads(sheet.text["prompt"]) == ["an armchair"] * 3 + ["a red apple"] * 3
        assert json.loads(sheet.text["seed"]) == [0, 1, 2, 0, 1, 2]
        difference = max(
            abs(a - b) for a, b in zip(sheet.crop((16, 16, 32, 32)).tobytes(), single.tobytes(), strict=True)
        )
    assert difference <= 1  # rounding
    run("an armchair", "an armchair", "--num", "3", "--grid", "--out", "same.png")
    with Image.open("same.png") as sheet:
        assert sheet.size == (48, 32)
    _, paths, _ = run("an armchair", "--num", "10", "--seed", "0", "--grid")
    assert paths == ["an-armchair-seed0-grid.png"]
    with Image.open(paths[0]) as sheet:
        assert sheet.size == (8 * 16, 2 * 16)


def test_grid_order():
    images = [Image.new("RGB", (1, 1), (i, 0, 0)) for i in range(5)]
    sheet = make_grid(images, columns=2)
    assert [sheet.getpixel((i % 2, i // 2))[0] for i in range(6)] == [0, 1, 2, 3, 4, 255]


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("an armchair shaped like an avocado", "an-armchair-shaped-like-an-avocado"),
        ("  A/../b: c_d\n", "a-b-c-d"),
        ("アボカド 肘掛け椅子", "アボカド-肘掛け椅子"),
        ("🥑", "picture"),
        ("x" * 300, "x" * 50),
    ],
)
def test_slug(prompt, name):
    assert slug(prompt) == name


def test_any_script_in_the_metadata(run):
    with Image.open(run("アボカド", "--seed", "0")[1][0]) as image:
        assert image.text["prompt"] == "アボカド"


def test_a_console_of_few_letters_shows_the_rest_as_escapes(tiny_folder, tmp_path, monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr("sys.stdout", console)
    assert main(["アボカド", "--seed", "0", "--model", tiny_folder, "--out", str(tmp_path)]) == 0
    console.flush()
    assert b"\\u30a2\\u30dc" in console.buffer.getvalue()


def test_a_long_prompt_is_one_line_of_warning(run):
    code, paths, errors = run("a small sailboat above a large avocado beside one fire engine", "--seed", "0")
    assert (code, len(paths), len(errors)) == (0, 1, 1)
    assert errors[0].startswith("warning: ")
    assert holds(errors[0], "fire engine")


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        ([], ["prompt=[]"]),
        ([""], ["prompt", 0, "''"]),
        (["a cat", " "], ["prompt", 1, "' '"]),
        (["a cat", "--num", "0"], ["num_images_per_prompt=0", 1]),
        (["a cat", "--seed", "-1"], ["seed=-1", "2^63"]),
        (["a cat", "--temperature", "-1"], ["temperature=-1.0", 0]),
        (["a cat", "--top-k", "33"], ["top_k=33", 32]),
        (["a cat", "--top-p", "1.5"], ["top_p=1.5", 1]),
        (["a cat", "--guidance-scale", "nan"], ["guidance_scale=nan"]),
        (["a cat", "--num", "2", "--out", "one.png"], ["one.png", 2, "--grid"]),
        (["a cat", "--out", "notes.txt"], ["notes.txt", ".png"]),
        (["a cat", "--out", "new/cat.JPG"], ["cat.JPG", ".jpg", ".png"]),
        (["a cat", "--min-p", "2"], ["min_p=2.0", 1]),
        (["a cat", "--guidance-region", "0,0,9,9"], ["guidance_region", "0, 0, 9, 9", "4×4"]),
        (["caf\udcff"], ["prompt", 0, "UTF-8", r"'caf\udcff'"]),
        (["a cat", "--guidance-region", "0,0"], ["guidance_region", "0, 0", 4]),
        (["a cat", "--best-of", "0"], ["best_of=0", 1]),
        (["a cat", "--best-of", "2", "--reranker", "/no/such"], ["'/no/such'", "CLIP", "'likelihood'"]),
        (["a cat", "--negative-prompt", "a dog", "--guidance-scale", "1"], ["'a dog'", "guidance_scale=1"]),
        (["a cat", "--image", "none.png"], ["none.png"]),
        (["a cat", "--image", "notes.txt"], ["notes.txt"]),
        (["a cat", "--mask", "notes.txt"], ["--mask", "--image"]),
        (["a cat", "--image", "notes.txt", "--rows", "1", "--strength", "1"], ["--rows", "--strength"]),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(run, argv, parts):
    Path("notes.txt").write_text("no folder")
    code, out, errors = run(*argv)
    assert (code, out, len(errors)) == (2, [], 1)
    assert errors[0].startswith("error: ")
    assert holds(errors[0], *parts)
    assert not list(Path(".").rglob("*.png"))


@pytest.mark.parametrize(("kind", "reason"), [("bomb", "too large"), ("eps", "undecodable"), ("half", "undecodable")])
@pytest.mark.parametrize("flag", ["--image", "--mask"])
def test_a_file_that_is_no_picture_to_be_used_is_one_line(run, kind, reason, flag):
    Image.new("RGB", (16, 16)).save("whole.png")
    Image.new("RGB", (16, 16)).save("drawing.eps")
    written = {"bomb": broken_sets.bomb(), "eps": Path("drawing.eps").read_bytes()}
    Path("given.png").write_bytes(written.get(kind, Path("whole.png").read_bytes()[:50]))
    files = ["--image", "given.png"] if flag == "--image" else ["--image", "whole.png", "--mask", "given.png"]
    code, out, errors = run("a cat", *files)
    assert (code, out, len(errors)) == (2, [], 1)
    assert holds(errors[0], "given.png", reason, "PNG")


def test_malformed_metadata_and_palettes_are_painted_from(run):
    """A JPEG whose EXIF is none, and a mask of a palette with transparency."""
    Image.new("RGB", (16, 16), "red").save("in.jpg")
    data, body = Path("in.jpg").read_bytes(), b"Exif\0\0no TIFF header"
    Path("in.jpg").write_bytes(data[:2] + b"\xff\xe1" + bytes([0, len(body) + 2]) + body + data[2:])
    mask = Image.new("P", (16, 16), 1)
    mask.putpalette([0, 0, 0, 255, 255, 255])
    mask.paste(0, (0, 0, 16, 8))
    mask.save("mask.png", transparency=0)
    for argv in ([], ["--mask", "mask.png"], ["--strength", "0.5"]):
        code, paths, errors = run("an armchair", "--image", "in.jpg", *argv)
        assert (code, len(paths), errors) == (0, 1, [])


def test_no_path_of_this_machine_goes_into_a_picture(run, tmp_path, tiny_folder):
    (tmp_path / "private").mkdir()
    image, mask = Image.new("RGB", (16, 16)), Image.new("L", (16, 16), 255)
    image.save(tmp_path / "private" / "in.png")
    mask.save(tmp_path / "private" / "mask.png")
    files = ["--image", str(tmp_path / "private" / "in.png"), "--mask", str(tmp_path / "private" / "mask.png")]
    _, (path,), _ = run("an armchair", *files, "--out", str(tmp_path / "private" / "out.png"))
    with Image.open(path) as painted:
        told = painted.text
    assert (told["image"], told["mask"], told["model"]) == ("in.png", "mask.png", Path(tiny_folder).name)
    assert not any(str(tmp_path.parent) in value or tiny_folder in value for value in told.values())


@pytest.mark.parametrize("model", ["/no/such/folder", "no-such-folder", ".", "nobody/none"])
def test_a_wrong_model_is_one_line_and_exit_code_2(run, model, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, out, errors = run("a cat", model=model)
    assert (code, out, len(errors)) == (2, [], 1)
    assert holds(errors[0], repr(model), "save_pretrained")


@pytest.mark.parametrize("argv", [["a cat", "--num", "many"], ["a cat", "--temprature", "1"], ["a cat", "--seed"]])
def test_a_wrong_option_is_one_line_and_exit_code_2(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    out, err = capsys.readouterr()
    assert (stop.value.code, out, err.count("\n")) == (2, "", 1)
    assert holds(err, argv[1], "--help")


@pytest.mark.parametrize("argv", [[], ["--help"]])
def test_without_arguments_it_explains_itself(argv):
    """As a process, without torch: the help comes at once."""
    code = "import sys, runpy; sys.modules['torch'] = None; runpy.run_module('pipelines', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code, *argv], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert holds(done.stdout, "PROMPT", "--num", "--seed", "--out", "--grid", "--model", "--guidance-scale")


def test_as_a_process(tiny_folder, tmp_path):
    """The whole way, as a user starts it."""
    argv = ["an armchair", "--seed", "0", "--model", tiny_folder, "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "pipelines", *argv], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == str(tmp_path / "an-armchair-seed0.png")
    done = subprocess.run([sys.executable, "-m", "pipelines", ""], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(("flag", "meant"), [("--see", "--seed"), ("--guidance_scale", "--guidance-scale")])
def test_a_part_of_a_flag_is_none_and_the_nearest_is_named(flag, meant, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["an armchair", flag, "3"])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and holds(said, flag, meant) and said.count("\n") == 1
