"""From a file's bytes to a picture: whole pixels are kept, whatever is said of them, and no other program is asked."""

import io
import struct
import subprocess
import sys
import zlib

import broken_sets
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms
from processes import ROOT

from dvae import DVAEImageProcessor, UnusablePicture, read_picture
from dvae.image_processing_dvae import FORMATS, MAX_PIXELS

RAMP = np.linspace(0, 1, 32 * 40).reshape(32, 40)
HALVES = Image.new("RGB", (40, 32), "blue")
HALVES.paste("red", (0, 0, 20, 32))


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes, checksum: int = 0) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ checksum)


def exif_segment(payload: bytes) -> bytes:
    data, body = encoded(HALVES, "JPEG", quality=95), b"Exif\0\0" + payload
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def error_of(file: bytes, **bounds) -> str:
    with pytest.raises(UnusablePicture) as found:
        read_picture(file, **bounds)
    return str(found.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_of_the_list_is_read(kind):
    picture = read_picture(encoded(HALVES, kind, **({"sizes": [(40, 32)]} if kind == "ICO" else {})))
    assert picture.size == (40, 32) and picture.mode in ("RGB", "RGBA") and not picture.info
    levels = np.asarray(picture.convert("RGB"), int)
    assert (
        np.abs(levels[:, [5, 34]] - np.asarray(HALVES, int)[:, [5, 34]]).max() <= 40
    )  # of 255: chroma is coded coarsely


def test_a_format_that_another_program_opens_is_none_of_them(monkeypatch):
    """PIL hands PostScript to Ghostscript, whatever the file is called."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was asked"))
    assert error_of(encoded(HALVES, "EPS")) == "undecodable"


@pytest.mark.parametrize("payload", [b"no TIFF header", b"", b"MM\0*\0\0\0\x08\xff\xff", b"II*\0\xff\xff\xff\xff"])
def test_malformed_exif_turns_nothing_and_costs_nothing(payload):
    file = exif_segment(payload)
    expected = np.asarray(read_picture(encoded(HALVES, "JPEG", quality=95)))
    assert np.array_equal(np.asarray(read_picture(file)), expected)
    with Image.open(io.BytesIO(file)) as opened:  # as a user hands it to a pipeline
        assert np.array_equal(np.asarray(DVAEImageProcessor(8).on_background(opened)), expected)


@pytest.mark.parametrize("checksum", [0, 1])
@pytest.mark.parametrize("kind", [b"eXIf", b"iCCP", b"gAMA", b"pHYs", b"acTL", b"iTXt"])
@pytest.mark.parametrize("last", [False, True])
def test_a_chunk_of_metadata_that_is_malformed_costs_a_png_nothing(kind, checksum, last):
    file = encoded(HALVES)
    at = len(file) - 12 if last else 33  # before IEND, or after IHDR
    spoilt = file[:at] + chunk(kind, b"\0\x08\0", checksum) + file[at:]
    assert np.array_equal(np.asarray(read_picture(spoilt)), np.asarray(HALVES))
    assert error_of(spoilt[:-40]) == "undecodable"


def test_a_picture_is_turned_once_however_often_it_is_read():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    stored = HALVES.transpose(Image.Transpose.ROTATE_90)
    for kind in ("PNG", "TIFF", "WEBP"):
        file = encoded(stored, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
        with Image.open(io.BytesIO(file)) as opened:
            for picture in (read_picture(file), DVAEImageProcessor(8).on_background(opened)):
                again = DVAEImageProcessor(8).on_background(picture)
                assert np.array_equal(np.asarray(again), np.asarray(HALVES)), kind


def wide(kind: type, white: float) -> Image.Image:
    return Image.fromarray((RAMP * white).astype(kind))


GREYS = {
    "L": wide(np.uint8, 255),
    "I;16": wide(np.uint16, 65535),
    "I": wide(np.int32, 65535),
    "F of 1": wide(np.float32, 1),
    "F of 255": wide(np.float32, 255),
    "F of 65535": wide(np.float32, 65535),
    "F of 1e6": wide(np.float32, 1e6),
    "P": wide(np.uint8, 255).convert("P"),
    "CMYK": wide(np.uint8, 255).convert("RGB").convert("CMYK"),
}


@pytest.mark.parametrize("name", GREYS)
def test_greys_of_every_mode_keep_their_levels(name):
    found = np.asarray(read_picture(encoded(GREYS[name], "TIFF")), int)
    assert found.shape == (32, 40, 3) and np.abs(found[..., 0] - 255 * RAMP).max() <= 1


def test_what_is_no_number_is_black_and_beyond_white_is_white():
    values = RAMP.astype(np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    found = np.asarray(read_picture(encoded(Image.fromarray(values), "TIFF")), int)[..., 0]
    assert found[0, :3].tolist() == [0, 255, 0] and np.abs(found[1:] - 255 * RAMP[1:]).max() <= 1


def cut_out(mode: str) -> bytes:
    """A dark square in a transparent field."""
    alpha = Image.new("L", (40, 32))
    alpha.paste(255, (10, 8, 30, 24))
    if mode in ("RGBA", "LA"):
        picture = Image.new(mode[:-1], (40, 32), "black")
        picture.putalpha(alpha)
        return encoded(picture)
    picture = alpha.convert(mode) if mode != "RGB" else Image.merge("RGB", [alpha] * 3)
    if mode == "P":
        return encoded(alpha.point(lambda level: level > 0).convert("P"), transparency=0)
    return encoded(picture.point(lambda level: 255 - level), transparency=255 if mode in "1L" else (255, 255, 255))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "RGB"])
def test_cut_outs_of_every_mode_are_rgba(mode):
    picture = read_picture(cut_out(mode))
    assert picture.mode == "RGBA" and not picture.info
    alpha = np.asarray(picture)[..., 3]
    assert alpha[0, 0] == 0 and alpha[16, 20] == 255 and (alpha > 0).sum() == 20 * 16
    assert np.asarray(DVAEImageProcessor(8).on_background(picture))[0, 0].tolist() == [255, 255, 255]


def test_a_colour_profile_and_an_animation_are_no_obstacle():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(np.asarray(read_picture(encoded(HALVES, icc_profile=profile))), np.asarray(HALVES))
    for kind in ("GIF", "PNG", "WEBP"):
        options = {"save_all": True, "append_images": [Image.new("RGB", (40, 32), "green")]}
        file = encoded(HALVES, kind, **options, **({"lossless": True} if kind == "WEBP" else {}))
        assert np.array_equal(np.asarray(read_picture(file).convert("RGB")), np.asarray(HALVES)), kind


def test_a_size_is_refused_before_it_is_decoded_by_the_bounds_alone(monkeypatch):
    assert MAX_PIXELS < 60_000**2 and error_of(broken_sets.bomb()) == "too large"
    file = encoded(HALVES)
    assert error_of(file, max_pixels=1279) == "too large" and error_of(file, min_side=33) == "too small"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # PIL's own, which may be the stricter one
    assert read_picture(file, max_pixels=1280, min_side=32).size == (40, 32)
    assert Image.MAX_IMAGE_PIXELS == 100
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8))
    assert error_of(encoded(noise, "JPEG")[:3000]) == "undecodable"
    assert error_of(b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\n") == "git-LFS pointer"


MEASURE = """
import io
import numpy as np
from PIL import Image
from dvae import DVAEImageProcessor, read_picture
side = 2048
levels = np.arange(side, dtype=np.uint16)[None].repeat(side, 0)
turned = Image.Exif()
turned[274] = 6
def status(name):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(name))
for mode, kind in (("RGB", "u1"), ("RGBA", "u1"), ("P", "u1"), ("I;16", "u2"), ("F", "f4")):
    picture, file = Image.fromarray(levels.astype(kind)), io.BytesIO()
    picture = picture if mode in ("I;16", "F") else picture.convert(mode)
    options = {"transparency": 0} if mode == "P" else {}
    picture.save(file, "TIFF" if mode == "F" else "PNG", exif=turned, **options)
    data = file.getvalue()
    del picture, file
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")
    before = status("VmRSS")
    DVAEImageProcessor(64).fit(read_picture(data))
    print((status("VmHWM") - before) / side**2)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks of memory are read from /proc")
def test_a_picture_takes_few_bytes_a_pixel_until_it_is_small():
    done = subprocess.run([sys.executable, "-c", MEASURE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peaks = list(map(float, done.stdout.split()))
    assert len(peaks) == 5 and min(peaks) > 4 and max(peaks) < 14, peaks
