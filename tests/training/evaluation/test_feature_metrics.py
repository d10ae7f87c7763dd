"""Distances and fits in the features of another network, and the evaluation that reports them."""

import json

import numpy as np
import pytest
import torch
from messages import holds, refused
from PIL import Image
from torchvision.models import inception_v3

from dvae import VQGAN, VQGANConfig
from pipelines import TextToImagePipeline
from pipelines.judges.small_clip import SmallCLIP, SmallCLIPConfig
from training import evaluate
from training.evaluation.feature_metrics import (
    CLIPFeatures,
    InceptionFeatures,
    SmallCLIPFeatures,
    caption_fit,
    frechet_distance,
    load_extractor,
)
from training.evaluation.report import markdown


class Channels(torch.nn.Module):
    """Mean red and green: features whose Gaussians are known."""

    num_features = 2

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return pixel_values.mean(dim=(2, 3))[:, :2]


@pytest.fixture(scope="module")
def scorer(tiny_tokenizer, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("scorer")
    torch.manual_seed(0)
    tiny_tokenizer.save_pretrained(folder / "tokenizer")
    config = SmallCLIPConfig(text_vocab_size=len(tiny_tokenizer), pad_token_id=tiny_tokenizer.pad_token_id)
    SmallCLIP(config).save_pretrained(folder / "scorer")
    return str(folder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    """A random CLIP of transformers with its processor, a few thousand weights."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("clip")
    words = {word: i for i, word in enumerate(["<pad>", "<end>", "<unk>", "a", "red", "green", "blue", "square"])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", unk_token="<unk>", model_max_length=8
    )
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = sizes | {"vocab_size": 8, "max_position_embeddings": 8, "eos_token_id": 1, "pad_token_id": 0}
    vision = sizes | {"image_size": 16, "patch_size": 8}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).save_pretrained(folder)
    size = {"height": 16, "width": 16}
    CLIPProcessor(CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=size), fast).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("squares")
    with (folder / "metadata.jsonl").open("w") as metadata:
        for i in range(60):
            colour = ["red", "green", "blue"][i % 3]
            picture = np.full((16, 16, 3), 255 - i, np.uint8)
            picture[2:14, 2:14, :] = [255 * (name == colour) for name in ("red", "green", "blue")]
            Image.fromarray(picture).save(folder / f"{i}.png")
            metadata.write(json.dumps({"file_name": f"{i}.png", "text": f"a {colour} square" * (i != 7)}) + "\n")
    return str(folder)


def plain(channels: torch.Tensor) -> torch.Tensor:
    """Values (n, 3) -> plain pictures (n, 3, 8, 8)."""
    return channels[:, :, None, None].expand(-1, -1, 8, 8)


def test_the_frechet_distance_of_known_gaussians():
    """Means 0.1 apart in one feature, standard deviations of the other 0.1 and 0.05: 0.01 + 0.05²."""
    z = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = (z - z.mean(0)) / z.std(0)
    real = 0.5 + z * torch.tensor([0.1, 0.1, 0.1])
    fake = 0.5 + z * torch.tensor([0.1, 0.05, 0.1]) + torch.tensor([0.1, 0.0, 0.4])
    distance = frechet_distance(Channels(), plain(real.float()), plain(fake.float()))
    assert distance == pytest.approx(0.01 + 0.05**2, rel=1e-3)
    assert frechet_distance(Channels(), plain(real.float()), plain(real.float())) == pytest.approx(0, abs=1e-5)


def test_each_name_finds_its_extractor(scorer, clip, tmp_path):
    pixel_values = torch.rand(3, 3, 16, 16)
    own = [(scorer, SmallCLIPFeatures, 128), ("embedded", SmallCLIPFeatures, 64), (clip, CLIPFeatures, 12)]
    for name, kind, width in own:
        extractor = load_extractor(name)
        assert isinstance(extractor, kind) and extractor.num_features == width
        assert extractor(pixel_values).shape == (3, width)
        lengths = extractor.embed_text(["a red square", "a"]).norm(dim=1)
        torch.testing.assert_close(lengths, torch.ones(2))
    with refused(OSError, tmp_path, "CLIP"):
        load_extractor(str(tmp_path))


def test_a_clips_embeddings_are_its_own(clip):
    """Of a picture and a text together, as the pipeline's reranker scores them."""
    from pipelines.judges.clip import CLIPJudge

    texts = ["a red square", "green", "blue square"]
    images = [Image.new("RGB", (20, 16), colour) for colour in ("red", "green", "blue")]
    pixel_values = torch.stack([torch.tensor(np.asarray(image)).permute(2, 0, 1) / 255 for image in images])
    expected = 100 * CLIPJudge.from_pretrained(clip)(texts, images).clamp_min(0).mean().item()
    assert caption_fit(load_extractor(clip), pixel_values, texts)["score"] == pytest.approx(expected, rel=1e-4)


def test_an_evaluation_in_json_and_markdown(tiny_folder, scorer, clip, pictures, tmp_path, capsys):
    flags = {"--model": tiny_folder, "--data.path": pictures, "--features": scorer, "--clip": clip}
    flags |= {"--json": str(tmp_path / "new" / "numbers.json"), "--markdown": str(tmp_path / "numbers.md")}
    evaluate.main([part for pair in flags.items() for part in pair])
    written = json.loads((tmp_path / "new" / "numbers.json").read_text())
    numbers = written["numbers"]
    assert written["settings"]["features"] == scorer
    expected = {"psnr", "rfid", "fid", "clip_score", "real_clip_score", "r_precision", "elbo", "bits_per_dim"}
    assert expected | {"validation_text_loss", "validation_image_loss"} <= numbers.keys()
    assert numbers["rfid"] > 0 and numbers["fid"] > 0 and 0 <= numbers["r_precision"] <= 1
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert {name: float(value) for name, value in printed.items()} == pytest.approx(numbers, rel=1e-4)
    table = (tmp_path / "numbers.md").read_text()
    assert f"| psnr | {numbers['psnr']:.5g} | " in table
    assert holds(markdown({"psnr": 1.0}, {"model": None, "data": "x"}).splitlines()[0], "embedded", "x")


def test_of_a_first_stage_without_a_density_there_is_no_elbo(tiny_pipeline, pictures, tmp_path):
    sizes = {"channels": 8, "channel_multipliers": [1, 1, 2], "attention_levels": [2], "norm_groups": 4}
    widths = {"latent_channels": 8, "codebook_dim": 8, "codebook_size": 32, "blocks_per_level": 1}
    vqgan = VQGAN(VQGANConfig(image_size=16, **sizes, **widths))
    TextToImagePipeline(**tiny_pipeline.components | {"dvae": vqgan}).save_pretrained(tmp_path / "pipeline")
    told = tmp_path / "numbers.json"
    evaluate.main(["--model", str(tmp_path / "pipeline"), "--data.path", pictures, "--json", str(told)])
    numbers = json.loads(told.read_text())["numbers"]
    assert {"psnr", "validation_text_loss", "validation_image_loss"} <= numbers.keys()
    assert not any(name == "elbo" or name.startswith("surgery") for name in numbers)


def test_a_wrong_judge_is_refused_before_any_work(tiny_folder, scorer, pictures):
    with refused(ValueError, "--clip", scorer, "--features"):
        evaluate.main(["--model", tiny_folder, "--data.path", pictures, "--clip", scorer])
    with refused(ValueError, "generated=0", 2):
        evaluate.main(["--model", tiny_folder, "--data.path", pictures, "--features", scorer, "--generated", "0"])


@pytest.mark.slow
def test_torchvisions_inception_from_a_file_of_weights(tmp_path):
    """Random weights in place of the published file; the features are those that its own last layer sees."""
    torch.manual_seed(0)
    network = inception_v3(weights=None, init_weights=False, transform_input=True).eval()
    torch.save(network.state_dict(), tmp_path / "inception.pth")
    extractor = load_extractor(str(tmp_path / "inception.pth"))
    features = extractor(torch.full((2, 3, 20, 20), 0.5))
    assert features.shape == (2, 2048)
    normalised = (0.5 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    logits = network(normalised[None, :, None, None].expand(2, 3, 299, 299))
    torch.testing.assert_close(network.fc(features), logits, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_fidelitys_inception_from_a_file_of_weights(tmp_path):
    """torch-fidelity's network with random weights in place of the published file: 2,048 features of any size."""
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")

    class Unloaded(fidelity.FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict):
            """Stays random."""

    path = tmp_path / "inception.pth"
    torch.save({}, path)
    torch.manual_seed(0)
    network = Unloaded("inception", ["2048"], feature_extractor_weights_path=str(path))
    torch.save(network.state_dict(), path)
    extractor = load_extractor(str(path))
    assert isinstance(extractor, InceptionFeatures)
    pixel_values = torch.rand(2, 3, 40, 40)
    features = extractor(pixel_values)
    assert features.shape == (2, 2048)
    [expected] = network.eval()((255 * pixel_values).round().to(torch.uint8))
    torch.testing.assert_close(features, expected)
