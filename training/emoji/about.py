"""What a model card says of this set, and shows of a model that learned it."""

from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "data" / "emoji"


@dataclass(frozen=True)
class About:
    """prompts: of the card's samples. sources: {source: licence}. license, language: as the Hub names them."""

    prompts: list[str]
    sources: dict[str, str] = field(default_factory=dict)
    license: str | None = None
    language: str | None = None


PROMPTS = [
    "an armchair shaped like an avocado", "avocado", "red apple", "cat face", "a fire engine", "hamburger",
    "rocket, 3d", "a flat octopus", "a clipart tree", "a large pizza", "a small dog face",
    "a cat face beside a red apple", "a pineapple to the left of a strawberry", "a sailboat above a fire engine",
    "an avocado on a blue background", "an owl beside a cactus on a yellow background", "two robots", "three balloons",
    "four mushrooms", "a blue cat face", "a purple sailboat", "an armchair in the colours of a watermelon",
]  # fmt: skip
SOURCES = {
    "Noto Emoji": "Apache-2.0",
    "Twemoji": "CC-BY-4.0",
    "Fluent Emoji": "MIT",
    "Open Clip Art Library": "public domain",
    "icons of Solar, Phosphor, game-icons.net and Material Design": "CC-BY-4.0, MIT, CC-BY-3.0, Apache-2.0",
    "names and keywords of CLDR": "Unicode-3.0",
}


def about_emoji(path: str) -> About | None:
    """None of another set than this."""
    return About(PROMPTS, SOURCES, "apache-2.0", "en") if Path(path).resolve() == FOLDER else None
