"""Rows as numpy arrays: one as a view into the mapped file, many as a copy."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coda_shards.masks import Shape

Ids = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `tokens` and `segments` are read-only views into the mapped file."""

    number: int
    """Its number in the set."""
    tokens: Ids
    """`L` ids; from `valid_len` on the pad id."""
    segments: Ids
    """Where each document starts."""
    row_key: int
    """The key of all its draws."""
    source: int
    """Index into the sources of the set."""
    prefix_len: int
    """Tokens of the prompt; 0 without one."""
    valid_len: int
    """Tokens before the padding."""
    maskable: NDArray[np.uint32]
    """`[n, 2]`: start and length of the spans in which tokens may be masked."""
    spans: NDArray[np.uint32] = field(default_factory=lambda: np.empty((0, 3), dtype=np.uint32))
    """`[n, 3]`: start, length and kind of the spans of its text; none in a set without them."""

    @property
    def shape(self) -> Shape:
        """The row without its tokens, as `masks.plan` wants it."""
        spans = [(start, length) for start, length in self.maskable.tolist()]
        text = [(start, length, kind) for start, length, kind in self.spans.tolist()]
        return Shape(len(self.tokens), self.row_key, self.prefix_len, self.valid_len, spans, text)


@dataclass(frozen=True)
class Rows:
    """`n` rows, copied out of the files."""

    number: NDArray[np.int64]
    """`[n]`: their numbers in the set."""
    tokens: Ids
    """`[n, L]`."""
    row_key: NDArray[np.uint64]
    """`[n]`."""
    source: NDArray[np.uint16]
    """`[n]`."""
    prefix_len: Ids
    """`[n]`."""
    valid_len: Ids
    """`[n]`."""
    segments: list[Ids]
    """`n` arrays of starts."""
    maskable: list[NDArray[np.uint32]]
    """`n` arrays `[spans, 2]` of start and length."""
    spans: list[NDArray[np.uint32]]
    """`n` arrays `[spans, 3]` of start, length and kind."""

    def __len__(self) -> int:
        return len(self.number)

    @property
    def row_length(self) -> int:
        """`L`."""
        return int(self.tokens.shape[1])

    def of(self, places: NDArray[np.int64]) -> Rows:
        """Some of the rows, in this order."""
        return Rows(
            number=self.number[places],
            tokens=self.tokens[places],
            row_key=self.row_key[places],
            source=self.source[places],
            prefix_len=self.prefix_len[places],
            valid_len=self.valid_len[places],
            segments=[self.segments[place] for place in places],
            maskable=[self.maskable[place] for place in places],
            spans=[self.spans[place] for place in places],
        )

    def segment_ids(self, valid_len: NDArray[np.int64] | None = None) -> NDArray[np.int32]:
        """`[n, L]`: the number of each token's document within its row; -1 at pads, which begin
        at `valid_len`, the rows' own unless a noise has cut them shorter.
        """
        ids = np.zeros(self.tokens.shape, dtype=np.int32)
        for place, starts in enumerate(self.segments):
            ids[place, starts] = 1
        np.cumsum(ids, axis=1, out=ids)
        ends = self.valid_len if valid_len is None else valid_len
        ids -= 1
        ids[np.arange(self.row_length) >= ends[:, None]] = -1
        return ids
