"""One shard, mapped: its record batches as numpy arrays that lie in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coda_shards.errors import ShardError
from coda_shards.index import Index, ShardEntry
from coda_shards.rows import Ids, Row
from coda_shards.spans import KINDS

# What pyarrow raises for bytes that are no Arrow; names that are no UTF-8 are a ValueError.
_UNREADABLE = (pa.ArrowException, OSError, ValueError)
_DAMAGED = "`coda-ingest verify` or coda_shards.verify say more; build or copy the set again"


class Columns:
    """A record batch as arrays without a copy."""

    def __init__(self, batch: pa.RecordBatch, first_row: int) -> None:
        self.first_row = first_row
        tokens, segments, row_key, source, prefix_len, valid_len, maskable, *spans = batch.columns
        self.tokens = _view(tokens.flatten()).reshape(-1, tokens.type.list_size)
        self.row_key: NDArray[np.uint64] = _view(row_key)
        self.source: NDArray[np.uint16] = _view(source)
        self.prefix_len: Ids = _view(prefix_len)
        self.valid_len: Ids = _view(valid_len)
        self._starts, self._segments = _view(segments.offsets), _view(segments.values)
        self._spans = _view(maskable.offsets)
        self._span = [_view(maskable.values.field(number)) for number in (0, 1)]
        self._syntax: tuple[NDArray[Any], list[NDArray[Any]]] | None = None
        for column in spans:
            parts = [_view(column.values.field(number)) for number in (0, 1, 2)]
            self._syntax = (_view(column.offsets), parts)

    def segments(self, place: int) -> Ids:
        """Where the documents of a row start."""
        return self._segments[self._starts[place] : self._starts[place + 1]]

    def maskable(self, place: int) -> NDArray[np.uint32]:
        """Start and length of a row's spans, a small copy."""
        here = slice(self._spans[place], self._spans[place + 1])
        return np.stack([column[here] for column in self._span], axis=1)

    def spans(self, place: int) -> NDArray[np.uint32]:
        """Start, length and kind of the spans of a row's text, a small copy."""
        if self._syntax is None:
            return np.empty((0, 3), dtype=np.uint32)
        ends, parts = self._syntax
        here = slice(ends[place], ends[place + 1])
        return np.stack([part[here].astype(np.uint32) for part in parts], axis=1)

    def row(self, number: int, place: int) -> Row:
        """One row."""
        return Row(
            number=number,
            tokens=self.tokens[place],
            segments=self.segments(place),
            row_key=int(self.row_key[place]),
            source=int(self.source[place]),
            prefix_len=int(self.prefix_len[place]),
            valid_len=int(self.valid_len[place]),
            maskable=self.maskable(place),
            spans=self.spans(place),
        )

    def problem(self, sources: int) -> str | None:
        """The first thing for which the small columns cannot be trusted to be read at all."""
        length = self.tokens.shape[1]
        offsets = [(self._starts, self._segments), (self._spans, self._span[0])]
        if self._syntax is not None:
            offsets.append((self._syntax[0], self._syntax[1][0]))
        for ends, values in offsets:
            if ends[0] != 0 or ends[-1] != len(values) or (np.diff(ends) < 0).any():
                return "the offsets of a list do not ascend from 0 to the length of its values"
        if not ((self.valid_len >= 1) & (self.valid_len <= length)).all():
            return f"a valid_len is not in 1..={length}"
        if (self.prefix_len > self.valid_len).any():
            return "a prefix_len is greater than the row's valid_len"
        if (self.source >= sources).any():
            return f"a source is not below {sources}"
        if (self._segments >= length).any():
            return f"a segment starts at {length} or later"
        ends_of_spans = self._span[0].astype(np.int64) + self._span[1]
        if (ends_of_spans > length).any():
            return f"a maskable span ends after {length}"
        if self._syntax is not None:
            starts, lengths, kinds = self._syntax[1]
            if (starts.astype(np.int64) + lengths > length).any():
                return f"a span of the text ends after {length}"
            if (kinds >= len(KINDS)).any():
                return f"a kind of spans is not below {len(KINDS)}"
        return None


def _view(array: pa.Array) -> NDArray[Any]:
    """Without a copy, or an error. The element type is that of the schema, which was checked."""
    view: NDArray[Any] = array.to_numpy(zero_copy_only=True)
    return view


class MappedShard:
    """A shard whose file has the right length and the right schema."""

    def __init__(self, directory: Path, entry: ShardEntry, index: Index) -> None:
        self._path, self._entry, self._index = directory / entry.file, entry, index
        try:
            found = self._path.stat().st_size
        except FileNotFoundError:
            raise ShardError(self._path, "is not there, but index.json lists it", _DAMAGED) \
                from None  # fmt: skip
        if found != entry.bytes:
            raise self._error(f"has {found} bytes, index.json says {entry.bytes}")
        try:
            # The mapping outlives the file object: a large set needs no handle per shard.
            with pa.memory_map(str(self._path)) as file:
                whole = file.read_buffer()
            self._reader = pa.ipc.open_file(whole)
            problem = self._problem_of_schema(self._reader.schema)
        except _UNREADABLE as error:
            raise self._error(f"is not an Arrow IPC file: {error}") from None
        if problem:
            raise self._error(problem)
        batches = -(-entry.rows // index.rows_per_batch)
        if self._reader.num_record_batches != batches:
            found = self._reader.num_record_batches
            raise self._error(f"has {found} record batches, expected {batches}")
        self._columns: list[Columns | None] = [None] * batches

    def columns(self, number: int) -> Columns:
        """A record batch, checked when it is first asked for."""
        there = self._columns[number]
        if there is None:
            there = self._columns[number] = self._read(number)
        return there

    def _read(self, number: int) -> Columns:
        first = number * self._index.rows_per_batch
        try:
            batch = self._reader.get_batch(number)
            batch.validate()
        except _UNREADABLE as error:
            raise self._error(f"record batch {number} is damaged: {error}") from None
        wanted = min(self._index.rows_per_batch, self._entry.rows - first)
        if batch.num_rows != wanted:
            raise self._error(f"record batch {number} has {batch.num_rows} rows, expected {wanted}")
        if any(column.null_count for column in batch.columns):
            raise self._error(f"record batch {number} has nulls")
        columns = Columns(batch, self._entry.first_row + first)
        problem = columns.problem(len(self._index.sources))
        if problem:
            raise self._error(f"record batch {number}: {problem}")
        return columns

    def _problem_of_schema(self, found: pa.Schema) -> str | None:
        """In what the schema is not that of a shard of this set."""
        wanted = columns_of(self._index.row_length, bool(self._index.spans))
        if found.names != list(wanted):
            return f"has the columns {found.names}, expected {list(wanted)}"
        for name, kind in wanted.items():
            # As text: Arrow's own equality forgives the names of list items.
            if str(field := found.field(name)) != str(pa.field(name, kind, nullable=False)):
                return f"column {name} is {field.type}, expected {kind} without nulls"
        pairs = (found.metadata or {}).items()
        metadata = {key.decode(): value.decode() for key, value in pairs}
        expected = metadata_of(self._index)
        for key in sorted(expected.keys() | metadata.keys()):
            if metadata.get(key) != expected.get(key):
                text = f"metadata {key} is {metadata.get(key)}, expected {expected.get(key)}"
                return f"{text}: a shard of another set"
        return None

    def _error(self, problem: str) -> ShardError:
        return ShardError(self._path, problem, _DAMAGED)


def columns_of(row_length: int, spans: bool) -> dict[str, pa.DataType]:
    """The columns of a shard."""

    def item(kind: pa.DataType) -> pa.Field:
        return pa.field("item", kind, nullable=False)

    word = pa.uint32()
    pair = [pa.field(name, word, nullable=False) for name in ("start", "len")]
    kind = pa.field("kind", pa.uint8(), nullable=False)
    columns = {
        "tokens": pa.list_(item(word), row_length),
        "segments": pa.list_(item(word)),
        "row_key": pa.uint64(),
        "source": pa.uint16(),
        "prefix_len": word,
        "valid_len": word,
        "maskable": pa.list_(item(pa.struct(pair))),
    }
    if spans:
        columns["spans"] = pa.list_(item(pa.struct([*pair, kind])))
    return columns


def metadata_of(index: Index) -> dict[str, str]:
    """The metadata of a shard's schema."""
    spans = {"coda.spans": ",".join(index.spans)} if index.spans else {}
    return {
        "coda.format_version": str(index.raw["format_version"]),
        "coda.id_bits": "32",
        "coda.row_length": str(index.row_length),
        "coda.tokenizer": str(index.raw["files"]["tokenizer.json"]["blake3"]),
        "coda.eos": str(index.specials.eos),
        "coda.pad": str(index.specials.pad),
        "coda.mask": str(index.specials.mask),
        "coda.manifest_hash": str(index.raw["manifest_hash"]),
        **spans,
    }
