"""What all kinds of noise have in common: which positions may be masked, and what comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coda_shards.feed import Batch
from coda_shards.rows import Ids, Rows

Flags = NDArray[np.bool_]
Lengths = NDArray[np.int64]


@dataclass(frozen=True)
class Noised:
    """`n` rows of `L` ids, clean and noised. The loss of a batch of `B` rows is

    sum(weight · cross_entropy(model(noised), clean)) / (B · L)
    """

    clean: Ids
    """`[n, L]`: the targets."""
    noised: Ids
    """`[n, L]`: what the model sees."""
    masked: Flags
    """`[n, L]`: where the mask was put."""
    sigma: NDArray[np.float64]
    """The probability of a mask: `[n]`, or `[n, blocks]` where each block has its own."""
    weight: NDArray[np.float32]
    """`[n, L]`: the weight of each position in the loss; 0 where it is not scored."""
    valid_len: Lengths
    """`[n]`: tokens before the padding."""

    @property
    def scored(self) -> Flags:
        """`[n, L]`: the positions that count in the loss."""
        return self.weight > 0


Noise = Callable[[Batch], Noised]
"""Anything that noises a batch; a schedule over `batch.step` is a function that makes one of the
classes of this package and calls it."""


def maskable(rows: Rows, prefix: Lengths, protected: Lengths, valid: Lengths, pads: bool) -> Flags:
    """`[n, L]`: the positions that may be masked, by the three rules of docs/shard-format.md."""
    allowed = np.zeros(rows.tokens.shape, dtype=bool)
    bounds = zip(prefix.tolist(), protected.tolist(), rows.prefix_len.tolist(), valid.tolist())
    for row, spans, (first, keep, prompt, end) in zip(allowed, rows.maskable, bounds):
        row[keep:prompt] = True
        for start, length in spans.tolist():
            row[start : start + length] = True
        row[end:] = pads
        row[:first] = False
    return allowed


def answers(rows: Rows, pads: bool) -> Flags:
    """`[n, L]`: what may be masked where prompts are always kept."""
    prompt = rows.prefix_len.astype(np.int64)
    return maskable(rows, prompt, prompt, rows.valid_len.astype(np.int64), pads)
