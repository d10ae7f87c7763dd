"""The front page and the pages behind it: short enough, and nothing that they point to is missing."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOT_OURS = {".venv", "build", "runs"}
PAGES = sorted(path for path in ROOT.rglob("*.md") if not NOT_OURS & set(path.relative_to(ROOT).parts))


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
