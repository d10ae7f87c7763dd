"""Checkpoints in the public layouts, with random weights, of networks of transformers', or written out here."""

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.janus.configuration_janus import JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

SIDE = 16  # of a picture
LEVELS = 3
JANUS_SIZES = {
    "base_channels": 32,
    "channel_multiplier": [1, 1, 2],
    "num_res_blocks": 1,
    "latent_channels": 32,
    "embed_dim": 8,
    "num_embeddings": 24,
    "num_patches": SIDE // 4,
    "projection_dim": 16,
    "image_token_embed_dim": 16,
}


def janus_vqvae(seed: int = 0) -> JanusVQVAE:
    """transformers' own VQGAN, all weights random, its entries of many lengths."""
    torch.manual_seed(seed)
    vqvae = JanusVQVAE(JanusVQVAEConfig(**JANUS_SIZES)).eval()
    with torch.no_grad():
        for weight in vqvae.parameters():
            weight.copy_(torch.randn_like(weight) * (0.15 if weight.ndim > 1 else 0.3))
        vqvae.quantize.embedding.weight.copy_(torch.randn(24, 8) * torch.linspace(0.3, 3, 24)[:, None])
    return vqvae


def encoded(vqvae: JanusVQVAE, pixel_values: Tensor) -> Tensor:
    """Pixels (B, 3, H, W) in [0, 1] -> z (B, E, h, w), before any codebook."""
    return vqvae.quant_conv(vqvae.encoder(2 * pixel_values - 1))


def decoded(vqvae: JanusVQVAE, entries: Tensor) -> Tensor:
    """(B, h, w, E) -> pixels (B, 3, H, W) in [0, 1]."""
    pixels = vqvae.decoder(vqvae.post_quant_conv(entries.permute(0, 3, 1, 2)))
    return (pixels / 2 + 0.5).clamp(0, 1)


def as_deepseek(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers' names of a Janus VQGAN -> DeepSeek's and LlamaGen's, with what these keep beside."""

    def name(ours: str) -> str:
        ours = re.sub(r"\.(down|up)\.(\d+)\.", r".conv_blocks.\2.", ours)
        ours = re.sub(r"(conv_blocks\.\d+)\.block\.", r"\1.res.", ours)
        for place, layer in enumerate(("block_1", "attn_1", "block_2")):
            ours = ours.replace(f".mid.{layer}.", f".mid.{place}.")
        return ours

    return {name(key): value for key, value in weights.items()} | {"quantize.codebook_used": torch.zeros(65536)}


def as_taming(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers' names of a Janus VQGAN -> taming-transformers', whose decoder counts from full resolution."""

    def name(ours: str) -> str:
        return re.sub(r"decoder\.up\.(\d+)", lambda found: f"decoder.up.{LEVELS - 1 - int(found[1])}", ours)

    loss = {"loss.discriminator.main.0.weight": torch.zeros(4, 3, 4, 4)}
    return {name(key): value for key, value in weights.items()} | loss


def as_gumbel(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As `as_taming`, its quantiser a head of logits over K codes."""
    named = as_taming(weights)
    named["quantize.embed.weight"] = named.pop("quantize.embedding.weight")
    generator = torch.Generator().manual_seed(1)
    named["quantize.proj.weight"] = torch.randn(24, 8, 1, 1, generator=generator)
    named["quantize.proj.bias"] = torch.randn(24, generator=generator)
    return named


class Conv2d(nn.Module):
    """A convolution whose weights are called w and b, as in OpenAI's modules."""

    def __init__(self, n_in: int, n_out: int, kernel: int):
        super().__init__()
        self.w = nn.Parameter(torch.randn(n_out, n_in, kernel, kernel) / (n_in * kernel**2) ** 0.5)
        self.b = nn.Parameter(torch.randn(n_out) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.w, self.b, padding=self.w.shape[-1] // 2)


class Block(nn.Module):
    def __init__(self, n_in: int, n_out: int, kernels: tuple[int, ...], gain: float):
        super().__init__()
        sizes = [n_in, *[n_out // 4] * 3, n_out]
        self.id_path = nn.Identity() if n_in == n_out else Conv2d(n_in, n_out, 1)
        parts = {f"conv_{i + 1}": Conv2d(sizes[i], sizes[i + 1], kernel) for i, kernel in enumerate(kernels)}
        self.res_path, self.gain = nn.ModuleDict(parts), gain

    def forward(self, x: Tensor) -> Tensor:
        hidden = x
        for layer in self.res_path.values():
            hidden = layer(hidden.relu())
        return self.id_path(x) + self.gain * hidden


class OpenAIHalf(nn.Module):
    """One of the two networks, (3 or K channels) -> (K or 6 maps), its parts named as in the public pickles."""

    def __init__(self, n_in: int, first: int, kernel: int, widths: list[int], kernels: tuple[int, ...], n_out: int):
        super().__init__()
        blocks, width = 2, first
        parts: dict[str, nn.Module] = {"input": Conv2d(n_in, first, kernel)}
        for i, wide in enumerate(widths):
            group = {}
            for j in range(blocks):
                group[f"block_{j + 1}"] = Block(width, wide, kernels, gain=1 / (len(widths) * blocks) ** 2)
                width = wide
            parts[f"group_{i + 1}"] = nn.ModuleDict(group)
        parts["output"] = nn.ModuleDict({"conv": Conv2d(width, n_out, 1)})
        self.blocks = nn.ModuleDict(parts)

    def run(self, x: Tensor, resample: Callable[[Tensor], Tensor]) -> Tensor:
        x, first = self.blocks["input"](x), True
        for name, group in self.blocks.items():
            if name.startswith("group"):
                x, first = (x if first else resample(x)), False
                for block in group.values():
                    x = block(x)
        return self.blocks["output"]["conv"](x.relu())


def openai_pair(seed: int = 0) -> tuple[OpenAIHalf, OpenAIHalf]:
    """Encoder and decoder of 24 codes."""
    torch.manual_seed(seed)
    encoder = OpenAIHalf(3, 8, 7, [8, 16, 16], (3, 3, 3, 1), n_out=24)
    return encoder, OpenAIHalf(24, 6, 1, [16, 16, 8], (1, 3, 3, 3), n_out=6)


def openai_codes(encoder: OpenAIHalf, pixel_values: Tensor) -> Tensor:
    """Pixels in [0, 1] -> codes (B, h, w)."""
    return encoder.run(0.8 * pixel_values + 0.1, lambda x: F.max_pool2d(x, 2)).argmax(1)


def openai_pixels(decoder: OpenAIHalf, codes: Tensor) -> Tensor:
    """Codes (B, h, w) -> pixels in [0, 1]."""
    one_hot = F.one_hot(codes, 24).permute(0, 3, 1, 2).float()
    maps = decoder.run(one_hot, lambda x: F.interpolate(x, scale_factor=2, mode="nearest"))
    return ((maps[:, :3].sigmoid() - 0.1) / 0.8).clamp(0, 1)
