"""A CLIP of transformers as the judge of pictures."""

from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModel, AutoProcessor

BATCH_SIZE = 64


class CLIPJudge:
    """Scores pictures by the cosine of their embedding and their prompt's, in [−1, 1] (CLIP, arXiv 2103.00020).

    Args:
        model: a CLIPModel, or another of transformers whose output has text_embeds and image_embeds, such as SigLIP.
        processor: its processor, of texts and pictures.
    """

    def __init__(self, model: Any, processor: Any):
        self.model, self.processor = model.eval(), processor

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, revision: str | None = None, device: torch.device | None = None
    ) -> Self:
        """From a folder or a Hub id, from safetensors alone. Raises OSError when there is no such CLIP."""
        try:
            model = AutoModel.from_pretrained(name, revision=revision, use_safetensors=True)
            processor = AutoProcessor.from_pretrained(name, revision=revision)
        except (OSError, ValueError) as error:
            raise OSError(
                f"{str(name)!r} cannot be loaded as a CLIP ({' '.join(str(error).split())[:200]}); pass 'likelihood', "
                "'pmi', 'reranker', or the folder or Hub id of a CLIP that transformers knows, with its processor"
            ) from error
        judge = cls(model, processor)
        try:
            judge(["a picture"], [Image.new("RGB", (64, 64))])
        except (AttributeError, TypeError, ValueError) as error:
            raise OSError(f"{str(name)!r} is a {type(model).__name__}, which embeds no texts and pictures") from error
        judge.model.to(device)
        return judge

    @torch.no_grad()
    def __call__(self, prompts: list[str], images: list[Image.Image]) -> Tensor:
        """Prompts and as many pictures -> float32 (B,)."""
        scores = []
        for start in range(0, len(images), BATCH_SIZE):
            inputs = self.processor(
                text=prompts[start : start + BATCH_SIZE],
                images=images[start : start + BATCH_SIZE],
                padding="max_length",  # as SigLIP was trained; CLIP does not mind
                truncation=True,
                return_tensors="pt",
            )
            output = self.model(**inputs.to(self.model.device))
            pairs = output.text_embeds.float(), output.image_embeds.float()
            scores.append(torch.cosine_similarity(*pairs))
        return torch.cat(scores)
