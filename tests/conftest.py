"""
Tiny real components, made once a session: tests must not change them (copy.deepcopy what is to be changed).

And `--seeds`: tests of what a training comes to, marked `seeds(n)`, run on n seeds, or on as many as one asks for.
"""

import re
from collections import defaultdict
from collections.abc import Iterator

import pytest
import torch
from hub_server import Hub
from small_priors import make_tiny_prior

from dvae import DVAE, DVAEConfig, DVAEImageProcessor
from pipelines import TextToImagePipeline
from prior_transformer import LlamaPrior, PriorTokenizer, PriorTransformer, StreamPrior

CAPTIONS = [
    "an armchair shaped like an avocado",
    "a red apple",
    "two cats side by side",
    "a small sailboat above a large fire engine",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seeds", type=int, help="seeds of each test that is marked `seeds`, and the range of its figures"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if marker := metafunc.definition.get_closest_marker("seeds"):
        seeds = range(metafunc.config.getoption("seeds") or marker.args[0])
        metafunc.parametrize("seed", seeds, ids=[f"seed{seed}" for seed in seeds], scope="module")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Under `--seeds`: the lowest and highest of each figure that a test recorded, over its seeds."""
    if not terminalreporter.config.getoption("seeds"):
        return
    figures = defaultdict(list)
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties if report.when == "call" else ():
                figures[re.sub(r"-?seed\d+", "", report.nodeid).removesuffix("[]"), name].append(value)
    terminalreporter.section("figures: lowest and highest over the seeds")
    for (test, name), values in figures.items():
        terminalreporter.write_line(f"{test}: {name} {min(values):.4f} {max(values):.4f} ({len(values)})")


@pytest.fixture(scope="session")
def tiny_dvae() -> DVAE:
    """16×16 pixels, a 4×4 grid, 32 codes."""
    torch.manual_seed(0)
    config = DVAEConfig(
        image_size=16, downsample_factor=4, codebook_size=32, codebook_dim=8, widths=[8, 8, 8], blocks_per_group=1
    )
    return DVAE(config).eval()


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PriorTokenizer:
    """6 text tokens a caption."""
    return PriorTokenizer.train(CAPTIONS, vocab_size=300, text_length=6)


@pytest.fixture(scope="session")
def tiny_prior(tiny_tokenizer: PriorTokenizer) -> PriorTransformer:
    return make_tiny_prior(len(tiny_tokenizer))


@pytest.fixture(scope="session")
def tiny_llama_prior(tiny_tokenizer: PriorTokenizer) -> LlamaPrior:
    """The same sizes, in which two heads of queries share one of keys and values."""
    return make_tiny_prior(len(tiny_tokenizer), model_type="llama_prior", rope="grid", num_key_value_heads=1)


@pytest.fixture(params=["tiny_prior", "tiny_llama_prior"])
def any_prior(request) -> StreamPrior:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def tiny_pipeline(tiny_dvae, tiny_prior, tiny_tokenizer) -> TextToImagePipeline:
    """All of them; its own settings are not the neutral ones."""
    return TextToImagePipeline(
        tiny_dvae,
        tiny_prior,
        tiny_tokenizer,
        DVAEImageProcessor(size=16),
        sampling={"guidance_scale": 2.0, "top_k": 20},
        metrics={"dVAE": {"PSNR, dB": 21.5}, "prior": {"nats per code": 3.25}},
        recipe={"dVAE": {"steps": 5800, "lr": 7e-4}, "prior": {"steps": 6500}},
        data={"emoji-datasource-google 15.1.2": "Apache-2.0"},
        license="cc-by-4.0",
    )


@pytest.fixture
def any_pipeline(tiny_pipeline, any_prior) -> TextToImagePipeline:
    """The tiny pipeline with each of the priors."""
    sampling = {"guidance_scale": 2.0, "top_k": 20}
    return TextToImagePipeline(**tiny_pipeline.components | {"prior": any_prior}, sampling=sampling)


@pytest.fixture(scope="session")
def tiny_folder(tiny_pipeline, tmp_path_factory) -> str:
    """The tiny pipeline, saved."""
    folder = tmp_path_factory.mktemp("pipeline")
    tiny_pipeline.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def hub(monkeypatch) -> Iterator[Hub]:
    """A Hub that this process's client speaks to; whatever it asked, the server knew."""
    with Hub(users={"hf_anna": "anna", "hf_bert": "bert"}) as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # made anew, for this endpoint
        yield hub
        assert hub.unknown == []
