"""The masks equal a brute-force loop, their own drawings, and the paper's order of layers."""

import json

import pytest
import torch
from small_priors import GRID, T, make_prior

from prior_transformer import (
    PriorTransformer,
    PriorTransformerConfig,
    attention_mask,
    clipped_convolutional_mask,
    column_mask,
    convolutional_mask,
    full_mask,
    layer_mask_names,
    row_mask,
)
from prior_transformer.cache import Window

KERNEL_SIZE = 3
NAMES = ["full", "row", "column", "convolutional", "clipped_convolutional"]


def sees(name: str, query: int, key: int, prefix_length: int, grid_size: int) -> bool:
    """The definition, one pair at a time."""
    if key > query:
        return False
    if name == "full" or key < prefix_length:
        return True
    query_row, query_column = divmod(query - prefix_length, grid_size)
    key_row, key_column = divmod(key - prefix_length, grid_size)
    if name == "row":
        return query - key < grid_size + 1
    if name == "column":
        return query_column == key_column
    reach = KERNEL_SIZE // 2
    if name == "convolutional":  # offsets of the square in raster order, whatever row they end in
        square = range(-reach, reach + 1)
        return query - key in {rows * grid_size + columns for rows in square for columns in square}
    return abs(query_row - key_row) <= reach and abs(query_column - key_column) <= reach


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("prefix_length", "grid_size"), [(1, 3), (4, 4), (6, 5), (2, 2)])
def test_a_mask_equals_a_brute_force_loop(name, prefix_length, grid_size):
    stop = prefix_length + grid_size**2
    expected = torch.tensor([[sees(name, q, k, prefix_length, grid_size) for k in range(stop)] for q in range(stop)])
    sizes = {"prefix_length": prefix_length, "grid_size": grid_size, "kernel_size": KERNEL_SIZE}
    assert torch.equal(attention_mask(name, start=0, stop=stop, **sizes), expected)
    for start in (0, prefix_length - 1, prefix_length + 2):  # the rows of a decoding step, or of a chunk
        part = attention_mask(name, start=start, stop=start + 2, **sizes)
        assert torch.equal(part, expected[start : start + 2, : start + 2])


@pytest.mark.parametrize("mask", [full_mask, row_mask, column_mask, convolutional_mask, clipped_convolutional_mask])
def test_a_mask_equals_its_drawing(mask):
    drawn = [line[8:] for line in mask.__doc__.split("B t | c c c c c c c c c\n")[1].splitlines()]
    drawing = [[line[i : i + 1] == "#" for i in (0, 2, *range(6, 24, 2))] for line in drawn if line.strip()]
    name = mask.__name__.removesuffix("_mask")
    expected = attention_mask(name, start=0, stop=11, prefix_length=2, grid_size=3, kernel_size=KERNEL_SIZE)
    assert drawing == expected.tolist()


def test_the_row_mask_reaches_the_token_right_above():
    """The paper: at a 32 × 32 grid it spans 33 image tokens."""
    mask = attention_mask("row", start=0, stop=257 + 1024, prefix_length=257, grid_size=32)
    last = mask[-1, 257:].nonzero().flatten()
    assert len(last) == 33
    assert last[0] == 1023 - 32 and last[-1] == 1023


def test_every_image_token_sees_the_whole_text():
    for name in NAMES:
        mask = attention_mask(name, start=0, stop=21, prefix_length=5, grid_size=4, kernel_size=KERNEL_SIZE)
        assert mask[5:, :5].all()
        assert mask.diagonal().all()


def test_the_order_of_the_layers_is_the_papers():
    names = layer_mask_names("dalle", 64)
    assert names[:6] == ["row", "column", "row", "row", "row", "column"]
    assert [i for i, name in enumerate(names, start=1) if name == "column"] == list(range(2, 64, 4))
    assert names[-1] == "convolutional" and names.count("convolutional") == 1
    assert layer_mask_names("dalle", 2, "clipped") == ["row", "clipped_convolutional"]
    assert layer_mask_names("full", 3) == ["full"] * 3


def test_the_convolutional_mask_goes_round_the_ends_of_rows():
    """Figure 11 (d): 4 × 4, kernel 3. The first of a row sees the last of the one above the one above it."""
    mask = attention_mask("convolutional", start=0, stop=16 + 7, prefix_length=7, grid_size=4, kernel_size=3)[7:, 7:]
    assert mask[8].nonzero().flatten().tolist() == [3, 4, 5, 7, 8]
    assert mask[7].nonzero().flatten().tolist() == [2, 3, 4, 6, 7]


def test_what_was_saved_before_there_was_a_choice_is_clipped(tmp_path):
    config = PriorTransformerConfig(attention_pattern="dalle", num_hidden_layers=2)
    assert PriorTransformer(config).mask_names[-1] == "convolutional"
    config.save_pretrained(tmp_path)
    assert PriorTransformerConfig.from_pretrained(tmp_path).conv_edges == "wrapped"
    saved = json.loads((tmp_path / "config.json").read_text())
    del saved["conv_edges"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    loaded = PriorTransformerConfig.from_pretrained(tmp_path)
    assert PriorTransformer(loaded).mask_names[-1] == "clipped_convolutional"
    loaded.save_pretrained(tmp_path)
    assert PriorTransformerConfig.from_pretrained(tmp_path).conv_edges == "clipped"


@pytest.mark.parametrize(("width", "places"), [(1, [4, 4]), (3, [2, 2]), (1, [0, 7]), (4, [1, 3]), (9, [0, 0])])
def test_the_masks_of_a_window_equal_the_brute_force_loop(width, places):
    """Of any width, rows at one place or each at its own; a code past the grid's end is as its last one."""
    prior = make_prior("dalle")
    _, cache = prior.read(prior.null_text_ids(2))
    masks = Window.of(cache, torch.tensor(places), width).masks()
    assert set(masks) == {"row", "column", "convolutional"}
    for name, mask in masks.items():
        mask = mask.expand(2, 1, width, -1)
        for row, place in enumerate(places):
            for i in range(width):
                query = 1 + T + min(place + i, GRID**2 - 1)
                expected = [sees(name, query, key, 1 + T, GRID) for key in range(mask.shape[3])]
                assert mask[row, 0, i].tolist() == expected
                assert mask.shape[3] > query


def test_an_unknown_mask_is_refused():
    with pytest.raises(KeyError, match="diagonal"):
        attention_mask("diagonal", start=0, stop=3, prefix_length=1, grid_size=2)
