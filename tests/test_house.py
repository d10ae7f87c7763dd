"""Who imports whom, read from the sources, types among them: no circle, no way back up, emoji in its room."""

import ast
import subprocess
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from processes import ROOT

MAY_IMPORT = {
    "dvae": set(),
    "prior_transformer": set(),
    "pipelines": {"dvae", "prior_transformer"},
    "training": {"dvae", "prior_transformer", "pipelines"},
}
TOP = {"pyproject.toml", "README.md", "LICENSE", *MAY_IMPORT, "tests"}
# from the lowest up: a wing imports those before it; the commands at the door import all, and no wing imports them
WINGS = ["loop", "adversaries", "theory", "pictures", "emoji", "presets", "codes", "evaluation", "preflight"]
KNOW_EMOJI = {"training/sets.py", "training/train_scorer.py"}
SOURCES = sorted(path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))


def imports_of(path: Path) -> list[tuple[int, str, list[str]]]:
    """Every import of a file, wherever it stands: its level (0 is absolute), its module, and the names it takes."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(0, alias.name, []) for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or "", [alias.name for alias in node.names]))
    return found


def files_of(path: Path) -> set[Path]:
    """The files of this house that a file imports."""
    files = set()
    for level, module, names in imports_of(path):
        base = path.parents[level - 1] if level else ROOT
        target = base.joinpath(*module.split(".")) if module else base
        if not (target.is_relative_to(ROOT) and target != ROOT):
            continue
        places = [target, *(target / name for name in names)]
        files |= {place.with_suffix(".py") for place in places if place.with_suffix(".py").is_file()}
        if target.is_dir() and any(not (target / f"{name}.py").is_file() for name in names or [""]):
            files.add(target / "__init__.py")
    return {file for file in files & set(SOURCES) if file != path}


IMPORTED = {path: files_of(path) for path in SOURCES}


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_nothing_stands_at_the_top_that_the_users_of_the_house_did_not_list():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    names = {line.split("/")[0] for line in listed} or TOP  # without git, as in an archive, there is nothing to ask
    assert {name for name in names if not name.startswith(".")} == TOP


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_who_imports_whom(path):
    """Across packages absolute and allowed, inside one relative and never above it."""
    parts = path.relative_to(ROOT).parts
    for level, module, _ in imports_of(path):
        if level == 0:
            name = module.split(".")[0]
            assert name not in set(MAY_IMPORT) - MAY_IMPORT[parts[0]], f"{parts[0]} imports {name}"
        else:
            assert level <= len(parts) - 1, f"a relative import leaves {parts[0]}"


def test_no_file_imports_itself_by_way_of_others():
    modules = {path: {file for file in files if file.name != "__init__.py"} for path, files in IMPORTED.items()}
    order = list(TopologicalSorter(modules).static_order())  # raises a CycleError that names the circle
    assert set(order) == set(SOURCES)


def wing_of(path: Path) -> str | None:
    """None of a file at the door."""
    parts = path.relative_to(ROOT / "training").parts
    return parts[0] if len(parts) > 1 else None


TRAINING = [path for path in SOURCES if path.is_relative_to(ROOT / "training")]


def test_the_wings_are_those_listed():
    assert {wing_of(path) for path in TRAINING} == {None, *WINGS}


@pytest.mark.parametrize("path", [path for path in TRAINING if wing_of(path)], ids=named)
def test_no_wing_imports_one_above_it(path):
    below = WINGS[: WINGS.index(wing_of(path)) + 1]
    above = {named(file) for file in IMPORTED[path] if file in TRAINING and wing_of(file) not in below}
    assert not above


def test_emoji_are_known_in_their_room_and_where_the_sets_are_listed():
    room = ROOT / "training/emoji"
    know = {named(path) for path, files in IMPORTED.items() if any(file.is_relative_to(room) for file in files)}
    assert {name for name in know if not name.startswith("training/emoji/")} == KNOW_EMOJI


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_a_file_is_named_for_what_it_holds(path):
    assert path.name not in ("utils.py", "common.py", "helpers.py")


OPENED = {"pipelines/demo/page.py"}  # a file that the page wrote itself


def test_a_file_becomes_a_picture_in_one_place():
    """Bytes from elsewhere are decoded, and metadata parsed, where that is bounded and guarded: dvae.read_picture."""
    calls = {
        (named(path), ast.unparse(node.func))
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    }
    ways = {"Image.open", "PillowImage.open", "PIL.Image.open", "ImageOps.exif_transpose"}
    assert {path for path, call in calls if call in ways} - OPENED == {"dvae/image_processing_dvae.py"}


def test_every_folder_of_modules_is_a_package():
    """The distribution holds packages alone: pyproject.toml finds them."""
    assert {named(path.parent) for path in SOURCES if not (path.parent / "__init__.py").is_file()} <= {
        "pipelines/space"
    }


def test_the_pipeline_is_imported_by_its_door_alone():
    """Types included: what lies below knows nothing of it, and commands load it by its public name."""
    pipeline = ROOT / "pipelines/text_to_image.py"
    assert {named(path) for path, files in IMPORTED.items() if pipeline in files} == {"pipelines/__init__.py"}


def test_what_two_packages_must_each_have_is_the_same_in_both():
    """A model's package travels alone, so its configs' base cannot be the other's."""
    one, other = (ROOT / package / "checked_config.py" for package in ("dvae", "prior_transformer"))
    assert one.read_text() == other.read_text()
