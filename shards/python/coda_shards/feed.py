"""The rows of a run in the order of training, in batches, from any position, for any worker.

A position is one integer: it decides the row, and with the seed all that is drawn for it. Step `s`
of a run from position 0 takes the positions `s · batch_size .. (s + 1) · batch_size`, as
`coda-trainer` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coda_shards.index import Specials
from coda_shards.order import Order
from coda_shards.rows import Rows
from coda_shards.shard_set import ShardSet
from coda_shards.streams import Streams

# Positions whose rows are worked out at once; the permutation is slow for few.
_AHEAD = 4096


@dataclass(frozen=True)
class Batch:
    """What one rank reads of a global batch."""

    rows: Rows
    """The rows, copied."""
    epoch: NDArray[np.int64]
    """`[n]`: the epoch of each row's visit; part of the key of its draws."""
    slot: NDArray[np.int64]
    """`[n]`: the place of each row in the global batch."""
    batch_size: int
    """Rows in the global batch."""
    step: int
    """The number of the global batch."""
    position: int
    """The position after this batch: all that a stopped run has to keep."""
    seed: int
    """The run's seed."""
    specials: Specials
    """The ids of end, pad and mask."""
    sources: tuple[str, ...]
    """The names of the set's sources; `rows.source` counts them."""
    spans: tuple[str, ...] = ()
    """The kinds of spans that the rows have."""

    def of(self, places: NDArray[np.int64]) -> Batch:
        """Some of the rows, each still in its slot of the global batch."""
        return replace(
            self, rows=self.rows.of(places), epoch=self.epoch[places], slot=self.slot[places]
        )

    @property
    def streams(self) -> Streams:
        """The draws of these rows at this visit."""
        return Streams(self.seed, self.rows.row_key, self.epoch)


class Batches:
    """Batches in the order of training.

        for batch in Batches(shards, seed=17, batch_size=16, epochs=2):
            batch.rows.tokens       # [16, L]

    `weights` mixes the sources (by name), `held_out` is the share of each source's end that is
    never read. `epochs` is counted in training rows; without it there is no end, and what does not
    fill a batch at the end is left out. `start` is the `position` of the last batch of an earlier
    run. Of each global batch, rank `rank` of `world_size` gets its contiguous part.
    """

    def __init__(
        self,
        shards: ShardSet,
        *,
        seed: int,
        batch_size: int,
        held_out: float = 0.0,
        weights: Mapping[str, float] | None = None,
        epochs: int | None = None,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed is {seed}, expected 0..2^64")
        if batch_size < 1 or start < 0:
            raise ValueError(f"batch_size {batch_size} or start {start} is too small")
        if not 0 <= rank < world_size or batch_size % world_size:
            raise ValueError(
                f"rank {rank} of {world_size} with a global batch of {batch_size}: the rank has to"
                " be below world_size, and batch_size (the rows of all ranks) a multiple of it"
            )
        self.shards, self.seed, self.batch_size, self.start = shards, seed, batch_size, start
        self.order = Order.of(shards, seed, held_out=held_out, weights=weights)
        self._sources = tuple(source.name for source in shards.sources)
        self._end = None if epochs is None else epochs * len(self.order)
        local = batch_size // world_size
        self._slots = np.arange(rank * local, (rank + 1) * local, dtype=np.int64)

    def __iter__(self) -> Iterator[Batch]:
        return self.part(0, 1)

    def __len__(self) -> int:
        """Batches from the start on; only with `epochs`."""
        if self._end is None:
            raise TypeError("without `epochs` there is no end")
        return max(0, self._end - self.start) // self.batch_size

    def part(self, worker: int, workers: int) -> Iterator[Batch]:
        """Every `workers`-th batch, from number `worker` on; taken in turns they are all."""
        number = worker
        count = None if self._end is None else len(self)
        at_once = max(1, _AHEAD // len(self._slots))
        while count is None or number < count:
            stop = number + at_once * workers
            numbers = np.arange(number, stop if count is None else min(stop, count), workers)
            firsts = self.start + numbers * self.batch_size
            rows, epochs = self.order.turns((firsts[:, None] + self._slots).reshape(-1))
            local = (len(firsts), -1)
            turns = zip(firsts.tolist(), rows.reshape(local), epochs.reshape(local))
            for first, row, epoch in turns:
                yield self._batch(first, row, epoch)
            number = stop

    def _batch(self, first: int, rows: NDArray[np.int64], epochs: NDArray[np.int64]) -> Batch:
        return Batch(
            rows=self.shards.take(rows),
            epoch=epochs,
            slot=self._slots,
            batch_size=self.batch_size,
            step=first // self.batch_size,
            position=first + self.batch_size,
            seed=self.seed,
            specials=self.shards.specials,
            sources=self._sources,
            spans=self.shards.layout.spans,
        )
