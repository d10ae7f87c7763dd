"""What a contrastive model learns by, and how its answers are counted: does a picture show what its caption says?"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from pipelines.judges.small_clip import SmallCLIP

TURN = v2.RandomAffine((-8, 8), translate=(0.04, 0.04), scale=(0.85, 1.1))


def augment(pixel_values: Tensor) -> Tensor:
    """
    Pictures (B, 3, S, S), turned, moved and scaled at random, each 16 alike; what comes in from outside is as their
    border. Not mirrored: a caption may say left and right.
    """
    margin = pixel_values.shape[-1] // 4
    padded = F.pad(pixel_values, (margin,) * 4, mode="replicate")
    return torch.cat([TURN(part) for part in padded.split(16)])[..., margin:-margin, margin:-margin]


def contrastive_loss(logits: Tensor, names: Tensor) -> Tensor:
    """
    Logits of pictures with captions (B, B), the own ones on the diagonal -> the symmetric loss, in nats (CLIP, arXiv
    2103.00020, figure 3). names: (B,), or (B, G) of several kinds; pictures that have one in common are all right
    answers to each other's captions.
    """
    names = names.view(len(names), -1)
    same = (names[:, None] == names[None, :]).any(-1).float()
    target = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


@torch.no_grad()
def ranks(scorer: SmallCLIP, pixel_values: Tensor, names: Tensor, name_ids: Tensor) -> Tensor:
    """Pictures (B, 3, S, S), places of their names (B,), all names' ids (M, T) -> rank of the own (B,), 0 best."""
    similarity = scorer.embed_images(pixel_values) @ scorer.embed_text(name_ids).T  # (B, M)
    own = similarity.gather(1, names[:, None])
    return (similarity > own).sum(1)


@torch.no_grad()
def r_precision(
    scorer: SmallCLIP, pixel_values: Tensor, names: Tensor, name_ids: Tensor, captions: int = 100
) -> Tensor:
    """Whether each picture's own name is the nearest of `captions`, the others drawn at random: (B,) of 0 and 1."""
    similarity = (scorer.embed_images(pixel_values) @ scorer.embed_text(name_ids).T).cpu()  # (B, M)
    return own_name_first(similarity, names, captions)


def own_name_first(similarity: Tensor, names: Tensor, captions: int) -> Tensor:
    """
    Similarities of pictures to names (B, M), places of their own (B,) -> whether the own one is the most similar of
    `captions`, the others drawn at random: (B,) of 0 and 1. Of fewer names than that it is of all.
    """
    generator = torch.Generator().manual_seed(0)
    hits = []
    for row, own in zip(similarity, names.tolist(), strict=True):
        others = torch.randperm(similarity.shape[1], generator=generator)
        others = others[others != own][: captions - 1]
        hits.append(float(len(others) == 0 or row[own] > row[others].max()))
    return torch.tensor(hits)
