"""Who imports whom, read from the sources: the rule that keeps the models portable and the packages few."""

import ast
import tomllib
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


def test_every_package_is_in_the_distribution():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    found = {".".join(path.relative_to(ROOT).parent.parts) for path in SOURCES if path.name == "__init__.py"}
    assert set(listed) == found and len(listed) == len(found)


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


PIPELINES = {path for path in SOURCES if path.relative_to(ROOT).parts[0] == "pipelines"}
DOOR = ROOT / "pipelines" / "__init__.py"


def files_imported_by(path: Path) -> set[Path]:
    """Of its own package, wherever the import stands: in a function, or for types alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.ImportFrom) and node.level):
            continue
        module = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
        if module.with_suffix(".py").is_file():
            found.add(module.with_suffix(".py"))
        else:  # a package: its files by name, or names of its own
            files = {module / f"{alias.name}.py" for alias in node.names}
            found |= {file if file.is_file() else module / "__init__.py" for file in files}
    return found


def test_every_file_that_is_imported_is_there():
    for path in SOURCES:
        assert all(file.is_file() for file in files_imported_by(path)), path


def test_the_pipeline_is_imported_by_its_door_alone():
    """Types included: what lies below knows nothing of it, and commands load it by its public name."""
    importing = {path for path in PIPELINES if ROOT / "pipelines" / "text_to_image.py" in files_imported_by(path)}
    assert importing == {DOOR}


def test_the_door_is_opened_by_commands_alone():
    importing = {path.relative_to(ROOT / "pipelines") for path in PIPELINES if DOOR in files_imported_by(path)}
    assert importing and all(path.name == "commands.py" or path.parts[0] == "demo" for path in importing)


def test_no_files_of_the_pipelines_import_each_other_in_a_circle():
    """Imports for types included. Files that import none of the rest are taken away until none is left."""
    rest = {path: files_imported_by(path) for path in PIPELINES}
    while free := {path for path, imports in rest.items() if not imports & rest.keys()}:
        rest = {path: imports for path, imports in rest.items() if path not in free}
    assert not rest
