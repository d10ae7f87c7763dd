"""What is saved is what is loaded: as a folder, part by part, and on the way to the Hub. What is broken is refused."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.errors import HFValidationError
from messages import holds, refused
from PIL import Image
from safetensors.torch import load_file, save_file
from saved_files import FILES

from dvae import DVAE, DVAEImageProcessor
from pipelines import TextToImagePipeline
from pipelines.drawing.settings import SamplingSettings
from pipelines.folder.model_card import write_model_card
from prior_transformer import PriorTokenizer, PriorTransformer


def files_of(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


def paint(pipeline):
    return pipeline(["an armchair", "a red apple"], seed=0, output_type="pt", progress_bar=False)


@pytest.fixture
def folder(tiny_folder, tmp_path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


def test_saved_and_loaded_gives_the_same_pixels(tiny_pipeline, tiny_folder):
    assert files_of(tiny_folder) == FILES
    loaded = TextToImagePipeline.from_pretrained(tiny_folder)
    expected, output = paint(tiny_pipeline), paint(loaded)
    assert torch.equal(output.codes, expected.codes)
    assert torch.equal(output.images, expected.images)
    assert output.sampling == expected.sampling
    for name in ("metrics", "recipe", "data"):
        assert getattr(loaded, name) == getattr(tiny_pipeline, name)
    assert not loaded.prior.training
    assert not loaded.dvae.training


def test_the_config_says_which_prior_it_is(any_pipeline, tmp_path):
    any_pipeline.save_pretrained(tmp_path)
    loaded = TextToImagePipeline.from_pretrained(tmp_path)
    assert type(loaded.prior) is type(any_pipeline.prior)
    assert torch.equal(paint(loaded).images, paint(any_pipeline).images)
    told = json.loads((tmp_path / "prior" / "config.json").read_text())
    assert told["model_type"] == any_pipeline.prior.config.model_type
    assert any_pipeline.prior.config.summary in (tmp_path / "README.md").read_text()


def test_a_subclass_saves_what_the_class_loads(tiny_pipeline, tmp_path):
    class Own(TextToImagePipeline):
        pass

    Own(**tiny_pipeline.components).save_pretrained(tmp_path)
    assert isinstance(Own.from_pretrained(tmp_path), Own)
    assert TextToImagePipeline.from_pretrained(tmp_path).prior.num_parameters() == tiny_pipeline.prior.num_parameters()


def test_saved_twice_is_the_same(tiny_folder, tmp_path):
    TextToImagePipeline.from_pretrained(tiny_folder).save_pretrained(tmp_path)
    for name in FILES - {
        "tokenizer/tokenizer_config.json"
    }:  # transformers notes there that it was loaded from a folder
        assert (tmp_path / name).read_bytes() == (Path(tiny_folder) / name).read_bytes(), name


@pytest.mark.parametrize(
    ("part", "part_class"),
    [
        ("dvae", DVAE),
        ("prior", PriorTransformer),
        ("tokenizer", PriorTokenizer),
        ("image_processor", DVAEImageProcessor),
    ],
)
def test_each_part_loads_and_saves_alone(tiny_pipeline, tiny_folder, tmp_path, part, part_class):
    component = part_class.from_pretrained(tiny_folder, subfolder=part)
    component.save_pretrained(tmp_path)
    again = part_class.from_pretrained(tmp_path)
    assert files_of(tmp_path) == {name.split("/")[1] for name in FILES if name.startswith(f"{part}/")}
    parts = tiny_pipeline.components | {part: again}
    pipeline = TextToImagePipeline(**parts, sampling={"guidance_scale": 2.0, "top_k": 20})
    assert torch.equal(paint(pipeline).images, paint(tiny_pipeline).images)


def test_numpy_numbers_are_saved_as_pythons(tiny_pipeline, tmp_path):
    pipeline = TextToImagePipeline(
        **tiny_pipeline.components,
        sampling={"temperature": np.float32(0.5), "top_k": np.int64(7)},
        metrics={"prior": {"loss": np.float32(3.25)}},
        recipe={"steps": np.int64(7), "flip": np.bool_(True)},
    )
    pipeline.save_pretrained(tmp_path)
    loaded = TextToImagePipeline.from_pretrained(tmp_path)
    assert (loaded.metrics, loaded.recipe) == ({"prior": {"loss": 3.25}}, {"steps": 7, "flip": True})
    assert loaded.sampling == SamplingSettings(temperature=0.5, top_k=7)
    assert "| loss | 3.25 |" in write_model_card(pipeline, {"loss": np.float32(3.250001)})


def test_what_json_cannot_hold_leaves_nothing_behind(tiny_pipeline, tmp_path):
    pipeline = TextToImagePipeline(**tiny_pipeline.components, metrics={"loss": torch.ones(2)})
    with refused(TypeError, "Tensor", "model_index.json"):
        pipeline.save_pretrained(tmp_path)
    assert files_of(tmp_path) == set()


def test_samples_travel_with_the_pipeline(tiny_pipeline, tmp_path):
    samples = Image.new("RGB", (32, 16), "green")
    pipeline = TextToImagePipeline(**tiny_pipeline.components, samples=samples)
    pipeline.save_pretrained(tmp_path)
    assert files_of(tmp_path) == FILES | {"samples.png"}
    assert "](samples.png)" in (tmp_path / "README.md").read_text()
    loaded = TextToImagePipeline.from_pretrained(tmp_path)
    loaded.save_pretrained(tmp_path)  # over itself
    assert TextToImagePipeline.from_pretrained(tmp_path).samples.tobytes() == samples.tobytes()


def test_samples_that_cannot_be_read_keep_no_model_from_loading(folder):
    (folder / "samples.png").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.warns(UserWarning, match=r"samples\.png' is left out, it cannot be read"):
        assert TextToImagePipeline.from_pretrained(folder).samples is None


def test_the_card_says_what_the_pipeline_knows(tiny_pipeline, tiny_folder):
    card = ModelCard.load(Path(tiny_folder) / "README.md")
    assert card.data.license == "cc-by-4.0" and "cc-by-4.0" in card.text
    assert card.data.library_name == "armchair"
    assert card.data.language is None, "nobody knows in what language the captions are"
    assert card.data.pipeline_tag == "text-to-image"
    assert "text-to-image" in card.data.tags
    lines = card.text.splitlines()
    for row in ("| PSNR, dB | 21.5 |", "| nats per code | 3.25 |", "| guidance_scale | 2 |", "| steps | 5800 |"):
        assert row in lines
    assert "| lr | 0.0007 |" in lines and "| emoji-datasource-google 15.1.2 | Apache-2.0 |" in lines
    [dvae], [prior] = ([line for line in lines if line.startswith(f"| {part} |")] for part in ("dVAE", "prior"))
    assert holds(dvae, "gumbel") and holds(prior, 2, 16), "layers, their width"
    assert holds(card.text, "16×16", 32), "pixels, codes"
    text = write_model_card(tiny_pipeline, {"a|b": 0.123456}, repo_id="someone/armchair-emoji")
    assert text.count('from_pretrained("someone/armchair-emoji"') == 2  # with this package, and without
    assert "trust_remote_code" not in card.content  # a folder may have been moved without its code
    assert "| a\\|b | 0.1235 |" in text
    assert "PSNR" not in text
    assert yaml.safe_load(text.split("---")[1])["license"] == "cc-by-4.0"


def test_the_card_of_other_weights_is_replaced(tiny_pipeline, tmp_path):
    tiny_pipeline.save_pretrained(tmp_path)
    TextToImagePipeline(**tiny_pipeline.components, metrics={"PSNR, dB": 30.25}).save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "30.25" in card
    assert "21.5" not in card
    assert "emoji-datasource-google" not in card and "cc-by-4.0" not in card
    assert "license" not in yaml.safe_load(card.split("---")[1])


def test_a_card_that_was_edited_stays(tiny_pipeline, tmp_path):
    """However often the pipeline is saved over; one that was not is that of the weights."""
    tiny_pipeline.save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    for pictures in (21.5, 30.25):
        again = TextToImagePipeline(**tiny_pipeline.components, metrics={"PSNR, dB": pictures})
        again.save_pretrained(tmp_path)
        assert (tmp_path / "README.md").read_text() == "mine"
    (tmp_path / "README.md").unlink()
    again.save_pretrained(tmp_path)
    assert "30.25" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("name", ["README.md", "config.json", "model_index.json", "samples.png"])
def test_files_of_another_project_are_kept(tiny_pipeline, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with refused(FileExistsError, name):
        tiny_pipeline.save_pretrained(tmp_path)
    assert files_of(tmp_path) == {name} and (tmp_path / name).read_text() == "mine"


def test_the_samples_of_other_weights_are_removed(tiny_pipeline, folder):
    Image.new("RGB", (32, 16), "green").save(folder / "samples.png")
    tiny_pipeline.save_pretrained(folder)
    assert files_of(folder) == FILES


def without(name):
    return lambda folder: shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


def with_text(name, text):
    return lambda folder: (folder / name).write_text(text)


def with_a_pickle(folder):
    """Weights of the same name in a pickle that would run code if it were opened."""
    (folder / "prior" / "model.safetensors").unlink()
    (folder / "prior" / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))


def without_a_weight(folder):
    path = folder / "prior" / "model.safetensors"
    weights = load_file(path)
    save_file({name: weights[name] for name in sorted(weights)[1:]}, path, metadata={"format": "pt"})


def with_values(name, **values):
    def damage(folder):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return damage


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (without("model_index.json"), ["model_index.json"]),
        (without("prior"), ["prior"]),
        (without("tokenizer"), ["tokenizer"]),
        (without("tokenizer/tokenizer.json"), ["tokenizer", "PriorTokenizer"]),
        (without("image_processor/preprocessor_config.json"), ["image_processor", "DVAEImageProcessor"]),
        (without("dvae/config.json"), ["dvae", "armchair_dvae", "armchair_vqgan"]),
        (without("dvae/model.safetensors"), ["dvae", "DVAE"]),
        (with_text("model_index.json", "{"), ["model_index.json", "JSON"]),
        (with_text("model_index.json", "[]"), ["TextToImagePipeline"]),
        (with_text("model_index.json", '{"_class_name": "OtherPipeline"}'), ["OtherPipeline", "TextToImagePipeline"]),
        (with_text("dvae/model.safetensors", "no weights"), ["dvae", "DVAE"]),
        (with_a_pickle, ["prior", "PriorTransformer"]),
        (without_a_weight, ["prior", "missing_keys"]),
        (with_values("prior/config.json", hidden_size=32), ["prior", "PriorTransformer"]),
        (with_values("prior/config.json", hidden_size="wide"), ["prior", "hidden_size"]),
        (with_values("prior/config.json", model_type="gpt2"), ["prior", "armchair_prior, llama_prior", "gpt2"]),
        (without("prior/config.json"), ["prior", "config.json"]),
        (with_values("dvae/config.json", codebok_size=32), ["dvae", "codebok_size"]),
        (with_values("dvae/config.json", image_size=17), ["dvae", "image_size=17"]),
        (with_text("tokenizer/tokenizer.json", "{}"), ["tokenizer", "PriorTokenizer"]),
        (with_text("tokenizer/tokenizer.json", "[]"), ["tokenizer", "PriorTokenizer"]),
        (with_values("model_index.json", sampling={"tempreature": 1}), ["model_index.json", "tempreature"]),
        (with_values("model_index.json", sampling={"top_p": 2}), ["model_index.json", "top_p=2"]),
        (with_values("model_index.json", sampling=[1]), ["model_index.json", "sampling"]),
    ],
)
def test_a_broken_folder_is_refused(folder, damage, parts):
    damage(folder)
    with refused(OSError, *parts, str(folder), "save_pretrained"):
        TextToImagePipeline.from_pretrained(folder)


@pytest.mark.parametrize(
    "name", ["/no/such/folder", "no-such-folder", "./no/such", "a/b/c", "", "a b/c", "nobody--/none"]
)
def test_a_name_that_is_nothing_is_refused(name):
    with refused(FileNotFoundError, repr(name), "save_pretrained"):
        TextToImagePipeline.from_pretrained(name)


def test_an_unknown_hub_id_offline_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with refused(OSError, "'nobody/none'", "save_pretrained") as error:
        TextToImagePipeline.from_pretrained("nobody/none", cache_dir=tmp_path)
    assert "\n" not in str(error.value)
    assert not isinstance(error.value, HFValidationError)


def test_wrong_types_are_refused(tiny_folder):
    with refused(TypeError, "int", 7, "save_pretrained"):
        TextToImagePipeline.from_pretrained(7)
    with refused(TypeError, "dtype='auto'", "torch.float16"):
        TextToImagePipeline.from_pretrained(tiny_folder, dtype="auto")


@pytest.mark.parametrize("named", [{"torch_dtype": torch.float16}, {"torch_dtype": "float16"}, {"dtype": "float16"}])
def test_a_dtype_goes_by_its_older_name_and_by_its_own(tiny_folder, named):
    own = {"cache_dir": f"{tiny_folder}/cache", "local_files_only": True}  # of the Hub: a folder needs neither
    assert TextToImagePipeline.from_pretrained(tiny_folder, **named, **own).dtype == torch.float16


@pytest.mark.parametrize(
    ("argument", "remedy"),
    [({"device_map": "auto"}, ".to("), ({"variant": "fp16"}, "dtype="), ({"varient": "fp16"}, "local_files_only")],
)
def test_what_loading_does_not_take_is_answered_with_what_to_do(tiny_folder, argument, remedy):
    with refused(TypeError, next(iter(argument)), remedy):
        TextToImagePipeline.from_pretrained(tiny_folder, **argument)
