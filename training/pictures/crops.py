"""The paper's two random crops (arXiv 2102.12092, appendices A and B), by torchvision, from a given generator.

For the dVAE any square of the shorter side, zoomed to 9/8 up to 12/8 of the target; for the prior a square near the
centre, zoomed less, so that what the caption names stays in sight. Flips are the caller's.
"""

import random

from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

LARGEST_ZOOM = 12 / 8  # of the target, before the last crop


def dvae_crop(image: Tensor, size: int, rng: random.Random) -> Tensor:
    """uint8 (3, H, W) -> (3, size, size): any square of min(H, W), zoomed to 9/8 to 12/8 of size, a crop of that."""
    height, width = image.shape[-2:]
    side = min(height, width)
    square = F.crop(image, rng.randint(0, height - side), rng.randint(0, width - side), side, side)
    return zoom_and_crop(square, size, round(9 / 8 * size), round(LARGEST_ZOOM * size), rng)


def prior_crop(image: Tensor, size: int, rng: random.Random) -> Tensor:
    """uint8 (3, H, W) -> (3, size, size): a square near the centre, zoomed to 1 to 9/8 of size, a crop of that."""
    height, width = image.shape[-2:]
    side = min(height, width)
    square = F.crop(image, near_centre(height - side, rng), near_centre(width - side, rng), side, side)
    return zoom_and_crop(square, size, size, round(9 / 8 * size), rng)


def near_centre(slack: int, rng: random.Random) -> int:
    """An offset in the middle quarter of 0 to slack."""
    return rng.randrange(3 * slack // 8, max(3 * slack // 8 + 1, 5 * slack // 8))


def zoom_and_crop(square: Tensor, size: int, smallest: int, largest: int, rng: random.Random) -> Tensor:
    """Resized to a side in [smallest, largest], or less where it is smaller, never below size; a crop of that."""
    side = square.shape[-1]
    zoomed = rng.randint(max(size, min(side, smallest)), max(size, min(side, largest)))
    resized = F.resize(square, [zoomed, zoomed], v2.InterpolationMode.BILINEAR, antialias=True)
    return F.crop(resized, rng.randint(0, zoomed - size), rng.randint(0, zoomed - size), size, size)
