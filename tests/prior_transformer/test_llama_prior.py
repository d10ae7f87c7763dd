"""What is LlamaPrior's own, beside the invariants of every prior: rotations, groups of heads, parity with Llama."""

import copy
import itertools

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from messages import refused
from small_priors import GRID, KINDS, T, make_batch, make_prior
from transformers import LlamaConfig, LlamaModel

from prior_transformer import LlamaPrior, LlamaPriorConfig, PriorTransformer, load_prior, prior_config
from prior_transformer.llama_blocks import RMSNorm, places, rotate, rotations

CPU = torch.device("cpu")


def turned(heads: torch.Tensor, config: LlamaPriorConfig, position: int) -> torch.Tensor:
    """(D/H,), as attention has it at this position of the stream."""
    return rotate(heads, *rotations(config, position, position + 1, CPU))


@pytest.mark.parametrize("rope", ["sequence", "grid"])
def test_a_product_knows_how_far_apart_two_places_are_and_nothing_else(rope):
    config = LlamaPriorConfig(rope=rope, text_length=T, grid_size=GRID, hidden_size=32, num_attention_heads=2)
    query, key = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    at = places(config, 0, config.stream_length, CPU).T.tolist()
    products: dict[tuple, list[float]] = {}
    for i, here in enumerate(at):
        for j, there in enumerate(at):
            apart = tuple(a - b for a, b in zip(here, there, strict=True))
            product = (turned(query, config, i) * turned(key, config, j)).sum().item()
            products.setdefault(apart, []).append(product)
    assert all(max(values) - min(values) < 1e-5 for values in products.values())
    means = sorted(values[0] for values in products.values())
    assert all(b - a > 1e-6 for a, b in itertools.pairwise(means)), "two distances look the same"
    assert products[(0,) * len(at[0])][0] == pytest.approx((query * key).sum().item(), abs=1e-5)


def test_the_grid_begins_after_the_text_which_is_on_the_diagonal():
    config = LlamaPriorConfig(rope="grid", text_length=2, grid_size=3)
    rows, columns = places(config, 0, config.stream_length, CPU).tolist()
    assert rows == [0, 1, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5]
    assert columns == [0, 1, 2, 3, 4, 5, 3, 4, 5, 3, 4, 5]
    config.rope = "sequence"
    assert places(config, 0, config.stream_length, CPU).tolist() == [list(range(12))]


def test_the_first_half_of_the_pairs_is_turned_by_the_row_and_the_other_by_the_column():
    config = LlamaPriorConfig(rope="grid", text_length=T, grid_size=GRID, hidden_size=32, num_attention_heads=2)
    first = config.prefix_length
    cos, _ = rotations(config, first, config.stream_length, CPU)  # (N, 8)
    by_cell = cos.view(GRID, GRID, 8)
    assert torch.equal(by_cell[:, 0, :4], by_cell[:, 2, :4]) and torch.equal(by_cell[0, :, 4:], by_cell[2, :, 4:])
    assert not torch.equal(by_cell[0, :, :4], by_cell[2, :, :4])
    assert torch.equal(by_cell[..., :4], by_cell[..., 4:].transpose(0, 1)), "both axes have the same wavelengths"
    assert torch.allclose(by_cell[1, 0, 1], torch.tensor((first + 1) * 10_000 ** (-1 / 4)).cos())


@torch.no_grad()
def test_a_group_of_heads_reads_what_repeated_heads_hold():
    """Keys and values of one head, written out for each of four: the same logits, whole and step by step."""
    grouped = make_prior("grid", hidden_size=32, num_attention_heads=4, num_key_value_heads=2)
    whole = make_prior("grid", hidden_size=32, num_attention_heads=4, num_key_value_heads=4)
    weights = grouped.state_dict()
    for name, weight in weights.items():
        if "qkv" in name:
            query, key, value = weight.split([32, 16, 16])
            repeated = [part.view(2, 8, 32).repeat_interleave(2, dim=0).flatten(0, 1) for part in (key, value)]
            weights[name] = torch.cat([query, *repeated])
    whole.load_state_dict(weights)
    input_ids = make_batch(grouped)
    assert torch.allclose(grouped(input_ids).image_logits, whole(input_ids).image_logits, rtol=0, atol=1e-4)
    text_ids, codes = grouped.split(input_ids)
    (_, ours), (_, theirs) = grouped.read(text_ids), whole.read(text_ids)
    for width, rows_places in ((1, [0, 0]), (2, [1, 1]), (3, [1, 3])):
        at = torch.tensor(rows_places)
        window = codes.gather(1, at[:, None] + torch.arange(width))
        assert torch.allclose(grouped.look(window, at, ours), whole.look(window, at, theirs), rtol=0, atol=1e-4)
    assert ours.keys.nbytes * 2 == theirs.keys.nbytes


@pytest.mark.parametrize("num_key_value_heads", [1, 2, 4])
@torch.no_grad()
def test_its_blocks_are_those_of_transformers_llama(num_key_value_heads):
    """On random weights, by sequence and without QK-norm: hidden states of the whole stream."""
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": num_key_value_heads}
    prior = make_prior("sequence", **sizes, intermediate_size=48, rms_norm_eps=1e-6)
    for name, weight in prior.named_parameters():
        if "norm" in name:
            weight.copy_(1 + 0.5 * torch.randn_like(weight))
    theirs = LlamaConfig(**sizes, intermediate_size=48, num_hidden_layers=5, rms_norm_eps=1e-6, vocab_size=7)
    llama = LlamaModel(theirs).eval()
    heads = torch.tensor([4, num_key_value_heads, num_key_value_heads]) * 8
    for ours, layer in zip(prior.layers, llama.layers, strict=True):
        attention = layer.self_attn
        parts = ours.attention.qkv.weight.split(heads.tolist())
        for linear, part in zip((attention.q_proj, attention.k_proj, attention.v_proj), parts, strict=True):
            linear.weight.copy_(part)
        attention.o_proj.weight.copy_(ours.attention.output.weight)
        layer.mlp.gate_proj.weight.copy_(ours.mlp.hidden.weight[:48])
        layer.mlp.up_proj.weight.copy_(ours.mlp.hidden.weight[48:])
        layer.mlp.down_proj.weight.copy_(ours.mlp.output.weight)
        layer.input_layernorm.weight.copy_(ours.attention_norm.weight)
        layer.post_attention_layernorm.weight.copy_(ours.mlp_norm.weight)
    llama.norm.weight.copy_(prior.norm.weight)
    text_ids, codes = prior.split(make_batch(prior))
    embeds = torch.cat([prior.embed_text(text_ids), prior.embed_codes(codes)], dim=1)
    expected = llama(inputs_embeds=embeds).last_hidden_state
    assert torch.allclose(prior.transform(embeds), expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.3


def test_queries_and_keys_are_of_unit_root_mean_square():
    """So that no scale of their projection changes attention; a gain of each does."""
    prior = make_prior("grid")
    input_ids = make_batch(prior)
    expected = prior(input_ids).image_logits
    size = prior.config.hidden_size
    with torch.no_grad():
        for layer in prior.layers:
            layer.attention.qkv.weight[:size] *= 7
        assert torch.allclose(prior(input_ids).image_logits, expected, rtol=0, atol=1e-2)
        prior.layers[0].attention.query_norm.weight.mul_(3)
    assert not torch.allclose(prior(input_ids).image_logits, expected, rtol=0, atol=1e-2)


def test_the_norm_is_torchs_and_of_float32_in_half_precision():
    norm, x = RMSNorm(16, eps=1e-5), torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
    expected = norm.weight * x / (x.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(norm(x), expected)
    half = copy.deepcopy(norm).bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, ["num_attention_heads=4", "num_key_value_heads=3"]),
        ({"num_key_value_heads": 0}, ["num_attention_heads=4", "num_key_value_heads=0"]),
        ({"hidden_size": 24, "num_attention_heads": 4, "rope": "grid"}, ["hidden_size=24", 4]),
        ({"hidden_size": 12, "num_attention_heads": 4}, ["hidden_size=12", 2]),
        ({"rope": "spiral"}, ["rope", "spiral"]),
        ({"rope_theta": 0}, ["rope_theta=0"]),
        ({"dropout": 1}, ["dropout=1"]),
    ],
)
def test_sizes_that_do_not_fit_are_refused(settings, parts):
    with refused(StrictDataclassError, *parts):
        LlamaPriorConfig(**settings)


def test_a_model_type_picks_the_prior_and_the_papers_is_the_default():
    assert prior_config({"hidden_size": 32}).model_type == "armchair_prior"
    assert isinstance(prior_config({"model_type": "llama_prior", "qk_norm": False}), LlamaPriorConfig)
    with refused(ValueError, "'llama'", "armchair_prior", "llama_prior"):
        prior_config({"model_type": "llama"})
    with refused(TypeError, "LlamaPriorConfig", "attention_pattern"):
        prior_config({"model_type": "llama_prior", "attention_pattern": "full"})


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_says_which_prior_it_holds(kind, tmp_path):
    prior = make_prior(kind)
    prior.save_pretrained(tmp_path)
    assert type(load_prior(tmp_path)) is (LlamaPrior if "model_type" in KINDS[kind] else PriorTransformer)


def test_the_swiglu_has_as_many_weights_as_a_plain_mlp():
    for hidden_size in (192, 384, 1280):
        size = LlamaPriorConfig(hidden_size=hidden_size, num_attention_heads=4).intermediate_size
        assert size % 64 == 0 and 8 * hidden_size <= 3 * size < 8 * hidden_size + 3 * 64
