"""Who imports whom, read from the sources: the rule that keeps the models portable and the packages few."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "dvae": set(),
    "prior_transformer": set(),
    "pipelines": {"dvae", "prior_transformer"},
    "training": {"dvae", "prior_transformer", "pipelines"},
}
SOURCES = sorted(path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))


def imports_of(path: Path) -> list[tuple[int, str]]:
    """Every import of a file, wherever it stands: its level (0 is absolute) and its module's first name."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(0, alias.name.split(".")[0]) for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            found.append((node.level, (node.module or "").split(".")[0]))
    return found


def test_the_packages_are_there():
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_who_imports_whom(path):
    """Across packages absolute and allowed, inside one relative and never above it."""
    parts = path.relative_to(ROOT).parts
    for level, name in imports_of(path):
        if level == 0:
            assert name not in set(MAY_IMPORT) - MAY_IMPORT[parts[0]], f"{parts[0]} imports {name}"
        else:
            assert level <= len(parts) - 1, f"a relative import leaves {parts[0]}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short_and_named(path):
    assert path.name not in ("utils.py", "common.py", "helpers.py")
    assert len(path.read_text(encoding="utf-8").splitlines()) < 300
