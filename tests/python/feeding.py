"""Batches in the order of training: the same rows however they are split, from any position."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice, zip_longest
from unittest.mock import patch

import numpy as np

from coda_shards import Batch, Batches, Order, ShardSet, SourceRows, feed
from coda_shards.difference import Difference, holds, same, same_sequence
from coda_shards.draws import permute

SEED = 23
WEIGHTS = {"code": 1.0, "prose": 3.0, "odd": 0.01}


def check_feeding(shards: ShardSet, small: ShardSet) -> str:
    """All checks, on a set of thousands of rows and on the frozen one of 5."""
    _check_permutation()
    splits = sum(_check_splits(shards, weights, 0) for weights in (None, WEIGHTS))
    # Rows are worked out for some batches ahead: now for so few that it happens many times.
    with patch.object(feed, "_AHEAD", 40):
        splits += sum(_check_splits(shards, weights, 131_071) for weights in (None, WEIGHTS))
    _check_epochs(small)
    _check_held_out(shards)
    _check_refusals(small)
    return f"{splits} splits over ranks and workers are the same sequence; any position goes on"


def _check_permutation() -> None:
    """An epoch of its own at every index gives what one call per epoch gives."""
    index = np.arange(60, dtype=np.uint64) % np.uint64(7)
    epochs = np.arange(60, dtype=np.uint64) // np.uint64(7)
    found = permute(index, SEED, "RowOrder", 3, epochs, 7).tolist()
    single = [permute(index[i : i + 1], SEED, "RowOrder", 3, int(epochs[i]), 7) for i in range(60)]
    same_sequence("permuted at many epochs", found, [int(value[0]) for value in single])
    for epoch in range(8):
        same("a permutation", sorted(found[7 * epoch : 7 * epoch + 7]), list(range(7)))


Turns = list[tuple[int, int]]


def _turns(batches: Iterable[Batch]) -> Turns:
    """(row, epoch) of all rows, one after the other."""
    pairs = ((batch.rows.number.tolist(), batch.epoch.tolist()) for batch in batches)
    return [turn for rows, epochs in pairs for turn in zip(rows, epochs)]


def _check_splits(shards: ShardSet, weights: dict[str, float] | None, start: int) -> int:
    """Ranks × workers, from a position on, against the order itself."""
    sources = [
        SourceRows(s.first_row, s.rows, None if weights is None else weights[s.name])
        for s in shards.sources
    ]
    order = Order(SEED, sources, 0.1)
    splits = 0
    size, count = 12, 100
    positions = range(start, start + count * size)
    wanted = order.at(positions)
    for ranks, workers in ((1, 1), (1, 3), (2, 1), (3, 2)):
        parts = []
        for rank in range(ranks):
            split = Batches(
                shards, seed=SEED, batch_size=size, held_out=0.1, weights=weights,
                start=start, rank=rank, world_size=ranks,
            )  # fmt: skip
            mine = [islice(split.part(w, workers), -(-count // workers)) for w in range(workers)]
            turn = zip_longest(*mine)
            parts.append([batch for batches in turn for batch in batches][:count])
        found: Turns = []
        for number, batches in enumerate(zip(*parts)):
            found += _turns(batches)
            slots = np.concatenate([batch.slot for batch in batches]).tolist()
            same("slots", slots, list(range(size)))
            after = {batch.position for batch in batches}
            same("position after the batch", after, {start + (number + 1) * size})
            same("step", {b.step for b in batches}, {(start + number * size) // size})
        where = f"from {start}, {ranks} ranks of {workers} workers, weights {weights}"
        same_sequence(where, found, wanted)
        splits += 1
    holds("epochs pass", start == 0 or wanted[-1][1] > 0)
    return splits


def _check_epochs(small: ShardSet) -> None:
    """Every row once in each epoch; the end is an end; a resumed run reads the rest."""
    for size in (1, 2, 3):
        whole = Batches(small, seed=SEED, batch_size=size, epochs=4)
        batches = list(whole)
        same("batches of four epochs", len(batches), 20 // size)
        same("their length", len(whole), 20 // size)
        turns = _turns(batches)
        for epoch in range(4 if size < 3 else 3):
            rows = sorted(row for row, e in turns if e == epoch)
            same(f"rows of epoch {epoch}", rows, [0, 1, 2, 3, 4])
        for done, batch in enumerate(batches, start=1):
            rest = Batches(small, seed=SEED, batch_size=size, epochs=4, start=batch.position)
            same("what is left", _turns(rest), turns[done * size :])
            same("its length", len(rest), len(batches) - done)
            same(
                "shared among three", len([b for w in range(3) for b in rest.part(w, 3)]), len(rest)
            )
    tokens = next(iter(whole)).rows.tokens
    same("tokens", tokens.tolist(), [small[row].tokens.tolist() for row, _ in turns[:3]])


def _check_held_out(shards: ShardSet) -> None:
    """What is held out is never read, all else is."""
    order = Order.of(shards, SEED, held_out=0.1)
    held = order.held_out_rows().tolist()
    read = Batches(shards, seed=SEED, batch_size=1, held_out=0.1, epochs=1)
    rows = sorted(row for row, _ in read.order.at(range(len(order))))
    same("rows of an epoch and held-out rows", sorted(rows + held), list(range(len(shards))))
    same("training rows", set(rows), order.training_rows())
    ends = [(s.first_row + s.rows - 1) in held for s in shards.sources]
    same("each source's last row is held out", ends, [True] * len(ends))


def _check_refusals(small: ShardSet) -> None:
    refused = [
        ({"batch_size": 0}, "batch_size 0"),
        ({"start": -1}, "start -1"),
        ({"batch_size": 3, "world_size": 2}, "a multiple of it"),
        ({"rank": 2, "world_size": 2}, "rank 2 of 2"),
        ({"seed": -1}, "seed is -1"),
        ({"held_out": 1.0}, "no rows to train on"),
        ({"weights": {"text": 1.0}}, "['text'], the sources are ['text', 'chat']"),
        ({"weights": {"text": 1.0, "chat": -1.0}}, "-1.0 is negative"),
        ({"weights": {"text": 0.0, "chat": 0.0}}, "all weights are 0"),
        ({"weights": {"text": 1.0, "chat": 1e-9}}, "would never be read"),
    ]
    for options, words in refused:
        try:
            Batches(small, **{"seed": 1, "batch_size": 2, **options})  # type: ignore[arg-type]
        except ValueError as error:
            holds(f"{error} says {words}", words in str(error))
        else:
            raise Difference(f"{options} was taken")
    try:
        len(Batches(small, seed=1, batch_size=2))
    except TypeError as error:
        holds(f"{error} says that there is no end", "no end" in str(error))
    else:
        raise Difference("an endless run has a length")
