"""Pictures -> pixel_values in [0, 1], and back; and the one way from a file's bytes to a picture."""

import io
import warnings
from collections.abc import Iterator
from typing import Any, Literal, overload

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor
from transformers import BatchFeature, ImageProcessingMixin

ImageLike = Image.Image | np.ndarray | Tensor
# of pixels alone, each with a magic number: no format that another program opens (EPS: Ghostscript)
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "ICO")
MAX_PIXELS = 2**26
LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # how the text begins that stands in for a large file
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # what turns a picture upright, by EXIF's orientation
UPRIGHT = 1  # the orientation that needs no turn
STRIP = 2**16  # pixels that are held in 64 bits at once


class UnusablePicture(ValueError):
    """Bytes that make no picture; the text is the reason, one of a few."""


def read_picture(file: bytes, *, max_pixels: int = MAX_PIXELS, min_side: int = 1) -> Image.Image:
    """The bytes of a file -> its first picture, upright: RGB, or RGBA where it has transparency, in 8 bits.

    Its size is read, and found within the bounds, before a pixel is decoded. Metadata that cannot be read costs what
    it says, not the pixels. The result has none. Takes up to 12 bytes a pixel.

    Raises:
        UnusablePicture: "undecodable" (cut off, or of none of FORMATS), "too large", "too small" or "git-LFS pointer".
    """
    if file.startswith(LFS_POINTER):
        raise UnusablePicture("git-LFS pointer")
    bound = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2  # PIL refuses above twice it, an ICO's own pictures too
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # above once it
            return _decoded(file, max_pixels, min_side)
    except UnusablePicture:
        raise
    except Image.DecompressionBombError as error:
        raise UnusablePicture("too large") from error
    except Exception as error:  # what a codec raises on foreign bytes is anything: SyntaxError, struct.error, …
        if (pixels := _without_metadata(file)) != file:
            return read_picture(pixels, max_pixels=max_pixels, min_side=min_side)
        raise UnusablePicture("undecodable") from error
    finally:
        Image.MAX_IMAGE_PIXELS = bound


def upright(image: Image.Image) -> Image.Image:
    """A PIL image of any mode -> a copy, turned as its camera was: RGB, or RGBA where it has transparency."""
    image.load()  # a TIFF is turned by it
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, UPRIGHT))
    except Exception:  # malformed metadata raise anything: SyntaxError, struct.error, …; the pixels are whole
        turn = None
    turned = image if turn is None else image.transpose(turn)
    if turned.mode[0] in "IF":  # PIL would cut 16 bits off at 255, and make black of 0 to 1
        turned = _in_8_bits(turned)
    mode = "RGBA" if turned.has_transparency_data else "RGB"
    if turned is image or turned.mode != mode:
        turned = turned.convert(mode)
    turned.info = {}  # nothing turns it again
    return turned


def _decoded(file: bytes, max_pixels: int, min_side: int) -> Image.Image:
    opened = Image.open(io.BytesIO(file), formats=FORMATS)  # reads the header alone
    if opened.width * opened.height > max_pixels:
        raise UnusablePicture("too large")
    if min(opened.size) < min_side:
        raise UnusablePicture("too small")
    return upright(opened)


def _without_metadata(file: bytes) -> bytes:
    """A PNG's header, palette and pixels alone; any other file as it is."""
    if not file.startswith(b"\x89PNG\r\n\x1a\n"):
        return file
    kept, at = [file[:8]], 8
    while at < len(file):
        end = at + 12 + int.from_bytes(file[at : at + 4], "big")  # length, kind, content, checksum
        if file[at + 4 : at + 8] in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(file[at:end])
        at = end
    return b"".join(kept)


def _strips(image: Image.Image) -> Iterator[tuple[tuple[int, int, int, int], np.ndarray]]:
    """Boxes of whole rows, from the top, and their values in float64."""
    rows = max(STRIP // image.width, 1)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        yield box, np.asarray(image.crop(box), np.float64)


def _in_8_bits(image: Image.Image) -> Image.Image:
    """
    An image of one of PIL's wide modes -> L. White is the first of these that no value is above, or the highest value:
    65535 of "I;16", 255 or 65535 of "I", 1, 255 or 65535 of "F". What is no number is black.
    """
    whites = {"F": (1, 255, 65535), "I": (255, 65535)}.get(image.mode, (65535,))
    highest = max(np.nan_to_num(values, posinf=0).max(initial=0) for _, values in _strips(image))
    white = next((white for white in whites if highest <= white), highest)
    levels = Image.new("L", image.size)
    for box, values in _strips(image):
        values = np.nan_to_num(values, posinf=white, neginf=0) * (255 / white)
        levels.paste(Image.fromarray(values.round().clip(0, 255).astype(np.uint8)), box)
    return levels


class DVAEImageProcessor(ImageProcessingMixin):
    """
    Resizes the shorter side to `size` and crops the centre; pixels stay in [0, 1], whatever a likelihood maps them to.

    size: side of the square, in pixels. background: what transparent pixels are laid on, (R, G, B) in 0..255.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012, as transformers has it

    def __init__(self, size: int = 256, background: tuple[int, int, int] | list[int] = (255, 255, 255), **kwargs: Any):
        if size < 1:
            raise ValueError(f"size={size} must be at least 1")
        super().__init__(**kwargs)
        self.size = size
        self.background = list(background)

    def __call__(self, images: ImageLike | list[ImageLike], return_tensors: str = "pt") -> BatchFeature:
        """Pictures as `each_picture` takes them -> {"pixel_values": (B, 3, size, size)}."""
        if return_tensors != "pt":
            raise ValueError(f"return_tensors={return_tensors!r} must be 'pt'")
        pictures = each_picture(images)
        if not pictures:
            raise ValueError("no image given: pass at least one")
        pixels = np.stack([np.asarray(self.fit(picture)) for picture in pictures])  # (B, S, S, 3)
        pixel_values = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        return BatchFeature({"pixel_values": pixel_values})

    preprocess = __call__

    def fit(self, image: ImageLike) -> Image.Image:
        """One picture -> RGB of size × size: transparency on the background, shorter side to size, centre crop."""
        image = self.on_background(image)
        if image.size == (self.size, self.size):
            return image
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        return image.resize((self.size, self.size), Image.Resampling.LANCZOS, box=box)

    def on_background(self, image: ImageLike) -> Image.Image:
        """One picture, turned upright -> RGB of its own size in 8 bits, transparency laid on the background.

        Raises TypeError for what is no picture, ValueError for floats outside [0, 1].
        """
        image = _from_tensor(image) if isinstance(image, Tensor) else image
        image = _from_array(image) if isinstance(image, np.ndarray) else image
        if not isinstance(image, Image.Image):
            raise TypeError(f"an image must be a PIL image, a uint8 array or floats, not {type(image).__name__}")
        image = upright(image)
        if image.mode == "RGB":
            return image
        ground = Image.new("RGB", image.size, tuple(self.background))
        ground.paste(image, mask=image)
        return ground

    @overload
    def postprocess(self, pixel_values: Tensor, output_type: Literal["pil"] = "pil") -> list[Image.Image]: ...
    @overload
    def postprocess(self, pixel_values: Tensor, output_type: Literal["np"]) -> np.ndarray: ...
    @overload
    def postprocess(self, pixel_values: Tensor, output_type: Literal["pt"]) -> Tensor: ...
    def postprocess(
        self, pixel_values: Tensor, output_type: Literal["pil", "np", "pt"] = "pil"
    ) -> list[Image.Image] | np.ndarray | Tensor:
        """pixel_values (B, 3, H, W) in [0, 1] -> PIL images, an array (B, H, W, 3) in [0, 1], or the tensor."""
        if output_type == "pt":
            return pixel_values
        arrays = pixel_values.detach().float().cpu().permute(0, 2, 3, 1).numpy()
        if output_type == "np":
            return arrays
        if output_type == "pil":
            return [Image.fromarray(array) for array in (arrays.clip(0, 1) * 255).round().astype(np.uint8)]
        raise ValueError(f"output_type={output_type!r} must be 'pil', 'np' or 'pt'")


def each_picture(images: ImageLike | list[ImageLike]) -> list[ImageLike]:
    """
    A picture, a list of them or a batch in one array or tensor -> a list of pictures.

    A picture is a PIL image, an array (H, W, 3 or 4) or (H, W) of uint8, or what `postprocess` makes: floats in
    [0, 1], an array (H, W, 3) or a tensor (3, H, W). A batch has an axis before these.
    """
    if isinstance(images, np.ndarray | Tensor) and images.ndim == 4:
        return list(images)
    return images if isinstance(images, list) else [images]


def _from_tensor(tensor: Tensor) -> np.ndarray:
    if tensor.ndim != 3 or tensor.shape[0] != 3:
        raise TypeError(f"a tensor {tuple(tensor.shape)} is no picture; pass (3, H, W), or (B, 3, H, W) for several")
    array = tensor.detach().cpu().movedim(0, -1)  # (H, W, 3)
    return (array.float() if array.is_floating_point() else array).numpy()  # numpy has no bfloat16


def _from_array(array: np.ndarray) -> Image.Image:
    if np.issubdtype(array.dtype, np.floating):
        low, high = array.min(initial=0), array.max(initial=1)
        if not (low >= 0 and high <= 1):  # NaN is neither
            raise ValueError(f"floats from {low:g} to {high:g} are no picture; pass some in [0, 1], or uint8")
        array = (array.astype(np.float64) * 255).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise TypeError(f"an array of {array.dtype} is no picture: it must be uint8, or floats in [0, 1]")
    if array.ndim != 2 and array.shape[2:] not in ((3,), (4,)):
        raise TypeError(f"an array {array.shape} is no picture; pass (H, W), (H, W, 3) or (H, W, 4)")
    return Image.fromarray(array)


DVAEImageProcessor.register_for_auto_class()  # this file is saved beside its settings
