"""What pictures are judged by through another network's features: Fréchet distances, CLIP score, R-precision.

An extractor is named by what `load_extractor` finds: a CLIP of transformers, the Inception that FID is defined by, or
a scorer or a reranker of this repository. Numbers of two extractors are of two kinds: compare within one.
"""

from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import inception_v3
from torchvision.transforms.v2.functional import to_pil_image

from pipelines.folder.locate import EMBEDDED, RERANKER
from pipelines.judges.clip import CLIPJudge
from pipelines.judges.small_clip import SmallCLIP
from prior_transformer import PriorTokenizer

from .scorer import own_name_first

BATCH_SIZE = 64
IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


class SmallCLIPFeatures(nn.Module):
    """The picture tower of a scorer or a reranker: (B, 3, S, S) in [0, 1] -> (B, D)."""

    def __init__(self, scorer: SmallCLIP, tokenizer: PriorTokenizer):
        super().__init__()
        self.scorer, self.tokenizer = scorer, tokenizer
        self.num_features = scorer.config.projection_dim
        self.eval()

    @classmethod
    def from_folder(cls, folder: Path, part: str) -> Self:
        scorer = SmallCLIP.from_pretrained(folder / part, dtype=torch.float32)
        return cls(scorer, PriorTokenizer.from_pretrained(folder / "tokenizer"))

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.scorer.image_features(pixel_values)

    def embed_text(self, texts: list[str]) -> Tensor:
        """(B, D) of length 1."""
        text_ids = self.tokenizer.encode_captions(texts)
        return self.scorer.embed_text(text_ids.to(self.scorer.device))


class CLIPFeatures(nn.Module):
    """A CLIP of transformers: (B, 3, S, S) in [0, 1] -> unit embeddings (B, D)."""

    def __init__(self, name: str):
        super().__init__()
        clip = CLIPJudge.from_pretrained(name)
        self.model, self.processor = clip.model, clip.processor
        self.num_features = self.embed_text(["a"]).shape[1]
        self.eval()

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self._embed([""] * len(pixel_values), pixel_values).image_embeds.float()

    def embed_text(self, texts: list[str]) -> Tensor:
        """(B, D) of length 1."""
        return self._embed(texts, torch.zeros(len(texts), 3, 8, 8)).text_embeds.float()

    def _embed(self, texts: list[str], pixel_values: Tensor):
        """Both towers: the output that CLIP, SigLIP and their like share has both embeddings or none."""
        images = [to_pil_image(image.cpu()) for image in pixel_values]
        inputs = self.processor(
            text=texts, images=images, padding="max_length", truncation=True, return_tensors="pt"
        )  # padded as SigLIP was trained; CLIP does not mind
        return self.model(**inputs.to(self.model.device))


class InceptionFeatures(nn.Module):
    """
    An Inception v3 with its weights from a file: (B, 3, S, S) in [0, 1] -> (B, 2048), before its last layer.

    torchvision's own weights, or those that published FIDs are measured with, pt_inception-2015-12-05-6726825d.pth,
    whose network is torch-fidelity's (arXiv 1706.08500). Their distances differ.
    """

    num_features = 2048

    def __init__(self, path: Path):
        super().__init__()
        weights = torch.load(path, map_location="cpu", weights_only=True)
        self.is_torchvisions = "AuxLogits.fc.weight" in weights
        self.inception = self._torchvisions(weights) if self.is_torchvisions else self._fidelitys(path)
        self.eval()

    def _torchvisions(self, weights: dict[str, Tensor]) -> nn.Module:
        network = inception_v3(weights=None, init_weights=False, transform_input=True)
        network.load_state_dict(weights)
        network.set_submodule("fc", nn.Identity())
        return network

    def _fidelitys(self, path: Path) -> nn.Module:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:  # in no extra: it installs a package named tests
            raise ImportError(f"the weights in {path} are torch-fidelity's: pip install torch-fidelity") from error
        return FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(path))

    def forward(self, pixel_values: Tensor) -> Tensor:
        if not self.is_torchvisions:
            return self.inception((255 * pixel_values).round().to(torch.uint8))[0]
        images = F.interpolate(pixel_values, (299, 299), mode="bilinear", antialias=True)
        return self.inception((images - IMAGENET_MEAN.to(images)) / IMAGENET_STD.to(images))


TextExtractor = SmallCLIPFeatures | CLIPFeatures  # of texts too, in the same space
Extractor = TextExtractor | InceptionFeatures


def load_extractor(name: str) -> Extractor:
    """
    name: a folder with scorer/ and tokenizer/, as training.train_scorer leaves it; a pipeline's folder with a
        reranker, or "embedded"; a file of Inception v3's weights, torchvision's or torch-fidelity's; or a CLIP's
        folder or Hub id.

    Raises an OSError where it is none of these.
    """
    folder = EMBEDDED if name == EMBEDDED.name else Path(name)
    for part in ("scorer", RERANKER):
        if (folder / part / "config.json").is_file():
            return SmallCLIPFeatures.from_folder(folder, part)
    if Path(name).is_file():
        return InceptionFeatures(Path(name))
    return CLIPFeatures(name)


@torch.no_grad()
def frechet_distance(extractor: Extractor, real: Tensor, fake: Tensor) -> float:
    """
    Pictures (n, 3, S, S) and (m, 3, S, S) in [0, 1] -> ‖μ − μ'‖² + tr(C + C' − 2 (C C')^½) of the Gaussians fitted to
    their features: FID with Inception's; rFID where the second are reconstructions of the first. arXiv 1706.08500.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    distance = FrechetInceptionDistance(feature=extractor, normalize=True).to(real.device)
    for images, is_real in ((real, True), (fake, False)):
        for part in images.split(BATCH_SIZE):
            distance.update(part, real=is_real)
    return distance.compute().item()


@torch.no_grad()
def similarities(extractor: TextExtractor, pixel_values: Tensor, texts: list[str]) -> Tensor:
    """Pictures (n, 3, S, S) and m texts -> their cosines (n, m)."""
    images = torch.cat([F.normalize(extractor(part), dim=-1) for part in pixel_values.split(BATCH_SIZE)])
    parts = [extractor.embed_text(texts[i : i + BATCH_SIZE]) for i in range(0, len(texts), BATCH_SIZE)]
    return (images @ F.normalize(torch.cat(parts), dim=-1).T).cpu()


def caption_fit(extractor: TextExtractor, pixel_values: Tensor, captions: list[str]) -> dict[str, float]:
    """
    Pictures (n, 3, S, S) and their captions -> score: the mean of 100 · max(cosine, 0), CLIP score with a CLIP
    (arXiv 2104.08718); r_precision: how often its own caption is the nearest of 100 different ones.
    """
    texts = list(dict.fromkeys(captions))  # equal captions are one
    own = torch.tensor([texts.index(caption) for caption in captions])
    cosines = similarities(extractor, pixel_values, texts)
    score = 100 * cosines.gather(1, own[:, None]).clamp_min(0).mean()
    return {"score": score.item(), "r_precision": own_name_first(cosines, own, captions=100).mean().item()}
