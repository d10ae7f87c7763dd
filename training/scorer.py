"""A small contrastive text–image model on the real pictures: does a picture show what its caption says?

    python -m training.train_scorer training/configs/emoji_cpu.yaml

It steers the training of the generator and is no judge of it: it saw the same pictures.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Scorer(nn.Module):
    """
    Pictures (B, 3, S, S) and text ids (B, T) into one unit sphere, (B, D); their scaled dot products are logits.

    Source: the symmetric loss of CLIP, arXiv 2103.00020, figure 3; the captions are bags of token embeddings.
    """

    def __init__(self, text_vocab_size: int, pad_token_id: int, dim: int = 128, width: int = 48):
        super().__init__()
        widths = [width, 2 * width, 4 * width, 4 * width]
        layers: list[nn.Module] = []
        for n_in, n_out in zip([3, *widths], widths, strict=False):
            layers += [nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), nn.BatchNorm2d(n_out), nn.ReLU()]
            layers += [nn.Conv2d(n_out, n_out, 3, padding=1, groups=8), nn.BatchNorm2d(n_out), nn.ReLU()]
        self.image = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16 * width, dim))
        self.text = nn.EmbeddingBag(text_vocab_size, dim, padding_idx=pad_token_id, mode="sum")
        self.text_output = nn.Linear(dim, dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def embed_images(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, S, S) in [0, 1] -> (B, D) of length 1."""
        return F.normalize(self.image(2 * pixel_values - 1).float(), dim=-1)

    def embed_text(self, text_ids: Tensor) -> Tensor:
        """(B, T) -> (B, D) of length 1."""
        return F.normalize(self.text_output(F.relu(self.text(text_ids))).float(), dim=-1)

    def forward(self, pixel_values: Tensor, text_ids: Tensor, names: Tensor) -> Tensor:
        """The symmetric loss, in nats; pictures of one name (B,) are all right answers to each other's captions."""
        logits = self.log_scale.exp() * self.embed_images(pixel_values) @ self.embed_text(text_ids).T  # (B, B)
        same = (names[:, None] == names[None, :]).float()
        target = same / same.sum(1, keepdim=True)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


@torch.no_grad()
def ranks(scorer: Scorer, pixel_values: Tensor, names: Tensor, name_ids: Tensor) -> Tensor:
    """Pictures (B, 3, S, S), places of their names (B,), all names' ids (M, T) -> rank of the own (B,), 0 best."""
    similarity = scorer.embed_images(pixel_values) @ scorer.embed_text(name_ids).T  # (B, M)
    own = similarity.gather(1, names[:, None])
    return (similarity > own).sum(1)


@torch.no_grad()
def r_precision(scorer: Scorer, pixel_values: Tensor, names: Tensor, name_ids: Tensor, captions: int = 100) -> Tensor:
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
