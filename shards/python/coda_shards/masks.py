"""What S1, S2, S3 and the noise level do to a row, from docs/shard-format.md alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coda_shards.draws import Stream, survival_threshold, threshold
from coda_shards.spans import KINDS, Span, kinds_of


@dataclass(frozen=True)
class Settings:
    """The curriculum at a step; the names are those of the manifest."""

    profile: str
    seed: int
    step: int
    p1: float
    p2: float
    p3: float
    block_sizes: Sequence[int]
    sampling_eps: float
    span_ratio: float
    score_pads: bool
    mask_blocks: str | Sequence[str] = "tokens"


@dataclass(frozen=True)
class Shape:
    """A row without its tokens."""

    length: int
    row_key: int
    prefix_len: int
    valid_len: int
    maskable: Sequence[tuple[int, int]]
    spans: Sequence[Span] = ()


@dataclass(frozen=True)
class Plan:
    """What happens to a row at a visit; the names are those of `coda-curriculum draw --json`."""

    sigma: float
    strategies: list[str]
    prefix_len: int
    valid_len: int
    block_size: int | None
    masked: list[int]


def plan(settings: Settings, row: Shape, epoch: int) -> Plan:
    """The plan of one row at the visit of this epoch."""

    def draw(purpose: str) -> Stream:
        return Stream(settings.seed, row.row_key, epoch, purpose)

    def gate(purpose: str, probability: float) -> bool:
        return draw(purpose).first() < threshold(probability)

    def cut(purpose: str) -> int:
        return 1 + (draw(purpose).first() * (row.length - 1) >> 32)

    eps = settings.sampling_eps
    sigma = eps + (1.0 - eps) * (draw("Sigma").first() / 2.0**32)

    s1 = row.length >= 2 and gate("PrefixGate", settings.p1)
    s2 = row.length >= 2 and not s1 and gate("SuffixGate", settings.p2)
    protected = math.floor(min(max(settings.span_ratio, 0.0), 1.0) * row.prefix_len)
    prefix = max(protected, cut("PrefixCut")) if s1 else protected
    valid = min(row.valid_len, cut("SuffixCut")) if s2 else row.valid_len

    if settings.profile == "coda-paper":
        s3, sizes = gate("BlockGate", settings.p3), draw("BlockSize")
    else:
        s3, sizes = settings.p3 > 0.0, Stream(settings.seed, settings.step, 0, "BatchBlockSize")
    block_size = None
    if s3:
        block_size = settings.block_sizes[sizes.first() * len(settings.block_sizes) >> 32]

    allowed = np.zeros(row.length, dtype=bool)
    allowed[protected : row.prefix_len] = True
    for start, length in row.maskable:
        allowed[start : start + length] = True
    allowed[valid:] = settings.score_pads and settings.p2 <= 0.0
    allowed[:prefix] = False

    if block_size is None or settings.mask_blocks != "tokens":
        words = draw("TokenMask").words(row.length)
        if block_size is not None:
            words = words[_firsts(row, allowed, kinds_of(settings.mask_blocks), block_size)]
        masked = allowed & (words < threshold(sigma))
    else:
        words = draw("BlockStart").words(row.length)
        starts = words >= survival_threshold(1.0 - sigma, block_size)
        masked = _blocks(allowed, starts, block_size)

    taken = {"S1": s1, "S2": s2, "S3": s3}
    return Plan(
        sigma=sigma,
        strategies=[name for name, here in taken.items() if here],
        prefix_len=prefix,
        valid_len=valid,
        block_size=block_size,
        masked=[int(position) for position in np.flatnonzero(masked)],
    )


def _blocks(allowed: NDArray[np.bool_], starts: NDArray[np.bool_], k: int) -> NDArray[np.bool_]:
    """The union of the blocks of `k` positions that lie inside one run of allowed ones."""
    masked = np.zeros_like(allowed)
    for first, end in _runs(allowed):
        for start in first + np.flatnonzero(starts[first:end]):
            if start + k <= end:
                masked[start : start + k] = True
    return masked


def _firsts(
    row: Shape, allowed: NDArray[np.bool_], kinds: Sequence[str], longest: int
) -> NDArray[np.int64]:
    """For every position the first one of its block, or itself outside of blocks."""
    firsts = np.arange(row.length)
    free = 0
    for start, length, kind in row.spans:
        here = slice(start, start + length)
        wanted = KINDS[kind] in kinds and length <= longest
        if wanted and start >= free and allowed[here].all():
            firsts[here] = start
            free = start + length
    return firsts


def _runs(allowed: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """The maximal runs of allowed positions: first, and the one after the last."""
    edges = np.flatnonzero(np.diff(allowed.astype(np.int8), prepend=0, append=0))
    return zip(edges[0::2].tolist(), edges[1::2].tolist())
