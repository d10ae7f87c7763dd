"""--help says what each setting means, in the words of the docstrings."""

import pytest
from messages import holds

from dvae import DVAEConfig
from training.adversaries.adversary_settings import PixelSettings, PosteriorSettings, StyleSettings
from training.loop.pretrained import LoraSettings
from training.pictures.data_arguments import DataArguments
from training.presets.meanings import meanings, own_fields
from training.presets.models import MODELS
from training.presets.reading import parse
from training.presets.trainers import DVAETraining, GANTraining, PriorTraining, RerankerTraining, TokenizerTraining
from training.train_scorer import ScorerTraining

TRAINERS = {"tokenizer": TokenizerTraining, "dvae": DVAETraining, "prior": PriorTraining}
TRAINERS |= {"reranker": RerankerTraining, "gan": GANTraining, "scorer": ScorerTraining}
WITHIN = [PixelSettings, PosteriorSettings, StyleSettings, LoraSettings]
CONFIGS = [config for own in MODELS.values() for config in own]


@pytest.mark.parametrize(
    "settings", [DataArguments, *TRAINERS.values(), *WITHIN, *CONFIGS], ids=lambda it: it.__name__
)
def test_every_setting_has_a_meaning(settings):
    assert [field.name for field in own_fields(settings) if not meanings(settings).get(field.name)] == []


def test_a_meaning_goes_from_its_name_to_the_next_one():
    said = meanings(TokenizerTraining)
    assert said["vocab_size"] == "BPE tokens, pad included." and said["captions"] == "how many to learn from."
    assert meanings(PriorTraining)["crops"] == meanings(PriorTraining)["flips"] != meanings(PriorTraining)["freeze"]
    assert "float32" in meanings(DVAETraining)["mixed_precision"], "of the class that it comes from"


@pytest.mark.parametrize("section", TRAINERS)
def test_help_holds_the_meaning_of_every_flag(section, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit) as stopped:
        parse(section, TRAINERS[section], ["--help"], doc="What it does.\n\n    and how")
    shown = capsys.readouterr().out
    assert (
        stopped.value.code == 0 and "\n    and how\n" in shown and holds(shown, "--config", "--output_dir", "--model")
    )
    told = {"--data.": DataArguments, "--training.": TRAINERS[section]}
    for prefix, settings in told.items():
        for name, meaning in meanings(settings).items():
            assert holds(shown, prefix + name, meaning)
    for config, place in MODELS.get(section, {}).items():
        assert f"--{place}.KEY VALUE, of {config.__name__}" in shown
    if section == "dvae":
        assert holds(shown, "start = 0", meanings(PixelSettings)["start"], meanings(DVAEConfig)["downsample_factor"])
