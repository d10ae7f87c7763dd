"""Quantised, a prior is smaller, says nearly the same, and is neither saved nor trained by mistake."""

import copy
import sys

import pytest
import torch
from messages import refused
from small_priors import KINDS, with_encoder

from pipelines import TextToImagePipeline
from pipelines.quantization import Int8Linear, PackedLinear, quantize_prior
from prior_transformer import StreamPrior, build_prior, prior_config


def make_prior(**settings) -> StreamPrior:
    torch.manual_seed(0)
    sizes = {"text_vocab_size": 300, "codebook_size": 32, "text_length": 6, "grid_size": 4, "num_hidden_layers": 2}
    sizes |= {"hidden_size": 64, "num_attention_heads": 2, "initializer_range": 0.15}
    return with_encoder(build_prior(prior_config(sizes | settings)).eval())


def look_logits(prior: StreamPrior) -> torch.Tensor:
    """Logits of the codes of three pictures, as read and after two looks at one code, (3, 3, K)."""
    generator = torch.Generator().manual_seed(0)
    text_ids = torch.randint(300, (3, 6), generator=generator)
    codes = torch.randint(32, (3, 2), generator=generator)
    with torch.inference_mode():
        hidden_states, cache = prior.read(text_ids)
        logits = [prior.image_logits(hidden_states)]
        logits += [prior.look(codes[:, [i]], torch.tensor([i] * 3), cache)[:, 0] for i in range(2)]
    return torch.stack(logits, dim=1)


# Shares of the norm, 0.02 and 0.2 to 0.43 when this was written.
WIDE = KINDS | {"chat": {**KINDS["chat"], "image_head_size": 64, "initializer_range": 0.1}}


@pytest.mark.parametrize("settings", WIDE.values(), ids=WIDE)
@pytest.mark.parametrize(("kind", "low", "high", "bits"), [("int8", 0.004, 0.05, 8), ("int4", 0.05, 0.6, 4)])
def test_logits_are_near_those_of_the_float_weights(kind, low, high, bits, settings):
    pytest.importorskip("torchao")
    prior = make_prior(**settings)
    exact = look_logits(prior)
    weight = prior.layers[0].mlp.hidden.weight
    quantize_prior(prior, kind)
    logits = look_logits(prior)
    assert low < (logits - exact).norm() / exact.norm() < high
    packed = prior.layers[0].mlp.hidden.weight
    assert packed.nbytes * 8 == weight.numel() * bits
    in_steps = [*prior.layers.modules(), *prior.image_head.modules()]
    assert not any(isinstance(module, torch.nn.Linear) for module in in_steps), "none is left as it was"
    assert not any(parameter.requires_grad for parameter in prior.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "settings"), [("int4", "chat"), ("int4", "table"), ("int8", "sandwich")])
def test_compiled_looks_of_packed_weights_say_the_same(kind, settings):
    pytest.importorskip("torchao")
    torch._dynamo.reset()
    prior = make_prior(**WIDE[settings])
    quantize_prior(prior, kind)
    exact = look_logits(prior)
    prior.compile_step()
    torch.testing.assert_close(look_logits(prior), exact, rtol=0, atol=0.05)


@torch.no_grad()
@pytest.mark.parametrize("size", [12, 40, 100])
def test_int8_rows_of_any_length_are_whole(size):
    """torch's kernel reads past the end of those that no blocks of 16 fill: it gave infinities, or crashed."""
    pytest.importorskip("torchao")
    torch.manual_seed(0)
    linear = torch.nn.Linear(size, 33)
    rows = torch.randn(3, 2, size)
    outputs = Int8Linear(linear)(rows)
    assert 1e-3 < (outputs - linear(rows)).norm() / linear(rows).norm() < 0.03


def test_a_quantised_pipeline_paints_and_is_not_saved(tiny_pipeline, tmp_path):
    pytest.importorskip("torchao")
    pipeline = TextToImagePipeline(**copy.deepcopy(tiny_pipeline.components), sampling={"guidance_scale": 2.0})
    assert pipeline.quantize("int8") is pipeline
    output = pipeline(["a red apple", "an armchair"], seed=0, progress_bar=False)
    alone = pipeline("an armchair", seed=0, progress_bar=False)
    assert torch.equal(alone.codes[0], output.codes[1])
    with refused(ValueError, "int8", "quantize"):
        pipeline.save_pretrained(tmp_path)
    with refused(ValueError, "int8", "quantize"):
        TextToImagePipeline(**pipeline.components).save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    with refused(ValueError, "int8", "int4"):
        pipeline.quantize("int4")


def test_what_cannot_be_quantised_is_refused(monkeypatch):
    with refused(ValueError, "'int3'", "'int8'", "'int4'"):
        quantize_prior(make_prior(), "int3")
    with refused(ValueError, 32, "layers.0.attention.qkv", 48, "'int8'"):
        quantize_prior(make_prior(hidden_size=48), "int4")
    with refused(ValueError, 16, "image_head", 40, "'int8'"):
        quantize_prior(make_prior(codebook_size=40), "int4")
    monkeypatch.setitem(sys.modules, "torchao", None)
    prior = make_prior()
    with refused(ImportError, "pip install 'armchair[quantize]'"):
        quantize_prior(prior, "int8")
    assert not hasattr(prior, "quantized") and all(parameter.requires_grad for parameter in prior.parameters())
    with refused(ValueError, "int4", torch.float32, "bfloat16", "'int8'"):
        quantize_prior(make_prior().to("meta"), "int4")


def test_what_was_packed_on_a_cpu_stays_there():
    linear = PackedLinear(torch.nn.Linear(4, 4))
    with refused(ValueError, "CPU", "meta"):
        linear(torch.zeros(2, 4, device="meta"))
