"""Who has transformers and not this project: paints greedily with parts from the Hub. Run by test_hub.py.

python -I hub_stranger.py PIPELINE DVAE: ids of a pipeline and of a dVAE alone; prints JSON, writes pixels*.npy here.
"""

import importlib.util
import json
import sys

OURS = ("dvae", "pipelines", "prior_transformer", "training", "zuko")


class Refuse:
    """Stands before all other finders: the project may be installed, and zuko is an extra."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in OURS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def is_refused(name: str) -> bool:
    try:
        importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return True
    return False


sys.meta_path.insert(0, Refuse())

import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer  # noqa: E402


@torch.no_grad()
def paint(dvae, prior, tokenizer, prompts: list[str]) -> torch.Tensor:
    """The likeliest code each time, the stream read anew for each; codes (B, h, w)."""
    text_ids = tokenizer.encode_captions(prompts)
    codes = torch.empty(len(prompts), 0, dtype=torch.long)
    for _ in range(prior.config.image_length):
        logits = prior(prior.join(text_ids, codes)).image_logits[:, -1]
        codes = torch.cat([codes, logits.argmax(-1, keepdim=True)], dim=1)
    return codes.unflatten(1, (dvae.config.grid_size, dvae.config.grid_size))


def main(pipeline_id: str, dvae_id: str) -> None:
    dvae, prior = (
        AutoModel.from_pretrained(pipeline_id, subfolder=name, trust_remote_code=True).eval()
        for name in ("dvae", "prior")
    )
    tokenizer = AutoTokenizer.from_pretrained(pipeline_id, subfolder="tokenizer", trust_remote_code=True)
    processor = AutoImageProcessor.from_pretrained(pipeline_id, subfolder="image_processor", trust_remote_code=True)
    alone = AutoModel.from_pretrained(dvae_id, trust_remote_code=True).eval()
    codes = paint(dvae, prior, tokenizer, ["an armchair", "a red apple"])
    pixels, pixels_alone = (torch.cat([part.decode(own[None]) for own in codes]) for part in (dvae, alone))
    np.save("pixels.npy", processor.postprocess(pixels, output_type="pt").numpy())  # decoded alone
    np.save("pixels_alone.npy", pixels_alone.numpy())
    print(json.dumps({"codes": codes.tolist(), "refused": [name for name in OURS if is_refused(name)]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
