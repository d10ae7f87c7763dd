"""Sizes that a posterior's codes can have: a lattice has as many as points."""

LATTICES = {
    "fsq": {"codebook_size": 9, "codebook_dim": 2},
    "lfq": {"codebook_size": 16, "codebook_dim": 4},
}
