"""The evaluation subset cut into shards, and the tiles of its matrix of pairs.

A shard is a contiguous part of the subset. The tile (i, j) of S shards has the examples of shard i
in its rows and those of shard j in its columns. The matrix is symmetric, so that the S (S + 1) / 2
tiles with i <= j hold all of it.
"""

from itertools import combinations_with_replacement, pairwise

Block = tuple[slice, slice]
"""Rows and columns, as ranges of example numbers: equal, or all rows before all columns."""


def cut(rows: slice, parts: int) -> list[slice]:
    """Cut a range of rows into contiguous parts whose lengths differ by 1 at most."""
    count = rows.stop - rows.start
    edges = [rows.start + count * part // parts for part in range(parts + 1)] if parts else []
    return [slice(begin, end) for begin, end in pairwise(edges)]


def tile_names(shards: int) -> list[str]:
    """Names of the tiles, one per pair of shards: "0000-0000", "0000-0001", ..."""
    pairs = combinations_with_replacement(range(shards), 2)
    return [f"{first:04d}-{second:04d}" for first, second in pairs]


def tile_block(name: str, examples: int, shards: int) -> Block:
    """The rows and columns of a tile.

    Args:
        name: one of ``tile_names``.
        examples: size of the whole evaluation subset.
        shards: how many parts it is cut into.
    """
    parts = cut(slice(0, examples), shards)
    first, second = (parts[int(number)] for number in name.split("-"))
    return first, second
