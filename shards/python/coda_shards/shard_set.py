"""A shard set, opened in milliseconds and read without a copy.

Opening reads the index, asks every file for its length, maps the shards and holds their schemas
against the index. A record batch is held against the format's shape when its first row is read.
The content is trusted: sums are the matter of `coda_shards.verify`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from coda_shards.index import Index, Source, Specials, read_index
from coda_shards.mapped import Columns, MappedShard
from coda_shards.rows import Row, Rows


class ShardSet:
    """An open set: a sequence of rows, each of which reads as a view.

    For example:

        shards = ShardSet("shards/my")
        shards[7].tokens            # a view of row 7's ids
        shards[0:16].tokens         # [16, L], copied
        shards.take([5, 900, 5])    # any rows, in this order
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        self.layout: Index = read_index(self.directory)
        self._shards = [
            MappedShard(self.directory, entry, self.layout) for entry in self.layout.shards
        ]

    def __reduce__(self) -> tuple[type[ShardSet], tuple[Path]]:
        # Worker processes map the files themselves.
        return ShardSet, (self.directory,)

    def __repr__(self) -> str:
        return f"ShardSet({str(self.directory)!r}, {len(self)} rows of {self.row_length} tokens)"

    @property
    def index(self) -> dict[str, Any]:
        """index.json as it stands."""
        return self.layout.raw

    @property
    def row_length(self) -> int:
        """Tokens in a row, pads included: `L`."""
        return self.layout.row_length

    @property
    def specials(self) -> Specials:
        """The ids of end, pad and mask."""
        return self.layout.specials

    @property
    def sources(self) -> Sequence[Source]:
        """The corpora, in the order of their rows."""
        return self.layout.sources

    @property
    def tokenizer(self) -> Path:
        """The tokenizer that made the ids, in the format of Hugging Face `tokenizers`."""
        return self.directory / "tokenizer.json"

    def __len__(self) -> int:
        return self.layout.rows

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> Rows: ...

    def __getitem__(self, index: int | slice) -> Row | Rows:
        if isinstance(index, slice):
            return self.take(range(*index.indices(len(self))))
        columns, place = self._find(index)
        return columns.row(range(len(self))[index], place)

    def __iter__(self) -> Iterator[Row]:
        return (self[number] for number in range(len(self)))

    def of_source(self, name: str) -> list[Row]:
        """The rows of a source, in order."""
        for source in self.sources:
            if source.name == name:
                return [self[source.first_row + place] for place in range(source.rows)]
        raise KeyError(f"no source {name}, only {', '.join(s.name for s in self.sources)}")

    def take(self, rows: Iterable[int] | NDArray[np.int64]) -> Rows:
        """Any rows in any order, copied into arrays of their own."""
        found = [self._find(int(row)) for row in rows]
        tokens = np.empty((len(found), self.row_length), dtype=np.uint32)
        numbers = np.empty(len(found), dtype=np.int64)
        for place, (columns, at) in enumerate(found):
            tokens[place] = columns.tokens[at]
            numbers[place] = columns.first_row + at
        return Rows(
            number=numbers,
            tokens=tokens,
            row_key=np.array([c.row_key[at] for c, at in found], dtype=np.uint64),
            source=np.array([c.source[at] for c, at in found], dtype=np.uint16),
            prefix_len=np.array([c.prefix_len[at] for c, at in found], dtype=np.uint32),
            valid_len=np.array([c.valid_len[at] for c, at in found], dtype=np.uint32),
            segments=[c.segments(at) for c, at in found],
            maskable=[c.maskable(at) for c, at in found],
            spans=[c.spans(at) for c, at in found],
        )

    def verify(self) -> None:
        """Holds every sum and every column against the format; reads all files.

        Raises `coda_shards.difference.Difference`, which names the place. Needs the extra `verify`.
        """
        # Its hashes are no part of what a reader needs.
        from coda_shards.verify import verify

        verify(self.directory)

    def _find(self, row: int) -> tuple[Columns, int]:
        """The record batch of a row, and its place there."""
        number = row + len(self) if row < 0 else row
        if not 0 <= number < len(self):
            raise IndexError(f"row {row} of a set of {len(self)} rows")
        shard, rest = divmod(number, self.layout.rows_per_shard)
        batch, place = divmod(rest, self.layout.rows_per_batch)
        return self._shards[shard].columns(batch), place
