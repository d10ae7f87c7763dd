"""Public VQGANs and OpenAI's dVAE as first stages of ours: codes and pixels are those of other networks."""

import json

import pytest
import torch
from messages import refused
from public_layouts import (
    JANUS_SIZES,
    SIDE,
    as_deepseek,
    as_gumbel,
    as_taming,
    decoded,
    encoded,
    janus_vqvae,
    openai_codes,
    openai_pair,
    openai_pixels,
)
from safetensors.torch import save_file
from torch.nn import functional as F

from dvae import DVAE, VQGAN, load_first_stage
from pipelines.checkpoints.first_stages import find_first_stage


def pixels() -> torch.Tensor:
    return torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


def prefixed(prefix: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: weight.contiguous() for name, weight in weights.items()}


def write_transformers(folder, weights):
    half = len(weights) // 2
    parts = list(prefixed("model.vqmodel.", weights).items())
    for i, part in enumerate((parts[:half], [*parts[half:], ("lm_head.weight", torch.zeros(3, 2))])):
        save_file(dict(part), folder / f"model-0000{i + 1}-of-00002.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "janus", "vq_config": JANUS_SIZES}))


def write_deepseek(folder, weights):
    weights = prefixed("gen_vision_model.", as_deepseek(weights))
    torch.save(weights | {"language_model.lm_head.weight": torch.zeros(3, 2)}, folder / "pytorch_model.bin")
    (folder / "config.json").write_text('{"model_type": "multi_modality"}')


def write_llamagen(folder, weights):
    torch.save({"model": as_deepseek(weights)}, folder / "vq_ds16_t2i.pt")


def write_taming(folder, weights, name="last.ckpt"):
    checkpoint = {"epoch": 3, "state_dict": as_taming(weights), "callbacks": {torch.nn.ReLU: {"best": torch.ones(1)}}}
    torch.save(checkpoint, folder / name)
    (folder / "model.yaml").write_text(f"model:\n  params:\n    ddconfig: {{resolution: {SIDE}}}\n")


def write_taming_among_others(folder, weights):
    """Settings of other programs lie beside it, one of them with tags of its own."""
    write_taming(folder, weights)
    (folder / "a.yml").write_text("a: !Ref b\n")
    (folder / "b.yaml").write_text("- c\n")


def write_mindalle(folder, weights):
    write_taming(folder, weights, "stage1_last.ckpt")
    (folder / "model.yaml").unlink()
    (folder / "config.yaml").write_text(f"stage1:\n  hparams: {{resolution: {SIDE}}}\n")
    torch.save({"state_dict": {"tok_emb_img.weight": torch.zeros(3, 2)}}, folder / "stage2_last.ckpt")


def write_gumbel(folder, weights):
    torch.save({"state_dict": as_gumbel(weights)}, folder / "last.ckpt", _use_new_zipfile_serialization=False)


LAYOUTS = {
    "janus, transformers": (write_transformers, "normalised_vq", SIDE),
    "janus, deepseek": (write_deepseek, "normalised_vq", 384),
    "llamagen": (write_llamagen, "normalised_vq", 256),
    "taming": (write_taming, "vq", SIDE),
    "taming among others": (write_taming_among_others, "vq", SIDE),
    "taming gumbel": (write_gumbel, "gumbel", 256),
    "mindalle": (write_mindalle, "vq", SIDE),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_codes_and_pixels_are_those_of_the_public_network(tmp_path, layout):
    write, posterior, side = LAYOUTS[layout]
    vqvae = janus_vqvae()
    weights = vqvae.state_dict()
    write(tmp_path, weights)
    vqgan = find_first_stage(tmp_path)
    assert isinstance(vqgan, VQGAN) and not vqgan.training
    assert vqgan.config.posterior == posterior and vqgan.config.image_size == side
    entries = vqvae.quantize.embedding.weight.detach()  # (K, E)
    with torch.no_grad():
        z = encoded(vqvae, pixels()).permute(0, 2, 3, 1)  # (B, h, w, E)
        if posterior == "gumbel":
            head = as_gumbel(weights)
            codes = (z @ head["quantize.proj.weight"][:, :, 0, 0].T + head["quantize.proj.bias"]).argmax(-1)
        else:
            if posterior == "normalised_vq":  # both, as the authors do; transformers' own encode leaves it out
                z, entries = F.normalize(z, dim=-1), F.normalize(entries, dim=-1)
            codes = torch.cdist(z.flatten(0, 2), entries).argmin(1).view(z.shape[:3])
        expected = decoded(vqvae, entries[codes])
    assert len(codes.unique()) > 3
    assert torch.equal(vqgan.encode(pixels()), codes)
    torch.testing.assert_close(vqgan.decode(codes), expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.1


@pytest.fixture(scope="module")
def openai(tmp_path_factory):
    folder, pair = tmp_path_factory.mktemp("openai"), openai_pair()
    for name, half in zip(("encoder", "decoder"), pair, strict=True):
        torch.save(half, folder / f"{name}.pkl")
    return folder, *pair


def test_openais_dvae_is_one_of_ours(openai):
    folder, encoder, decoder = openai
    dvae = find_first_stage(folder, image_size=SIDE)
    assert isinstance(dvae, DVAE) and dvae.config.grid == (4, 4)
    with torch.no_grad():
        codes = openai_codes(encoder, pixels())
        assert len(codes.unique()) > 2
        assert torch.equal(dvae.encode(pixels()), codes)
        torch.testing.assert_close(dvae.decode(codes), openai_pixels(decoder, codes), atol=1e-5, rtol=0)
    assert find_first_stage(folder).config.image_size == 256


def test_what_was_brought_in_is_saved_and_found_as_ours(openai, tmp_path):
    write_llamagen(tmp_path, janus_vqvae().state_dict())
    for source in (tmp_path, tmp_path / "vq_ds16_t2i.pt", openai[0]):
        model = find_first_stage(source, image_size=SIDE)
        model.save_pretrained(tmp_path / "saved")
        for again in (find_first_stage(tmp_path / "saved"), load_first_stage(tmp_path / "saved")):
            assert type(again) is type(model)
            assert torch.equal(again.reconstruct(pixels()), model.reconstruct(pixels()))


def test_weights_keep_the_stored_dtype_unless_told_otherwise(tmp_path):
    weights = {name: weight.to(torch.bfloat16) for name, weight in janus_vqvae().state_dict().items()}
    write_llamagen(tmp_path, weights)
    kept, full = find_first_stage(tmp_path), find_first_stage(tmp_path, dtype=torch.float32)
    for model, dtype in ((kept, torch.bfloat16), (full, torch.float32)):
        assert {weight.dtype for weight in model.encoder.parameters()} == {dtype}
        assert model.posterior.codebook.weight.dtype == torch.float32
    assert (kept.encode(pixels()) == full.encode(pixels())).float().mean() > 0.8


def without(name, weights):
    return {key: weight for key, weight in weights.items() if key != name}


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (lambda w: without("decoder.conv_blocks.1.res.0.conv2.bias", w), ["decoder.conv_blocks.1.res.0.conv2.bias"]),
        (lambda w: without("quantize.embedding.weight", w), ["quantize.embedding.weight"]),
        (lambda w: w | {"encoder.conv_out.bias": torch.zeros(7)}, ["encoder.conv_out.bias", "(7,)", "(32,)"]),
        (
            lambda w: w | {"quant_conv.weight": torch.zeros(8, 30, 1, 1)},
            ["quant_conv", "(8, 30, 1, 1)", "(8, 32, 1, 1)"],
        ),
        (
            lambda w: w | {"decoder.conv_blocks.1.attn.0.q.bias": torch.zeros(3)},
            ["conv_blocks.1.attn.0.q.bias", "(3,)"],
        ),
        (lambda w: w | {"encoder.conv_in.weight": torch.zeros(30, 3, 3, 3)}, ["30", "32"]),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(tmp_path, damage, parts):
    torch.save({"model": damage(as_deepseek(janus_vqvae().state_dict()))}, tmp_path / "vq_ds16_t2i.pt")
    with refused(OSError, "vq_ds16_t2i.pt", "LlamaGen", *map(str, parts)) as error:
        find_first_stage(tmp_path)
    assert "\n" not in str(error.value)


def test_folders_without_a_first_stage_are_refused(tmp_path, openai):
    with refused(FileNotFoundError, "/no/such/folder"):
        find_first_stage("/no/such/folder")
    torch.save({"weight": torch.ones(1)}, tmp_path / "model.pt")
    with refused(OSError, str(tmp_path), "model.pt"):
        find_first_stage(tmp_path)
    (tmp_path / "encoder.pkl").write_bytes((openai[0] / "encoder.pkl").read_bytes())
    with refused(OSError, "encoder.pkl", "decoder.pkl"):
        find_first_stage(tmp_path)
    (tmp_path / "last.ckpt").write_bytes(b"half a file")
    with refused(OSError, "last.ckpt", "torch.save"):
        find_first_stage(tmp_path)
