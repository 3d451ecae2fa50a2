"""The order in which rows are read, from docs/shard-format.md alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coda_shards.draws import permute

# Positions, picks, rows and epochs.
Counts = NDArray[np.int64]

CYCLE = 65_536
EPOCHS = 2**24


@dataclass(frozen=True)
class SourceRows:
    """The rows of one source."""

    first_row: int
    rows: int
    weight: float | None

    def training(self, held_out: float) -> int:
        """How many of them, from the first on, are trained on."""
        return self.rows - math.ceil(held_out * self.rows)


class Order:
    """Which row does a position of a run read, at which epoch?"""

    def __init__(self, seed: int, sources: Sequence[SourceRows], held_out: float) -> None:
        self._seed = seed
        self._firsts = [source.first_row for source in sources]
        self._training = [source.training(held_out) for source in sources]
        weights = [source.weight for source in sources if source.weight is not None]
        self._weighted = bool(weights)
        if not weights:
            ranges = [first + np.arange(n) for first, n in zip(self._firsts, self._training)]
            self._rows = np.concatenate(ranges)
            return
        assert len(weights) == len(sources), "all sources have a weight, or none"
        self._quotas = _quotas(weights)
        self._owner, self._rank = self._deal()

    def _deal(self) -> tuple[Counts, Counts]:
        """The source of each position of a cycle, and how many before it went to the same one."""
        slots = permute(np.arange(CYCLE, dtype=np.uint64), self._seed, "Mixing", 0, 0, CYCLE)
        ends = np.cumsum(self._quotas)
        owner = np.searchsorted(ends, slots.astype(np.int64), side="right").astype(np.int64)
        rank = np.zeros(CYCLE, dtype=np.int64)
        for source in range(len(self._quotas)):
            mine = owner == source
            rank[mine] = np.arange(mine.sum())
        return owner, rank

    def training_rows(self) -> set[int]:
        """All rows that are trained on."""
        pairs = zip(self._firsts, self._training)
        return {row for first, n in pairs for row in range(first, first + n)}

    def at(self, positions: Sequence[int]) -> list[tuple[int, int]]:
        """(row, epoch) at every position."""
        position = np.asarray(positions, dtype=np.int64)
        if not self._weighted:
            index, epochs = self._within(position, len(self._rows), 0)
            return [(int(r), int(e)) for r, e in zip(self._rows[index], epochs)]
        cycle, place = position // CYCLE, position % CYCLE
        rows, epochs = np.zeros_like(position), np.zeros_like(position)
        for source, (first, n) in enumerate(zip(self._firsts, self._training)):
            mine = self._owner[place] == source
            pick = cycle[mine] * self._quotas[source] + self._rank[place[mine]]
            index, epochs[mine] = self._within(pick, n, source + 1)
            rows[mine] = first + index
        return [(int(row), int(epoch)) for row, epoch in zip(rows, epochs)]

    def _within(self, pick: Counts, n: int, domain: int) -> tuple[Counts, Counts]:
        """Index of the training row, and epoch, of the picks of one permutation's rows."""
        epochs = pick // n % EPOCHS
        index = np.zeros_like(pick)
        for epoch in np.unique(epochs):
            mine = epochs == epoch
            turn = (pick[mine] % n).astype(np.uint64)
            index[mine] = permute(turn, self._seed, "RowOrder", domain, int(epoch), n)
        return index, epochs


def _quotas(weights: Sequence[float]) -> list[int]:
    """How many positions of a cycle each source gets: largest remainder."""
    total = 0.0
    for weight in weights:
        total += weight
    shares = [weight / total * CYCLE for weight in weights]
    quotas = [math.floor(share) for share in shares]
    candidates = [s for s, weight in enumerate(weights) if weight > 0]
    candidates.sort(key=lambda s: (-(shares[s] - quotas[s]), s))
    for source in candidates[: CYCLE - sum(quotas)]:
        quotas[source] += 1
    return quotas
