"""CODA's noise: sigma, S1, S2 and S3 of a whole batch, bit for bit those of `masks.plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coda_shards.draws import Stream, threshold
from coda_shards.feed import Batch
from coda_shards.noise.base import Flags, Lengths, Noised, maskable
from coda_shards.spans import KINDS, kinds_of, need
from coda_shards.streams import Streams, below, survival_thresholds, thresholds

_FIRST = "Sigma PrefixGate PrefixCut SuffixGate SuffixCut BlockGate BlockSize".split()


@dataclass(frozen=True)
class CodaNoised(Noised):
    """With what the strategies did to each row."""

    s1: Flags
    """`[n]`: S1 took the row."""
    s2: Flags
    """`[n]`: S2 took the row."""
    prefix_len: Lengths
    """`[n]`: positions below it are never masked."""
    block_size: Lengths
    """`[n]`: S3's block size; 0 where S3 did not take the row."""


@dataclass(frozen=True)
class Coda:
    """CODA's objective (arXiv 2510.03270); the names are those of the manifest.

    Its logits are shifted by one, so position 0 is never scored.
    """

    p1: float = 0.0
    p2: float = 0.0
    p3: float = 0.0
    block_sizes: Sequence[int] = (2, 4, 8)
    sampling_eps: float = 1e-3
    span_ratio: float = 1.0
    score_pads: bool = True
    profile: str = "coda-paper"
    mask_blocks: str | Sequence[str] = "tokens"

    def __post_init__(self) -> None:
        if self.profile not in ("coda-paper", "coda-repo"):
            raise ValueError(f"there is no profile {self.profile}, only coda-paper and coda-repo")
        if self.p3 > 0 and (not self.block_sizes or min(self.block_sizes) < 1):
            raise ValueError("p3 > 0 needs block_sizes, each at least 1")
        if self.mask_blocks != "tokens":
            kinds_of(self.mask_blocks)

    def __call__(self, batch: Batch) -> CodaNoised:
        """The batch, noised."""
        rows, streams = batch.rows, batch.streams
        length = rows.row_length
        unit, gate1, cut1, gate2, cut2, gate3, size = streams.firsts(_FIRST)
        sigma = self.sampling_eps + (1.0 - self.sampling_eps) * (unit / 2.0**32)

        s1 = (gate1 < threshold(self.p1)) & (length >= 2)
        s2 = (gate2 < threshold(self.p2)) & (length >= 2) & ~s1
        ratio = min(max(self.span_ratio, 0.0), 1.0)
        protected = np.floor(ratio * rows.prefix_len).astype(np.int64)
        cuts = [1 + (cut * np.uint64(length - 1) >> np.uint64(32)) for cut in (cut1, cut2)]
        before, after = (cut.astype(np.int64) for cut in cuts)
        prefix = np.where(s1, np.maximum(protected, before), protected)
        own = rows.valid_len.astype(np.int64)
        valid = np.where(s2, np.minimum(own, after), own)

        block_size = self._block_sizes(batch, gate3 < threshold(self.p3), size)
        pads = self.score_pads and self.p2 <= 0.0
        allowed = maskable(rows, prefix, protected, valid, pads)
        masked = np.zeros_like(allowed)
        taken = block_size > 0
        if self.mask_blocks == "tokens":
            blocks = taken
        else:
            blocks, kinds = np.zeros_like(taken), kinds_of(self.mask_blocks)
            need(kinds, batch.spans)
            firsts = _firsts(rows.spans, kinds, block_size, allowed)
        if not blocks.all():
            words = streams.of(~blocks).words("TokenMask", length)
            if self.mask_blocks != "tokens":
                words = np.take_along_axis(words, firsts, axis=1)
            limits = thresholds(sigma[~blocks])[:, None]
            masked[~blocks] = below(words, limits) & allowed[~blocks]
        if blocks.any():
            masked[blocks] = _blocks(
                streams.of(blocks), sigma[blocks], block_size[blocks], allowed[blocks]
            )

        clean = rows.tokens
        if s2.any():
            beyond = np.arange(length) >= valid[:, None]
            clean = np.where(beyond, np.uint32(batch.specials.pad), clean)
        noised = np.where(masked, np.uint32(batch.specials.mask), clean)
        scored = noised == batch.specials.mask
        scored[:, 0] = False
        weight = scored * (1.0 / sigma).astype(np.float32)[:, None]
        return CodaNoised(clean, noised, masked, sigma, weight, valid, s1, s2, prefix, block_size)

    def _block_sizes(self, batch: Batch, gate: Flags, size: NDArray[np.uint64]) -> Lengths:
        """S3's block size of each row, or 0."""
        sizes = np.array([*self.block_sizes, 0], dtype=np.int64)
        count = np.uint64(len(sizes) - 1)
        if self.profile == "coda-paper":
            return np.where(gate, sizes[(size * count >> np.uint64(32)).astype(np.int64)], 0)
        draw = Stream(batch.seed, batch.step, 0, "BatchBlockSize").first()
        one = sizes[draw * int(count) >> 32] if self.p3 > 0.0 else 0
        return np.full(len(batch.rows), one, dtype=np.int64)


def _firsts(
    spans: list[NDArray[np.uint32]], kinds: Sequence[str], k: Lengths, allowed: Flags
) -> NDArray[np.int64]:
    """`[n, L]`: for every position the first one of its block, or itself outside of blocks."""
    length = allowed.shape[1]
    firsts = np.tile(np.arange(length), (len(allowed), 1))
    wanted = np.array([kind in kinds for kind in KINDS])
    before = np.zeros(length + 1, dtype=np.int64)
    for row, own, longest, open_ in zip(firsts, spans, k.tolist(), allowed):
        own = own[wanted[own[:, 2]] & (own[:, 1] <= longest)].astype(np.int64)
        if longest == 0 or not len(own):
            continue
        # A span lies in one run of positions when as many of them are allowed as it has.
        np.cumsum(open_, out=before[1:])
        starts, ends = own[:, 0], own[:, 0] + own[:, 1]
        own = own[before[ends] - before[starts] == own[:, 1]]
        free = 0
        for start, count, _ in own.tolist():
            if start >= free:
                free = start + count
                row[start:free] = start
    return firsts


def _blocks(streams: Streams, sigma: NDArray[np.float64], k: Lengths, allowed: Flags) -> Flags:
    """The union of the blocks of `k` positions that lie inside one run of allowed ones."""
    length = allowed.shape[1]
    place = np.arange(length, dtype=np.int32)
    # A start counts only where the next position that is not allowed lies behind its block.
    barred = np.where(allowed, np.int32(length), place)
    wall = np.minimum.accumulate(barred[:, ::-1], axis=1)[:, ::-1]
    size = np.minimum(k, length + 1).astype(np.int32)[:, None]
    limits = survival_thresholds(1.0 - sigma, k)[:, None]
    starts = ~below(streams.words("BlockStart", length), limits)
    starts &= allowed & (place + size <= wall)
    last = np.maximum.accumulate(np.where(starts, place, np.int32(-length - 1)), axis=1)
    masked: Flags = place - last < size
    return masked
