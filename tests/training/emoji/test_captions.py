"""Captions say what the parts say, in English, and depend on the generator alone."""

from collections import Counter
from random import Random

import pytest
import yaml
from processes import ROOT

from prior_transformer import PriorTokenizer
from training.emoji.captions import is_countable, is_plural, plain_name, plural, with_article, write_caption
from training.emoji.named_cutouts import NamedCutouts
from training.emoji.scenes import KINDS
from training.pictures.data_arguments import DataArguments
from training.pictures.splits import load_split
from training.presets.trainers import TokenizerTraining
from training.train_tokenizer import draw_captions

AVOCADO = {"name": "avocado", "keywords": ["food", "fruit", "guacamole"], "style": "fluent 3d"}
BOAT = {"name": "sailboat", "keywords": ["boat", "sea"], "style": "twemoji"}
ARMCHAIR = {"name": "red armchair", "keywords": ["chair", "seat"], "style": "icon"}
PAIRS = ("beside", "above", "shape", "colours")
COUNTS = ("two", "three", "four")


def captions(parts: dict, count: int = 2000) -> Counter:
    rng = Random(0)
    return Counter(write_caption(parts, rng) for _ in range(count))


def parts_of(kind: str, ground: str | None = None) -> dict:
    things = [AVOCADO, BOAT] if kind in PAIRS else [AVOCADO | {"colour": "blue"} if kind == "colour" else AVOCADO]
    ground = "orange" if kind == "ground" else ground
    return {"kind": kind, "things": things, "rows": list(range(len(things))), **({"ground": ground} if ground else {})}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("avocado", "an avocado"),
        ("red apple", "a red apple"),
        ("hourglass done", "an hourglass done"),
        ("unicorn", "a unicorn"),
        ("umbrella", "an umbrella"),
        ("one-piece swimsuit", "a one-piece swimsuit"),
        ("x-ray", "an x-ray"),
        ("octopus", "an octopus"),
        ("magnifying glass", "a magnifying glass"),
        ("french fries", "french fries"),
        ("two hearts", "two hearts"),
        ("smiling face with hearts", "a smiling face with hearts"),
        ("people holding hands", "people holding hands"),
        ("man lifting weights", "a man lifting weights"),
        ("couch and lamp", "a couch and lamp"),
        ("santa claus", "santa claus"),
    ],
)
def test_the_article_fits(name, expected):
    assert with_article(name) == expected


def test_a_plural_is_told_by_the_head_of_the_name():
    assert is_plural("busts in silhouette")
    assert not is_plural("stack of books")


def test_only_a_colour_is_taken_from_the_front_of_a_name():
    assert [plain_name(name) for name in ("red armchair", "orange", "cat face")] == ["armchair", "orange", "cat face"]


def test_the_bare_name_is_most_frequent_and_keywords_alone_are_rare():
    drawn = captions(parts_of("single"))
    assert drawn.most_common(1)[0][0] == "avocado"
    assert 0.40 < drawn["avocado"] / drawn.total() < 0.50
    without_name = sum(count for caption, count in drawn.items() if "avocado" not in caption)
    assert 0.05 < without_name / drawn.total() < 0.11


@pytest.mark.parametrize("kind", ["single", *KINDS])
def test_a_seed_fixes_the_caption(kind):
    assert write_caption(parts_of(kind), Random(7)) == write_caption(parts_of(kind), Random(7))
    assert len(captions(parts_of(kind), 200)) > 3


@pytest.mark.parametrize("ground", [None, "green"])
@pytest.mark.parametrize("kind", KINDS)
def test_scenes_name_all_they_show_in_lower_case_and_few_words(kind, ground):
    parts = parts_of(kind, ground)
    for caption in captions(parts, 300):
        assert "avocado" in caption and ("sailboat" in caption or kind not in PAIRS)
        assert ("blue" in caption) == (kind == "colour") and (parts.get("ground") or "") in caption
        assert ("avocados" in caption) == (kind in COUNTS)
        assert caption == caption.lower() and len(caption.split()) <= 14
        assert "{" not in caption and " a avocado" not in f" {caption}" and " an sailboat" not in caption
        assert "a orange" not in caption


def test_a_recoloured_thing_is_named_by_that_colour_alone_in_any_kind():
    red = ARMCHAIR | {"colour": "blue"}
    for kind in ("colour", "small", "beside"):
        things = [red, BOAT] if kind == "beside" else [red]
        for caption in captions({"kind": kind, "things": things, "rows": [0]}, 200):
            assert "armchair" in caption and "blue" in caption and "red" not in caption.split()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat face", "cat faces"),
        ("octopus", "octopuses"),
        ("strawberry", "strawberries"),
        ("boy", "boys"),
        ("fireman", "firemen"),
        ("pot of food", None),
        ("two hearts", None),
        ("person", "people"),
        ("sandwich", "sandwiches"),
        ("bread", None),
        ("hourglass done", None),
        ("woman swimming", None),
        ("ring", "rings"),
        ("tokyo tower", None),
    ],
)
def test_what_can_be_counted_has_its_plural(name, expected):
    assert (plural(name) if is_countable(name) else None) == expected


def test_what_is_named_first_is_on_the_left():
    for caption in captions(parts_of("beside"), 300):
        first, second = caption.index("avocado"), caption.index("sailboat")
        assert (first < second) != ("right of" in caption)


def test_what_is_above_is_named_so():
    for caption in captions(parts_of("above"), 300):
        first, second = caption.index("avocado"), caption.index("sailboat")
        assert (first < second) != ("below" in caption or "under" in caption)


def test_the_signature_prompt_is_a_caption():
    parts = {"kind": "shape", "things": [ARMCHAIR | {"name": "armchair"}, AVOCADO], "rows": [0]}
    assert captions(parts)["an armchair shaped like an avocado"] > 100


def test_the_colour_of_a_coloured_icon_is_named_in_about_half_of_the_captions():
    drawn = captions({"kind": "single", "things": [ARMCHAIR]})
    named = sum(count for caption, count in drawn.items() if "red" in caption)
    assert 0.35 < named / drawn.total() < 0.6
    assert drawn["armchair"] > 0 and drawn["red armchair"] > 0


def test_captions_of_every_kind_fit_the_preset_that_learns_them():
    preset = yaml.safe_load((ROOT / "training/configs/emoji_128.yaml").read_text())
    data, text_length = DataArguments(scenes=0.6), preset["tokenizer"]["text_length"]
    training = TokenizerTraining(preset["tokenizer"]["vocab_size"], 2 * text_length, captions=20_000)
    split = load_split(data, "train", (NamedCutouts,))
    tokenizer = PriorTokenizer.train(
        draw_captions(split, data, training), vocab_size=training.vocab_size, text_length=training.text_length
    )
    scenes = split.kind.composer([split.kind.parts(row) for row in split.rows(columns=split.kind.columns)], [])
    texts = [write_caption(scenes.draw_caption(Random(i)), Random(i)) for i in range(3000)]
    for dropout, share in ((0.0, 0.0), (0.1, 0.005)):
        tokens = (tokenizer.encode_captions(texts, bpe_dropout=dropout) != tokenizer.pad_token_id).sum(1)
        assert (tokens > text_length).float().mean() <= share
    assert tokens.max() > text_length / 2, "no longer than need be"
