"""The openly licensed packages that pictures and names come from, pinned, and how to read them.

They are downloaded with the package managers' own clients, `npm` and `apt-get`. No source is share-alike.
"""

import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """Where a style's pictures come from, and under which licence."""

    package: str
    version: str
    license: str
    attribution: str

    def __post_init__(self) -> None:
        if "-SA" in self.license:
            raise ValueError(f"{self.package} is share-alike ({self.license}): choose a source without that condition")

    @property
    def name(self) -> str:
        return f"{self.package}@{self.version}"


MICROSOFT = "Fluent Emoji, © Microsoft Corporation, MIT License"
EMOJI = {
    "twemoji": Package(
        "@twemoji/svg",
        "15.0.0",
        "CC-BY-4.0",
        "Twemoji, © Twitter, Inc and other contributors, CC-BY 4.0; cropped and resized",
    ),
    "noto": Package("@iconify-json/noto", "1.2.9", "Apache-2.0", "Noto Emoji, © Google Inc, Apache License 2.0"),
    "fluent flat": Package("@iconify-json/fluent-emoji-flat", "1.2.6", "MIT", MICROSOFT),
    "fluent 3d": Package("@lobehub/fluent-emoji-3d", "1.1.0", "MIT", MICROSOFT + "; packaged by LobeHub"),
}
ICONS = {
    "ph": Package("@iconify-json/ph", "1.2.2", "MIT", "Phosphor Icons, © Phosphor Icons, MIT License"),
    "solar": Package("@iconify-json/solar", "1.2.13", "CC-BY-4.0", "Solar, © 480 Design, CC-BY 4.0; coloured"),
    "mdi": Package("@iconify-json/mdi", "1.2.3", "Apache-2.0", "Material Design Icons, © Pictogrammers, Apache 2.0"),
    "game-icons": Package(
        "@iconify-json/game-icons",
        "1.2.4",
        "CC-BY-3.0",
        "Delapouite, Lorc and Caro Asercion, game-icons.net, CC-BY 3.0; coloured",
    ),
}
CLIPART = Package("openclipart-svg", "1:0.18+dfsg-19", "CC-PDDC", "Open Clip Art Library, public domain")
OWN = Package("armchair", "1", "Apache-2.0", "drawn by training/emoji/armchair.py")
NAMES = Package("cldr-annotations-full", "48.2.0", "Unicode-3.0", "© Unicode, Inc.")


def download(source: Package, cache: Path) -> Path:
    """Download an npm package with npm, once; return the .tgz."""
    archive = cache / f"{source.package.strip('@').replace('/', '-')}-{source.version}.tgz"
    if not archive.exists():
        subprocess.run(["npm", "pack", source.name, "--silent", "--pack-destination", str(cache)], check=True)
    return archive


def download_clipart(source: Package, cache: Path) -> Path:
    """Download and unpack Debian's package with apt-get and dpkg, once; return the folder of its SVG files."""
    folder = cache / source.package
    if not folder.exists():
        subprocess.run(["apt-get", "download", f"{source.package}={source.version}"], cwd=cache, check=True)
        (archive,) = cache.glob(f"{source.package}_*.deb")
        subprocess.run(["dpkg", "-x", str(archive), str(folder)], check=True)
    return folder / "usr/share/openclipart/svg"


def read_json(archive: Path, member: str) -> dict:
    with tarfile.open(archive) as tar:
        return json.loads(read_member(tar, f"package/{member}"))


def read_member(tar: tarfile.TarFile, member: str | tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # no folder
    return file.read()


def iconify_svg(collection: dict, icon: str) -> bytes:
    drawing = collection["icons"][icon]
    width, height = (drawing.get(side, collection.get(side, 16)) for side in ("width", "height"))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">'
    return f"{head}{drawing['body']}</svg>".encode()
