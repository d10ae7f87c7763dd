"""The VQGANs of taming-transformers, minDALL-E, ruDALL-E, LlamaGen and Janus: names and shapes of six layouts."""

import re
from dataclasses import dataclass

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from dvae import VQGAN, VQGANConfig

from .filling import Made, Source, fill
from .stored import Stored

FIRST = "encoder.conv_in.weight"  # what each of them has, and the rest lies beside
PARTS = ("encoder.", "decoder.", "quantize.", "quant_conv.", "post_quant_conv.")
UNUSED = ("quantize.codebook_used",)  # LlamaGen's count of what was in use while it learned


@dataclass(frozen=True)
class Layout:
    """
    title: for errors. down, up, block, middle: the names of levels, of a level's blocks and of the middle's three
    layers. up_from_grid: whether the decoder counts its levels from the grid, not from full resolution. normalised:
    whether codes are looked up by angle. image_size: what it paints where no settings lie beside it.
    """

    title: str
    down: str
    up: str
    block: str
    middle: tuple[str, str, str]
    up_from_grid: bool
    normalised: bool
    image_size: int


TAMING_MIDDLE = ("block_1", "attn_1", "block_2")
TAMING = Layout("taming-transformers' VQGAN", "down", "up", "block", TAMING_MIDDLE, False, False, 256)
JANUS = Layout("Janus' VQGAN in transformers' layout", "down", "up", "block", TAMING_MIDDLE, True, True, 384)
VQ_16 = Layout("LlamaGen's VQGAN", "conv_blocks", "conv_blocks", "res", ("0", "1", "2"), True, True, 256)
JANUS_VQ_16 = Layout("Janus' VQGAN", "conv_blocks", "conv_blocks", "res", ("0", "1", "2"), True, True, 384)

INSIDE = {
    "norm_1": "norm1",
    "conv_1": "conv1",
    "norm_2": "norm2",
    "conv_2": "conv2",
    "shortcut": "nin_shortcut",
    "query": "q",
    "key": "k",
    "value": "v",
    "output": "proj_out",
}
AROUND = {
    "encoder.first.": "encoder.conv_in.",
    "encoder.norm.": "encoder.norm_out.",
    "encoder.last.": "encoder.conv_out.",
    "decoder.first.": "decoder.conv_in.",
    "decoder.norm.": "decoder.norm_out.",
    "decoder.last.": "decoder.conv_out.",
    "decoder.of_codes.": "post_quant_conv.",
    "posterior.head.": "quant_conv.",
    "posterior.codebook.": "quantize.embedding.",
}


def joined_weight(project: Tensor, quantise: Tensor) -> Tensor:
    """1×1 convolutions (K, E, 1, 1) after (E, D, 1, 1) -> (K, D, 1, 1)."""
    return torch.einsum("keij,edij->kdij", project, quantise)


def joined_bias(project: Tensor, project_bias: Tensor, quantise_bias: Tensor) -> Tensor:
    return project[:, :, 0, 0] @ quantise_bias + project_bias


GUMBEL: dict[str, Source] = {
    "posterior.head.weight": Made(joined_weight, ("quantize.proj.weight", "quant_conv.weight")),
    "posterior.head.bias": Made(joined_bias, ("quantize.proj.weight", "quantize.proj.bias", "quant_conv.bias")),
    "posterior.codebook.weight": "quantize.embed.weight",
}


def holds_vqgan(stored: Stored) -> bool:
    return any(name.endswith(FIRST) for name in stored)


def read_vqgan(stored: Stored, *, image_size: int | None = None, dtype: torch.dtype | None = None) -> VQGAN:
    """
    The VQGAN of a checkpoint that holds one, alone or among other tensors, in evaluation mode.

    image_size: None takes what such checkpoints paint: 256, and 384 for Janus. dtype: None keeps the stored one.

    Raises an OSError where there is none, and for the first tensor that is missing, of another shape, or too many.
    """
    own, layout = taken_for(stored)
    config = config_of(own, layout, image_size)
    with torch.device("meta"):
        vqgan = VQGAN(config)
    sources = {name: source_of(name, layout, config) for name in vqgan.state_dict()}
    used = {part for source in sources.values() for part in ([source] if isinstance(source, str) else source.names)}
    left = [name for name in own if name.startswith(PARTS) and name not in used and name not in UNUSED]
    if left:
        shape = own[left[0]].shape
        raise OSError(f"{stored.source}, taken for {layout.title}: {left[0]} {shape} has no place in it")
    fill(vqgan, sources, own, layout.title, dtype)
    vqgan.posterior.codebook.float()
    return vqgan.eval()


def vqgan_config(stored: Stored, image_size: int | None) -> VQGANConfig:
    """The config alone of what `read_vqgan` reads."""
    return config_of(*taken_for(stored), image_size)


def taken_for(stored: Stored) -> tuple[Stored, Layout]:
    """The VQGAN's tensors and their layout, by its names: taming's level 0 of the decoder doubles nothing."""
    prefix = next((name.removesuffix(FIRST) for name in stored if name.endswith(FIRST)), None)
    if prefix is None:
        raise OSError(f"{stored.source} holds no VQGAN: none of its {len(stored)} tensors is …{FIRST}")
    own = stored.under(prefix)
    if "encoder.conv_blocks.0.res.0.conv1.weight" in own:
        return own, JANUS_VQ_16 if prefix.startswith("gen_vision_model.") else VQ_16
    return own, JANUS if "decoder.up.0.upsample.conv.weight" in own else TAMING


def config_of(own: Stored, layout: Layout, image_size: int | None) -> VQGANConfig:
    """All sizes but the pictures', by the tensors' shapes."""

    def count(pattern: str) -> int:
        return len({found.group(1) for name in own if (found := re.match(pattern, name))})

    def size(name: str, dimension: int = 0) -> int:
        shape = own[name].shape if name in own else ()
        if len(shape) <= dimension or 0 in shape:
            raise OSError(f"{own.source}, taken for {layout.title}: {name} is missing, or has no sizes: {shape}")
        return shape[dimension]

    channels, levels = size(FIRST), count(rf"encoder\.{layout.down}\.(\d+)\.")
    widths = [size(f"encoder.{layout.down}.{i}.{layout.block}.0.conv1.weight") for i in range(levels)]
    gumbel = "quantize.proj.weight" in own
    codebook = "quantize.embed.weight" if gumbel else "quantize.embedding.weight"
    sizes = {
        "image_size": image_size or layout.image_size,
        "channels": channels,
        "channel_multipliers": [width // channels for width in widths],
        "blocks_per_level": count(rf"encoder\.{layout.down}\.0\.{layout.block}\.(\d+)\."),
        "attention_levels": [i for i in range(levels) if f"encoder.{layout.down}.{i}.attn.0.q.weight" in own],
        "latent_channels": size("encoder.conv_out.weight"),
        "codebook_dim": size(codebook, 1),
        "codebook_size": size(codebook),
        "posterior": "gumbel" if gumbel else "normalised_vq" if layout.normalised else "vq",
    }
    try:
        return VQGANConfig(**sizes)
    except StrictDataclassError as error:
        reason = " ".join(str(error).split())
        raise OSError(f"{own.source}, taken for {layout.title}: {reason}") from error


def source_of(name: str, layout: Layout, config: VQGANConfig) -> Source:
    """Our name of a weight -> the layout's; the head of a Gumbel VQGAN is two 1×1 convolutions in one."""
    if config.posterior == "gumbel" and name in GUMBEL:
        return GUMBEL[name]
    for ours, theirs in AROUND.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    part, place, number, *inside = name.split(".")
    encodes = part == "encoder"
    if place == "middle":
        theirs = [part, "mid", layout.middle[int(number)], *inside]
    else:
        down = encodes or layout.up_from_grid
        level = int(number) if down else len(config.channel_multipliers) - 1 - int(number)
        resample = "downsample.conv" if encodes else "upsample.conv"
        kinds = {"blocks": layout.block, "attentions": "attn", "resample": resample}
        theirs = [part, layout.down if encodes else layout.up, str(level), kinds[inside[0]], *inside[1:]]
    return ".".join(INSIDE.get(word, word) for word in theirs)
