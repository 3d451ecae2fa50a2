"""The draws of many rows at once: the very words of `draws.Stream`, fast enough for a trainer.

`draws` is written to be read; this is written to be quick, and tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coda_shards.draws import PURPOSES, halves

Words = NDArray[np.uint32]

_LOW, _HALF = np.uint64(0xFFFF_FFFF), np.uint64(32)
_EVEN, _ODD = np.uint64(0xD251_1F53), np.uint64(0xCD9E_8D57)
# So many blocks are worked on at a time: six arrays of 64 bits that stay in a core's cache.
_CHUNK = 8192


@dataclass(frozen=True)
class Streams:
    """The streams of `n` rows, each at an epoch of its own."""

    seed: int
    row_key: NDArray[np.uint64]
    epoch: NDArray[np.int64]

    def words(self, purpose: str, count: int) -> Words:
        """`[n, count]`: draws 0 up to `count` of every row."""
        blocks = (count + 3) // 4
        words = np.empty((len(self.row_key), blocks, 4), dtype=np.uint32)
        at_once = max(1, _CHUNK // max(blocks, 1))
        for first in range(0, len(words), at_once):
            here = slice(first, first + at_once)
            self._fill(words[here], here, purpose)
        return words.reshape(len(words), -1)[:, :count]

    def firsts(self, purposes: Sequence[str]) -> list[NDArray[np.uint64]]:
        """Draw 0 of every row, for each of the purposes; as 64 bits, so that products fit."""
        return [self.words(purpose, 1)[:, 0].astype(np.uint64) for purpose in purposes]

    def of(self, rows: NDArray[np.bool_]) -> Streams:
        """The streams of some of the rows."""
        return Streams(self.seed, self.row_key[rows], self.epoch[rows])

    def _fill(self, words: Words, here: slice, purpose: str) -> None:
        """Philox4x32-10 of rows × blocks counters, each step in place."""
        shape = words.shape[:2]
        second = self.epoch[here].astype(np.uint64) | np.uint64(PURPOSES[purpose] << 24)
        key = self.row_key[here]
        c0, c1, c2, c3 = (np.empty(shape, dtype=np.uint64) for _ in range(4))
        even, odd = np.empty(shape, dtype=np.uint64), np.empty(shape, dtype=np.uint64)
        c0[:] = np.arange(shape[1], dtype=np.uint64)
        c1[:], c2[:], c3[:] = second[:, None], (key & _LOW)[:, None], (key >> _HALF)[:, None]
        k0, k1 = halves(self.seed)
        for _ in range(10):
            np.multiply(c0, _EVEN, out=even)
            np.multiply(c2, _ODD, out=odd)
            np.right_shift(odd, _HALF, out=c0)
            np.bitwise_xor(c0, c1, out=c0)
            np.bitwise_xor(c0, np.uint64(k0), out=c0)
            np.right_shift(even, _HALF, out=c2)
            np.bitwise_xor(c2, c3, out=c2)
            np.bitwise_xor(c2, np.uint64(k1), out=c2)
            np.bitwise_and(odd, _LOW, out=c1)
            np.bitwise_and(even, _LOW, out=c3)
            k0, k1 = (k0 + 0x9E37_79B9) % 2**32, (k1 + 0xBB67_AE85) % 2**32
        for lane, column in enumerate((c0, c1, c2, c3)):
            words[:, :, lane] = column


def below(words: Words, limits: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Where a word is below its limit in `0..=2^32`. Shapes broadcast."""
    some = limits > 0
    last = (np.maximum(limits, np.uint64(1)) - np.uint64(1)).astype(np.uint32)
    return (words <= last) & some


def thresholds(probability: NDArray[np.float64]) -> NDArray[np.uint64]:
    """T(p) of many probabilities."""
    clamped = np.minimum(np.maximum(probability, 0.0), 1.0)
    return np.floor(clamped * 2.0**32).astype(np.uint64)


def survival_thresholds(keep: NDArray[np.float64], k: NDArray[np.int64]) -> NDArray[np.uint64]:
    """S(keep, k) of many pairs, by the bisection of `draws.survival_threshold`."""

    def fits(s: NDArray[np.uint64]) -> NDArray[np.bool_]:
        result, square, rest = np.ones_like(keep), s / 2.0**32, k.copy()
        while (rest > 0).any():
            result = np.where(rest % 2 == 1, result * square, result)
            # Rounded as in the scalar version; what is squared once too often is not read again.
            square, rest = square * square, rest // 2
        return result <= keep

    low = np.zeros(keep.shape, dtype=np.uint64)
    high = np.full(keep.shape, 2**32, dtype=np.uint64)
    whole = fits(high)
    for _ in range(32):
        middle = (low + high) // np.uint64(2)
        inside = fits(middle)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return np.where(whole, np.uint64(2**32), low)
