"""OpenAI's dVAE (github.com/openai/DALL-E): encoder.pkl and decoder.pkl, whole modules, as one of our `DVAE`."""

import re

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from dvae import DVAE, DVAEConfig
from dvae.modeling_dvae import ResidualBlock

from .filling import Made, Source, fill, find
from .stored import Stored

TITLE = "OpenAI's dVAE"
FIRST = "blocks.input.w"
WEIGHTS = {"weight": "w", "bias": "b"}


def holds_openai_dvae(stored: Stored) -> bool:
    return f"encoder.{FIRST}" in stored and f"decoder.{FIRST}" in stored


def read_openai_dvae(stored: Stored, *, image_size: int | None = None, dtype: torch.dtype | None = None) -> DVAE:
    """
    The dVAE of both files, their names under "encoder." and "decoder.", in evaluation mode.

    The decoder's first 1×1 convolution sees a one-hot code, so its columns are the codebook. image_size: None is 256.
    dtype: None keeps the stored one.

    Raises an OSError for the first tensor that is missing or of another shape.
    """
    config = openai_dvae_config(stored, image_size)
    with torch.device("meta"):
        dvae = DVAE(config)
    fill(dvae, sources_of(dvae), stored, TITLE, dtype)
    dvae.posterior.codebook.float()
    return dvae.eval()


def openai_dvae_config(stored: Stored, image_size: int | None) -> DVAEConfig:
    """All sizes but the pictures', by the tensors' shapes."""

    def size(name: str, dimension: int = 0) -> int:
        shape = find(stored, name, TITLE).shape
        if len(shape) != 4 or 0 in shape:
            raise OSError(f"{stored.source}, taken for {TITLE}: {name} has shape {shape}, which is no convolution's")
        return shape[dimension]

    found = [match for name in stored if (match := re.match(r"encoder\.blocks\.group_(\d+)\.block_(\d+)\.", name))]
    groups, blocks = (max((int(match.group(i)) for match in found), default=0) for i in (1, 2))
    if groups * blocks > len(stored):
        raise OSError(f"{stored.source}, taken for {TITLE}: {groups} groups of {blocks} in {len(stored)} tensors")
    group = "encoder.blocks.group_{}.block_1.res_path.conv_{}.w"
    widths = [size(group.format(i, 4)) for i in range(1, groups + 1)]
    try:
        return DVAEConfig(
            image_size=image_size or 256,
            downsample_factor=2 ** (groups - 1),
            codebook_size=size("encoder.blocks.output.conv.w"),
            codebook_dim=size(f"decoder.{FIRST}"),
            widths=widths,
            blocks_per_group=blocks,
            bottleneck=widths[-1] // size(group.format(groups, 1)),
            input_map="shrunk",
        )
    except (StrictDataclassError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise OSError(f"{stored.source}, taken for {TITLE}: {reason}") from error


def sources_of(dvae: DVAE) -> dict[str, Source]:
    """Our name of each weight -> theirs."""
    sources: dict[str, Source] = {
        "posterior.codebook.weight": Made(columns, (f"decoder.{FIRST}", "decoder.blocks.input.b"))
    }
    layers = {
        "encoder.blocks.0": "encoder.blocks.input",
        "posterior.head": "encoder.blocks.output.conv",
        f"decoder.blocks.{len(dvae.decoder.blocks) - 1}": "decoder.blocks.output.conv",
    }
    for part, groups in (("encoder", dvae.config.blocks), ("decoder", dvae.config.blocks[::-1])):
        blocks = iter(
            name
            for name, block in dvae.get_submodule(f"{part}.blocks").named_children()
            if isinstance(block, ResidualBlock)
        )
        for group, count in enumerate(groups, start=1):
            for number in range(1, count + 1):
                ours, theirs = f"{part}.blocks.{next(blocks)}", f"{part}.blocks.group_{group}.block_{number}"
                layers[f"{ours}.id_path"] = f"{theirs}.id_path"
                for i in range(4):  # each after a ReLU
                    layers[f"{ours}.res_path.{2 * i + 1}"] = f"{theirs}.res_path.conv_{i + 1}"
    for ours in dvae.state_dict().keys() - sources.keys():
        layer, kind = ours.rsplit(".", 1)
        sources[ours] = f"{layers[layer]}.{WEIGHTS[kind]}"
    return sources


def columns(weight: Tensor, bias: Tensor) -> Tensor:
    """A 1×1 convolution of K channels, (E, K, 1, 1) and (E,) -> (K, E), what it makes of each one-hot vector."""
    return weight[:, :, 0, 0].T + bias
