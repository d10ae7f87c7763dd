"""What a set costs or wants is said before a run, and where it would train nothing it does not begin."""

import json
import random
from pathlib import Path

import pytest

from training import train_dvae, train_prior, train_reranker, train_tokenizer
from training.emoji.named_cutouts import NamedCutouts
from training.loop.loop_training import LoopTraining
from training.pictures.data_arguments import DataArguments
from training.pictures.in_memory import Pictures
from training.pictures.readers import Row
from training.pictures.rows import BrokenRow
from training.pictures.splits import load_split
from training.sets import KINDS, caption

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]


def tell(pictures: Path, texts: list[str | None]) -> None:
    rows = [{"file_name": f"{i}.png", "text": text} for i, text in enumerate(texts)]
    (pictures / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_captions_that_are_cut_are_counted_before_a_run(preset, pictures, capsys):
    tell(pictures, [" ".join(WORDS[i % 5 :]) if i % 2 else "one" for i in range(40)])
    train_tokenizer.main([preset])
    train_dvae.main([preset, "--training.steps", "1"])
    capsys.readouterr()
    for trainer in (train_prior, train_reranker):
        trainer.main([preset, "--training.steps", "1"])
        said = [line for line in capsys.readouterr().out.splitlines() if "captions to train on" in line]
        assert len(said) == 1 and " of 38 captions to train on are longer than 6 text tokens and are cut" in said[0]
        assert 15 <= int(said[0].split()[0]) <= 20


def test_a_set_smaller_than_a_batch_is_said(preset, pictures, capsys):
    tell(pictures, ["a square"] * 3)
    train_tokenizer.main([preset])
    train_dvae.main([preset, "--training.steps", "1"])
    train_prior.main([preset, "--training.steps", "1"])
    said = [line for line in capsys.readouterr().out.splitlines() if "fewer than batch_size" in line]
    assert len(said) == 2 and all(
        line.startswith("2 pictures to train on are fewer than batch_size=") for line in said
    )


@pytest.mark.parametrize("name", ["steps", "batch_size"])
def test_a_run_that_trains_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}=0 .*1 or more"):
        LoopTraining(**{name: 0})


def test_captions_that_are_missing_stop_a_tokenizer_too_and_below_the_share_are_said(preset, pictures, capsys):
    tell(pictures, ["" if i % 2 else "a square" for i in range(40)])
    with pytest.raises(ValueError, match=r"of the first 38 rows cannot be used .* max_broken_share=0.1 of 40"):
        train_tokenizer.main([preset])
    train_tokenizer.main([preset, "--data.max_broken_share", "0.6"])
    assert "of 38 rows of" in (said := capsys.readouterr().out) and "have no caption that can be used" in said


@pytest.mark.parametrize("bad", range(5))
def test_one_broken_row_of_few_stops_nothing_wherever_it_stands(bad, pictures):
    """5 %, or 20 % where that is allowed: what is held out is a picture that can be used."""
    for count, share in ((20, 0.1), (5, 0.2)):
        for place in range(bad, count, 5):
            tell(pictures, [None if i == place else "a square" for i in range(count)])
            data = DataArguments(path=str(pictures), max_broken_share=share)
            held = [Pictures(load_split(data, split, KINDS), data, 16) for split in ("train", "validation")]
            assert sum(map(len, held)) == count - 1 and len(held[1]) == 1


def test_a_share_of_broken_rows_is_of_the_held_out_ones_too(pictures):
    tell(pictures, ["" if i < 5 else "a square" for i in range(40)])
    data = DataArguments(path=str(pictures), max_broken_share=0.05)
    with pytest.raises(ValueError, match=r"3 of the first \d+ rows .* max_broken_share=0.05 of 40"):
        Pictures(load_split(data, "train"), data, 16)


@pytest.mark.parametrize(
    ("told", "keywords"),
    [
        ({"keywords": "pet, house cat,"}, ["pet", "house cat"]),
        ({"keywords": None}, []),
        ({}, []),
        ({"keywords": ["pet", None, 5, " "]}, ["pet"]),
        ({"keywords": 7, "style": ["noto"]}, []),
    ],
)
def test_keywords_are_words_however_they_are_given(told, keywords):
    kind = NamedCutouts()
    parts = kind.parts(Row("row 0", {"name": "cat", "image": None, **told}))
    assert parts["things"] == [{"name": "cat", "keywords": keywords, "style": ""}]
    assert {len(caption(parts, random.Random(i)).strip()) > 1 for i in range(99)} == {True}
    for name in (None, 5, ["cat", "dog"], {"a": 1}):
        with pytest.raises(BrokenRow):
            kind.parts(Row("row 0", {"name": name, "keywords": ["pet"], "image": None}))
