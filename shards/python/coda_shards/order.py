"""The order in which rows are read, from docs/shard-format.md alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coda_shards.draws import permute

if TYPE_CHECKING:
    from coda_shards.shard_set import ShardSet

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
        share = min(max(held_out, 0.0), 1.0)
        return self.rows - min(math.ceil(share * self.rows), self.rows)


class Order:
    """Which row does a position of a run read, at which epoch?"""

    def __init__(self, seed: int, sources: Sequence[SourceRows], held_out: float) -> None:
        self._seed = seed
        self._sources = list(sources)
        self._firsts = np.array([source.first_row for source in sources], dtype=np.int64)
        self._training = np.array([s.training(held_out) for s in sources], dtype=np.int64)
        weights = [source.weight for source in sources if source.weight is not None]
        self._weighted = bool(weights)
        if not self._training.sum():
            raise ValueError("there are no rows to train on: lower held_out or ingest more")
        if not weights:
            return
        if len(weights) != len(sources):
            raise ValueError("give every source a weight, or none")
        self._quotas = _quotas(weights)
        for source, n in enumerate(self._training):
            if weights[source] > 0 and (n == 0 or self._quotas[source] == 0):
                raise ValueError(
                    f"source {source} has the weight {weights[source]} and {n} rows to train on,"
                    " and would never be read: set the weight to 0, or raise it"
                )
        self._owner, self._rank = self._deal()

    @classmethod
    def of(
        cls,
        shards: ShardSet,
        seed: int,
        *,
        held_out: float = 0.0,
        weights: Mapping[str, float] | None = None,
    ) -> Order:
        """The order of a set; `weights` by the names of its sources, for all of them or none."""
        names = [source.name for source in shards.sources]
        if weights is not None and set(weights) != set(names):
            raise ValueError(f"the weights are of {sorted(weights)}, the sources are {names}")
        rows = [
            SourceRows(s.first_row, s.rows, None if weights is None else weights[s.name])
            for s in shards.sources
        ]
        return cls(seed, rows, held_out)

    def __len__(self) -> int:
        """The number of training rows: so many positions are an epoch."""
        return int(self._training.sum())

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
        pairs = zip(self._firsts.tolist(), self._training.tolist())
        return {row for first, n in pairs for row in range(first, first + n)}

    def held_out_rows(self) -> Counts:
        """The rows that are never trained on, for evaluation."""
        ends = zip(self._firsts, self._training, self._sources)
        return np.concatenate([np.arange(f + n, f + s.rows, dtype=np.int64) for f, n, s in ends])

    def at(self, positions: Sequence[int]) -> list[tuple[int, int]]:
        """(row, epoch) at every position."""
        rows, epochs = self.turns(np.asarray(positions, dtype=np.int64))
        return list(zip(rows.tolist(), epochs.tolist()))

    def turns(self, position: Counts) -> tuple[Counts, Counts]:
        """The rows and the epochs at many positions."""
        if not self._weighted:
            index, epochs = self._within(position, len(self), 0)
            ends = np.cumsum(self._training)
            source = np.searchsorted(ends, index, side="right")
            return self._firsts[source] + index - (ends - self._training)[source], epochs
        cycle, place = position // CYCLE, position % CYCLE
        rows, epochs = np.zeros_like(position), np.zeros_like(position)
        for source in np.unique(self._owner[place]).tolist():
            mine = self._owner[place] == source
            pick = cycle[mine] * self._quotas[source] + self._rank[place[mine]]
            index, epochs[mine] = self._within(pick, int(self._training[source]), source + 1)
            rows[mine] = self._firsts[source] + index
        return rows, epochs

    def _within(self, pick: Counts, n: int, domain: int) -> tuple[Counts, Counts]:
        """Index of the training row, and epoch, of the picks of one permutation's rows."""
        epochs = pick // n % EPOCHS
        turn = (pick % n).astype(np.uint64)
        index = permute(turn, self._seed, "RowOrder", domain, epochs.astype(np.uint64), n)
        return index.astype(np.int64), epochs


def _quotas(weights: Sequence[float]) -> list[int]:
    """How many positions of a cycle each source gets: largest remainder."""
    total = 0.0
    for weight in weights:
        if not 0 <= weight < math.inf:
            raise ValueError(f"the weight {weight} is negative or no number")
        total += weight
    if total <= 0:
        raise ValueError("all weights are 0: one has to be above")
    shares = [weight / total * CYCLE for weight in weights]
    quotas = [math.floor(share) for share in shares]
    candidates = [s for s, weight in enumerate(weights) if weight > 0]
    candidates.sort(key=lambda s: (-(shares[s] - quotas[s]), s))
    for source in candidates[: CYCLE - sum(quotas)]:
        quotas[source] += 1
    return quotas
