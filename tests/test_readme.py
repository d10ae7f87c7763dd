"""The front page and the pages behind it: short enough, and nothing that they point to is missing."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = (".github", "dvae", "pipelines", "prior_transformer", "tests", "training")
PAGES = sorted([*ROOT.glob("*.md"), *(path for folder in OURS for path in (ROOT / folder).rglob("*.md"))])


def anchors(page: Path) -> set[str]:
    """What a heading's link is on GitHub: lower case, without punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_front_page_is_read_in_three_minutes():
    assert 50 < len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if "://" not in link:
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("package", ["dvae", "prior_transformer", "pipelines", "training"])
def test_types_are_shipped(package):
    assert (ROOT / package / "py.typed").exists()
    assert re.search(rf'^{package} = \[.*"py.typed"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)


def named_in_the_tree() -> list[str]:
    """Each path that the front page's tree names; what the words behind a folder name lies in that folder."""
    tree = (ROOT / "README.md").read_text(encoding="utf-8").split("## The tree\n\n```\n")[1].split("```")[0]
    found, top = [], ""
    for line in tree.splitlines():
        heads, words = (re.findall(r"[\w*]+(?:\.(?:py|sh|md)\b|/)", part) for part in split_at_gap(line))
        if not line.startswith(" "):
            top, heads, folder = heads[0], [""], heads[0]
        else:
            folder = top + heads[0] if heads[0].endswith("/") else top
        found += [top + name for name in heads] + [folder + name for name in words]
    return found


def split_at_gap(line: str) -> tuple[str, str]:
    """`    a/, b/    words` -> (`a/, b/`, `words`)."""
    heads, _, words = line.strip().partition("  ")
    return heads, words


@pytest.mark.parametrize("path", named_in_the_tree())
def test_the_tree_is_the_tree(path):
    assert list(ROOT.glob(path)), path
