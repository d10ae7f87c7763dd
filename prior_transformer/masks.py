"""
Who sees whom in the stream `[BOS | t_1..t_T | c_1..c_N]`: the causal mask and the paper's three sparse ones.

A mask is a pure function of the positions of queries and keys (integer tensors that broadcast, counted from BOS at
0), so the same few lines give a whole square for training and one row for a decoding step. True means "attends to".
In the drawings a row is a query, a column a key, `#` is attended to, and the image is 3 × 3 after BOS and one text
token. Every mask is causal, and in every mask all image tokens see BOS and the whole text. Source: arXiv 2102.12092,
figure 11.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def full_mask(query: Tensor, key: Tensor) -> Tensor:
    """
    Every token sees itself and all before it.

        B t | c c c c c c c c c
        #
        # #
        # # | #
        # # | # #
        # # | # # #
        # # | # # # #
        # # | # # # # #
        # # | # # # # # #
        # # | # # # # # # #
        # # | # # # # # # # #
        # # | # # # # # # # # #
    """
    return key <= query


def row_mask(query: Tensor, key: Tensor, *, prefix_length: int, grid_size: int) -> Tensor:
    """
    An image token sees the last grid_size + 1 image tokens in raster order, itself counted: the furthest is the one
    right above it.

        B t | c c c c c c c c c
        #
        # #
        # # | #
        # # | # #
        # # | # # #
        # # | # # # #
        # # |   # # # #
        # # |     # # # #
        # # |       # # # #
        # # |         # # # #
        # # |           # # # #
    """
    return full_mask(query, key) & ((key < prefix_length) | (query - key <= grid_size))


def column_mask(query: Tensor, key: Tensor, *, prefix_length: int, grid_size: int) -> Tensor:
    """
    An image token sees its own column, from the top down to itself.

        B t | c c c c c c c c c
        #
        # #
        # # | #
        # # |   #
        # # |     #
        # # | #     #
        # # |   #     #
        # # |     #     #
        # # | #     #     #
        # # |   #     #     #
        # # |     #     #     #
    """
    return full_mask(query, key) & ((key < prefix_length) | ((query - key) % grid_size == 0))


def convolutional_mask(
    query: Tensor, key: Tensor, *, prefix_length: int, grid_size: int, kernel_size: int = 11
) -> Tensor:
    """
    An image token sees those kernel_size × kernel_size tokens around it that come before it, by their distance in
    raster order: past the end of a row the square goes on at the start of the next, as in figure 11 (d). Drawn for
    kernel_size = 3:

        B t | c c c c c c c c c
        #
        # #
        # # | #
        # # | # #
        # # | # # #
        # # | # # # #
        # # | # # # # #
        # # |   # # # # #
        # # |     # # # # #
        # # |       # # # # #
        # # |         # # # # #
    """
    reach = kernel_size // 2
    distance = query - key
    near = (distance <= reach * grid_size + reach) & ((distance + reach) % grid_size <= 2 * reach)
    return full_mask(query, key) & ((key < prefix_length) | near)


def clipped_convolutional_mask(
    query: Tensor, key: Tensor, *, prefix_length: int, grid_size: int, kernel_size: int = 11
) -> Tensor:
    """
    The same with the square clipped at the grid's edges, as ruDALL-E has it. Drawn for kernel_size = 3:

        B t | c c c c c c c c c
        #
        # #
        # # | #
        # # | # #
        # # |   # #
        # # | # #   #
        # # | # # # # #
        # # |   # #   # #
        # # |       # #   #
        # # |       # # # # #
        # # |         # #   # #
    """
    reach = kernel_size // 2
    query_cell, key_cell = query - prefix_length, key - prefix_length
    near_row = query_cell // grid_size - key_cell // grid_size <= reach
    near_column = (query_cell % grid_size - key_cell % grid_size).abs() <= reach
    return full_mask(query, key) & ((key < prefix_length) | (near_row & near_column))


def layer_mask_names(attention_pattern: str, num_hidden_layers: int, conv_edges: str = "wrapped") -> list[str]:
    """
    The mask of each layer, first to last. "full": all "full". "dalle": with i counted from 1, "column" where (i − 2)
    mod 4 = 0, else "row", and the last layer alone "convolutional", or "clipped_convolutional" for conv_edges
    "clipped": row, column, row, row, row, column, …, convolutional.
    """
    if attention_pattern == "full":
        return ["full"] * num_hidden_layers
    sparse = ["column" if (i - 2) % 4 == 0 else "row" for i in range(1, num_hidden_layers)]
    return [*sparse, {"wrapped": "convolutional", "clipped": "clipped_convolutional"}[conv_edges]]


def attention_mask(
    name: str,
    *,
    start: int,
    stop: int,
    prefix_length: int,
    grid_size: int,
    kernel_size: int = 11,
    device: torch.device | None = None,
) -> Tensor:
    """
    The rows start..stop−1 of one mask over the keys 0..stop−1.

    name: "full", "row", "column", "convolutional" or "clipped_convolutional"; prefix_length: 1 + T, of BOS and text.
    Returns bool (stop − start, stop). Raises `KeyError` for another name.
    """
    sizes = {"prefix_length": prefix_length, "grid_size": grid_size}
    masks: dict[str, tuple[Callable[..., Tensor], dict[str, int]]] = {
        "full": (full_mask, {}),
        "row": (row_mask, sizes),
        "column": (column_mask, sizes),
        "convolutional": (convolutional_mask, sizes | {"kernel_size": kernel_size}),
        "clipped_convolutional": (clipped_convolutional_mask, sizes | {"kernel_size": kernel_size}),
    }
    mask, options = masks[name]
    key = torch.arange(stop, device=device)
    return mask(key[start:, None], key[None, :], **options)
