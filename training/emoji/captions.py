"""Captions written from the parts of a picture, when a batch is drawn.

Parts are a dict: `kind`, `things` (dicts with `name`, `keywords` and `style`, as the rows of the data set have them,
and `colour` where it is another than their own) and `ground`, the colour of one that is not white. Each function is
pure: its choices come from the `random.Random` passed in.
"""

from random import Random
from typing import Any

COLOUR_WORDS = {
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "grey", "black", "white", "golden"
}  # fmt: skip
NAMED_BY_COLOUR = ("icon", "drawing", "clipart")  # styles whose names may open with a colour that a caption may omit
STYLE_WORDS = {
    "twemoji": ["flat", "flat", "twemoji"],
    "noto": ["glossy", "noto", "noto"],
    "fluent flat": ["fluent flat", "fluent flat", "flat fluent"],
    "fluent 3d": ["3d", "3d", "fluent 3d"],
    "clipart": ["clipart", "clip art"],
    "icon": ["icon style", "two-tone", "flat icon"],
    "drawing": ["drawn", "cartoon"],
}
PROPER = ("mount ", "tokyo ", "santa ", "mrs. ", "mx ")
NO_ARTICLE = {
    "aries", "taurus", "gemini", "cancer", "leo", "virgo", "libra", "scorpio", "sagittarius", "capricorn",
    "aquarius", "pisces", "ophiuchus", "jupiter", "saturn", "venus", "bread", "bacon", "butter", "salt", "ice",
    "fire", "honey", "garlic", "broccoli", "popcorn", "spaghetti", "sushi", "sake", "fog", "dna", "infinity",
    "money", "chess", "ginger", "pudding", "lasagna", "fondue", "tools", "tennis"
}  # fmt: skip
SINGULAR_IN_S = {"lens", "tennis", "christmas", "rhinoceros", "triceratops", "biceps"}
IRREGULAR_PLURALS = {"people", "men", "women", "dice", "skis", "maracas"}
IRREGULAR = {
    "person": "people", "child": "children", "foot": "feet", "tooth": "teeth", "mouse": "mice", "goose": "geese",
    "leaf": "leaves", "knife": "knives", "wolf": "wolves", "loaf": "loaves", "fish": "fish", "sheep": "sheep",
    "deer": "deer", "ox": "oxen", "potato": "potatoes", "tomato": "tomatoes", "mango": "mangoes", "hero": "heroes",
    "mosquito": "mosquitoes", "volcano": "volcanoes", "human": "humans", "shaman": "shamans", "stomach": "stomachs",
    "squid": "squid", "elf": "elves", "die": "dice", "moose": "moose", "biceps": "biceps"
}  # fmt: skip
UNCOUNTED = {
    "luggage", "no", "not", "done", "behind", "back", "up", "down", "off", "out", "on", "ok", "multiply", "plus",
    "minus"
}  # fmt: skip
LINKS = ("with", "of", "in", "on", "at", "from", "holding", "wearing", "feeding", "lifting", "and", "over")


def write_caption(parts: dict[str, Any], rng: Random) -> str:
    """One of the captions that fit the parts; `parts["kind"]` is "single" or one of scenes.KINDS."""
    if parts["kind"] == "single":
        return write_single(parts["things"][0], rng)
    forms, ground = FORMS.get(parts["kind"]), parts.get("ground")
    if forms is None:
        caption = write_one(parts["kind"], parts["things"][0], rng)
    else:
        names = [choose_name(thing, rng) for thing in parts["things"]]
        mentions = [choose_article(name, rng) for name in names]
        caption = rng.choice(forms).format(*mentions, *names)
    return rng.choice(GROUNDS).format(caption, ground, with_article(ground)) if ground else caption


def write_one(kind: str, thing: dict[str, Any], rng: Random) -> str:
    """One thing, or several alike: large or small, numbered, in a colour, or on a ground that is said after it."""
    if kind == "colour" and rng.random() < 1 / 3:
        name = choose_article(plain_name(thing["name"]), rng)
        return f"{name} {rng.choice(('painted', 'coloured', 'colored', 'in'))} {thing['colour']}"
    name = choose_name(thing, rng)
    if kind in NUMBERS:
        return rng.choice(NUMBERS[kind]).format(plural(name))
    return choose_article(f"{rng.choice(SIZES[kind])} {name}" if kind in SIZES else name, rng)


SIZES = {"large": ["large", "large", "big", "huge"], "small": ["small", "small", "little", "tiny"]}
NUMBERS = {
    "two": ["two {}", "two {}", "two {} side by side", "2 {}", "a pair of {}"],
    "three": ["three {}", "three {}", "3 {}", "a group of three {}", "three {} together"],
    "four": ["four {}", "four {}", "4 {}", "a group of four {}", "four {} together"],
}
# of a scene and its ground: {0} the scene, {1} the colour, {2} the same with its article
GROUNDS = [
    "{0} on {2} background",
    "{0} on {2} background",
    "{0} on {2} ground",
    "{0} on {1}",
    "{0}, {1} background",
]
# {0} and {1} are the things with or without article, {2} and {3} their bare names
FORMS = {
    "beside": [
        "{0} beside {1}",
        "{0} beside {1}",
        "{0} next to {1}",
        "{0} and {1}",
        "{0} and {1} side by side",
        "{0} to the left of {1}",
        "{0} left of {1}",
        "{1} to the right of {0}",
        "{1} right of {0}",
    ],
    "above": ["{0} above {1}", "{0} above {1}", "{0} over {1}", "{0} on top of {1}", "{1} below {0}", "{1} under {0}"],
    "shape": [
        "{0} shaped like {1}",
        "{0} shaped like {1}",
        "{0} in the shape of {1}",
        "{0} in the form of {1}",
        "{0} that looks like {1}",
        "{3} {2}",
    ],
    "colours": [
        "{0} in the colours of {1}",
        "{0} in the colors of {1}",
        "{0} coloured like {1}",
        "{0} colored like {1}",
    ],
}


def write_single(thing: dict[str, Any], rng: Random) -> str:
    """A caption of one thing: its name in 45 % of the draws, else with article, frame, style or keywords."""
    name = choose_name(thing, rng)
    mention = with_article(name)
    draw = rng.random()
    if draw < 0.45:
        return name
    if draw < 0.63:
        return mention
    if draw < 0.69:
        return f"a {rng.choice(('picture', 'drawing', 'picture', 'image'))} of {mention}"
    if draw < 0.84:
        return write_style(name, thing["style"], rng)
    keywords = thing["keywords"]
    if len(keywords) < 2:
        return mention
    if draw < 0.92:
        return ", ".join([name, *rng.sample(keywords, min(len(keywords), rng.randint(1, 3)))])
    return rng.choice((", ", " ")).join(rng.sample(keywords, min(len(keywords), rng.randint(2, 3))))


def write_style(name: str, style: str, rng: Random) -> str:
    if style not in STYLE_WORDS:
        return with_article(name)
    word = rng.choice(STYLE_WORDS[style])
    forms = [
        with_article(f"{word} {name}"),
        f"{word} {name}",
        f"{name}, {word}",
        f"{name}, {word}",
        f"{with_article(name)} in {word.removesuffix(' style')} style",
    ]
    if style not in NAMED_BY_COLOUR:
        forms.append(f"{name} emoji in the style of {word}")
        forms.append(f"{name} emoji")
    return rng.choice(forms)


def choose_name(thing: dict[str, Any], rng: Random) -> str:
    """
    The name, after another colour of its own if it has one; where the data set's builder put a colour before it, half
    the time without that colour.
    """
    if thing.get("colour"):
        return f"{thing['colour']} {plain_name(thing['name'])}"
    if thing["style"] in NAMED_BY_COLOUR and rng.random() < 0.5:
        return plain_name(thing["name"])
    return thing["name"]


def plain_name(name: str) -> str:
    """The name without a colour at its front: "red armchair" -> "armchair"."""
    first, _, rest = name.partition(" ")
    return rest if rest and first in COLOUR_WORDS else name


def choose_article(name: str, rng: Random) -> str:
    return with_article(name) if rng.random() < 0.75 else name


def with_article(name: str) -> str:
    """The name with "a" or "an", unless it is a plural, a proper name or a substance."""
    if name in NO_ARTICLE or name.startswith(PROPER) or is_plural(name):
        return name
    if name.startswith("statue of liberty"):
        return f"the {name}"
    return f"{'an' if opens_with_vowel(name) else 'a'} {name}"


def opens_with_vowel(name: str) -> bool:
    """Whether the name is spoken with a vowel first: "an hourglass", "an x-ray", but "a unicorn", "a one-piece"."""
    if name.startswith(("hour", "heir", "honest", "x-ray", "8", "11")):
        return True
    return name[0] in "aeiou" and not name.startswith(("one", "uni", "eu", "uk", "usb", "use", "ut"))


def is_plural(name: str) -> bool:
    """Whether the head of the name, its last word before "with", "of", "in" …, is a plural."""
    words = name.split()
    stop = next((place for place, word in enumerate(words) if place and word in LINKS), len(words))
    head = words[stop - 1]
    if head in IRREGULAR_PLURALS:
        return True
    return head.endswith("s") and not head.endswith(("ss", "us", "is", "as", "'s")) and head not in SINGULAR_IN_S


def is_countable(name: str) -> bool:
    """Whether "two" and a plural make sense: of a common noun of at most two words, no name of what goes on."""
    words = name.split()
    if len(words) > 2 or name in NO_ARTICLE or name.startswith(PROPER) or is_plural(name):
        return False
    return not (set(words) & UNCOUNTED) and not (len(words) == 2 and words[1].endswith(("ing", "ed")))


def plural(name: str) -> str:
    """The plural of a name of at most two words: of its last one."""
    *before, word = name.split()
    return " ".join([*before, IRREGULAR.get(word) or regular_plural(word)])


def regular_plural(word: str) -> str:
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return f"{word}es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return f"{word[:-1]}ies"
    if word.endswith("man"):
        return f"{word[:-3]}men"
    return f"{word}s"
