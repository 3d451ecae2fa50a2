"""All randomness of CODA, from docs/shard-format.md alone.

Numbers of 32 bits are kept in uint64 arrays, so that their products fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

PURPOSES = {
    "RowOrder": 1,
    "Mixing": 2,
    "Sigma": 3,
    "PrefixGate": 4,
    "PrefixCut": 5,
    "SuffixGate": 6,
    "SuffixCut": 7,
    "BlockGate": 8,
    "BlockSize": 9,
    "BlockStart": 10,
    "TokenMask": 11,
    "BatchBlockSize": 12,
    "LladaTime": 64,
    "LladaMask": 65,
    "MdlmTime": 66,
    "MdlmMask": 67,
    "Bd3lmTime": 68,
    "Bd3lmMask": 69,
    "LladaShortGate": 70,
    "LladaShortLength": 71,
}

_LOW = np.uint64(0xFFFF_FFFF)
_HALF = np.uint64(32)


def _words(value: Words | int) -> Words:
    return np.atleast_1d(np.asarray(value, dtype=np.uint64))


def philox(counter: tuple[Words | int, ...], key: tuple[int, int]) -> tuple[Words, ...]:
    """Philox4x32-10 of many counters at once: each of the four words may be an array."""
    c0, c1, c2, c3 = np.broadcast_arrays(*(_words(word) for word in counter))
    k0, k1 = key
    for _ in range(10):
        even, odd = np.uint64(0xD251_1F53) * c0, np.uint64(0xCD9E_8D57) * c2
        c0, c1, c2, c3 = (
            (odd >> _HALF) ^ c1 ^ np.uint64(k0),
            odd & _LOW,
            (even >> _HALF) ^ c3 ^ np.uint64(k1),
            even & _LOW,
        )
        k0, k1 = (k0 + 0x9E37_79B9) % 2**32, (k1 + 0xBB67_AE85) % 2**32
    return c0, c1, c2, c3


def halves(value: int) -> tuple[int, int]:
    """The low and the high 32 bits."""
    return value % 2**32, value >> 32


@dataclass(frozen=True)
class Stream:
    """The draws of one row (or step) for one purpose."""

    seed: int
    row_key: int
    epoch: int
    purpose: str

    def words(self, count: int) -> Words:
        """Draws 0 up to `count`."""
        blocks = np.arange((count + 3) // 4, dtype=np.uint64)
        second = self.epoch | PURPOSES[self.purpose] << 24
        counter = (blocks, second, *halves(self.row_key))
        return np.stack(philox(counter, halves(self.seed)), axis=1).reshape(-1)[:count]

    def first(self) -> int:
        """Draw 0."""
        return int(self.words(1)[0])


def threshold(probability: float) -> int:
    """T(p): a draw below it is an event of probability `p`."""
    return math.floor(min(max(probability, 0.0), 1.0) * 2.0**32)


def survival_threshold(keep: float, k: int) -> int:
    """S(keep, k): a draw from it on is an event of probability `1 - keep^(1/k)`."""

    def fits(s: int) -> bool:
        result, square, rest = 1.0, s / 2.0**32, k
        while rest > 0:
            if rest % 2 == 1:
                result *= square
            square *= square
            rest //= 2
        return result <= keep

    low, high = 0, 2**32
    if fits(high):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def permute(
    index: Words, seed: int, purpose: str, domain: int, epoch: Words | int, n: int
) -> Words:
    """The keyed permutation of `0..n`, at every index of an array; each may have its own epoch."""
    half = 1
    while 4**half < n:
        half += 1
    bits, low = np.uint64(half), np.uint64(2**half - 1)
    result = np.array(index, dtype=np.uint64)
    second = np.broadcast_to(_words(epoch) | np.uint64(PURPOSES[purpose] << 24), result.shape)
    walking = np.ones(len(result), dtype=bool)
    while walking.any():
        value = result[walking]
        left, right = value >> bits, value & low
        for number in range(8):
            word = philox((right, second[walking], domain, number), halves(seed))[0]
            left, right = right, left ^ (word & low)
        result[walking] = left << bits | right
        walking = result >= np.uint64(n)
    return result
