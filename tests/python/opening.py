"""The quick reader: what it gives, and what it says about sets that are not whole."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from coda_shards import ShardError, ShardSet
from coda_shards.difference import Difference, holds, same

FLIPS = 800
FIRST, LAST = "shard-00000.arrow", "shard-00001.arrow"


def check_opening(frozen: Path, with_spans: Path, work: Path) -> str:
    """All checks, on the frozen sets of 5 rows in 2 shards, whose content `verify` has judged."""
    for directory in (frozen, with_spans):
        _check_access(ShardSet(directory))
    faults = _check_faults(frozen, work / "hostile", FAULTS)
    faults += _check_faults(with_spans, work / "hostile", FAULTS_OF_SPANS)
    _check_flips(with_spans, work / "flips-with-spans")
    return f"{faults} sets that are not whole are refused; {_check_flips(frozen, work / 'flips')}"


def _check_access(shards: ShardSet) -> None:
    rows = list(shards)
    same("numbers", [row.number for row in rows], list(range(len(shards))))
    same("the last row", shards[-1].number, len(shards) - 1)
    for row in (5, -6):
        try:
            shards[row]
        except IndexError as error:
            holds("an index out of range names it", str(row) in str(error))
        else:
            raise Difference(f"row {row} of 5 was given")

    wanted = [4, 0, 2, 2]
    taken = shards.take(wanted)
    same("taken", taken.number.tolist(), wanted)
    for place, number in enumerate(wanted):
        row = rows[number]
        same("taken tokens", taken.tokens[place].tolist(), row.tokens.tolist())
        same("taken segments", taken.segments[place].tolist(), row.segments.tolist())
        same("taken spans", taken.maskable[place].tolist(), row.maskable.tolist())
        same("taken spans of the text", taken.spans[place].tolist(), row.spans.tolist())
        numbers = (taken.row_key, taken.source, taken.prefix_len, taken.valid_len)
        found = tuple(int(column[place]) for column in numbers)
        same("taken numbers", found, (row.row_key, row.source, row.prefix_len, row.valid_len))
    same("a slice", shards[1:5:2].number.tolist(), [1, 3])
    same("none taken", shards.take([]).tokens.shape, (0, shards.row_length))

    shards.verify()
    allocated = pa.total_allocated_bytes()
    tokens = ShardSet(shards.directory)[3].tokens
    same("bytes that reading a row allocated", pa.total_allocated_bytes() - allocated, 0)
    holds("a row is a view", not tokens.flags.owndata and not tokens.flags.writeable)
    again = pickle.loads(pickle.dumps(shards))
    same("a set that went to another process", again[3].tokens.tolist(), tokens.tolist())
    same("rows of a source", [row.number for row in shards.of_source("chat")], [3, 4])

    for ids, row in zip(shards[:].segment_ids().tolist(), rows):
        naive = [sum(start <= i for start in row.segments) - 1 for i in range(len(ids))]
        naive[row.valid_len :] = [-1] * (len(ids) - row.valid_len)
        same(f"row {row.number}: segment ids", ids, naive)


Fault = Callable[[Path], None]


def _index(**changes: Any) -> Fault:
    """Sets keys of index.json; a name with a double underscore leads further in."""

    def put_in(folder: Path) -> None:
        path = folder / "index.json"
        index = json.loads(path.read_text())
        for key, value in changes.items():
            *way, last = [int(k) if k.isdigit() else k for k in key.split("__")]
            place = index
            for step in way:
                place = place[step]
            if value is None:
                del place[last]
            else:
                place[last] = value
        path.write_text(json.dumps(index))

    return put_in


def _cut(folder: Path, keep: int, honest: bool) -> None:
    """Cuts the first shard, and has the index say so or not."""
    path = folder / FIRST
    path.write_bytes(path.read_bytes()[:keep])
    if honest:
        _index(shards__0__bytes=keep)(folder)


def _rewritten(change: Callable[[pa.Table], pa.Table], per_batch: int | None = None) -> Fault:
    """The first shard as pyarrow writes it, changed; the index has its new length."""

    def put_in(folder: Path) -> None:
        path = folder / FIRST
        with pa.ipc.open_file(path) as reader:
            table = change(reader.read_all())
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=per_batch)
        _index(shards__0__bytes=path.stat().st_size)(folder)

    return put_in


def _column(name: str, values: list[Any]) -> Callable[[pa.Table], pa.Table]:
    """A change of one column's values in the first rows."""

    def change(table: pa.Table) -> pa.Table:
        number = table.schema.get_field_index(name)
        field = table.schema.field(name)
        rest = table.column(name).to_pylist()[len(values) :]
        return table.set_column(number, field, pa.array([*values, *rest], field.type))

    return change


def _metadata(table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata({**table.schema.metadata, b"coda.mask": b"7"})


def _offsets(table: pa.Table) -> pa.Table:
    """Lists of segments that overlap: the second row's end lies before its start."""
    segments = table.column("segments").combine_chunks()
    ends = segments.offsets.to_pylist()
    ends[2] = ends[1] - 1
    field = table.schema.field("segments")
    lists = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), segments.values, type=field.type)
    return table.set_column(table.schema.get_field_index("segments"), field, lists)


def _swap(folder: Path) -> None:
    """Each shard under the other's name, and their lengths exchanged in the index."""
    sizes = [(folder / name).stat().st_size for name in (FIRST, LAST)]
    (folder / FIRST).rename(folder / "other")
    (folder / LAST).rename(folder / FIRST)
    (folder / "other").rename(folder / LAST)
    _index(shards__0__bytes=sizes[1], shards__1__bytes=sizes[0])(folder)


# What is done to the set, the file that the error has to name, and what it has to say.
FAULTS: list[tuple[Fault, str, str]] = [
    (shutil.rmtree, "", "is not a directory"),
    (lambda f: (f / "index.json").unlink(), "index.json", "so the set is not finished"),
    (lambda f: (f / "index.json").rename(f / ".progress.json"), "index.json", "it goes on"),
    (lambda f: _write(f, b"{"), "index.json", "is not JSON"),
    (lambda f: _write(f, b"\xff"), "index.json", "is not JSON"),
    (lambda f: _write(f, b"[]"), "index.json", 'no "format": "coda-shards"'),
    (_index(format="other"), "index.json", 'no "format": "coda-shards"'),
    (_index(format_version=3), "index.json", "format_version is 3, this reader knows 1 and 2"),
    (_index(format_version=2), "index.json", "spans"),
    (_index(spans="lines"), "index.json", "format_version 1 does not fit spans"),
    (_index(spans="words", format_version=2), "index.json", "no kinds of spans"),
    (_index(spans="lines", format_version=2), FIRST, "has the columns"),
    (_index(row_length=None), "index.json", "row_length"),
    (_index(row_length=0), "index.json", "row_length is 0, expected 1..=2^24"),
    (_index(row_length=2**25), "index.json", "expected 1..=2^24"),
    (_index(rows=-1), "index.json", "rows is -1"),
    (_index(rows=5.0), "index.json", "rows is 5.0"),
    (_index(rows=6), "index.json", "rows is 6, but the shards have 5"),
    (_index(rows_per_batch=7), "index.json", "rows_per_batch is 7, expected 131072"),
    (_index(rows_per_shard=2), "index.json", f"{FIRST} has rows 0+3"),
    (_index(sources__1__first_row=2), "index.json", "source chat begins at row 2, expected 3"),
    (_index(sources__1__rows=9), "index.json", "but the sources have 12"),
    (_index(manifest_hash=5), "index.json", "a hash is 5"),
    (_index(shards__0__file="../x"), "index.json", f"called '../x', expected {FIRST}"),
    (_index(specials__mask=None), "index.json", "mask"),
    (lambda f: (f / LAST).unlink(), LAST, "is not there, but index.json lists it"),
    (lambda f: _cut(f, 1000, honest=False), FIRST, "has 1000 bytes, index.json says"),
    (lambda f: (f / FIRST).write_bytes((f / FIRST).read_bytes() + b"x"), FIRST, "index.json says"),
    (lambda f: _cut(f, 0, honest=True), FIRST, "is not an Arrow IPC file"),
    (lambda f: _cut(f, 1000, honest=True), FIRST, "is not an Arrow IPC file"),
    (_index(row_length=32, rows_per_batch=65536), FIRST, "column tokens is fixed_size_list"),
    (_index(specials__eos=77), FIRST, "metadata coda.eos is"),
    (_index(manifest_hash="0"), FIRST, "metadata coda.manifest_hash is"),
    (_swap, FIRST, "record batch 0 has 2 rows, expected 3"),
    (_rewritten(_metadata), FIRST, "metadata coda.mask is 7"),
    (_rewritten(lambda t: t, per_batch=2), FIRST, "has 2 record batches, expected 1"),
    (_rewritten(lambda t: t.slice(1)), FIRST, "record batch 0 has 2 rows, expected 3"),
    (_rewritten(lambda t: t.drop_columns("source")), FIRST, "has the columns"),
    (_rewritten(_column("valid_len", [0])), FIRST, "a valid_len is not in 1..=16"),
    (_rewritten(_column("valid_len", [17])), FIRST, "a valid_len is not in 1..=16"),
    (_rewritten(_column("prefix_len", [2**32 - 1])), FIRST, "a prefix_len is greater"),
    (_rewritten(_column("source", [2])), FIRST, "a source is not below 2"),
    (_rewritten(_column("segments", [[0, 16]])), FIRST, "a segment starts at 16 or later"),
    (_rewritten(_offsets), FIRST, "the offsets of a list do not ascend"),
    (_rewritten(_column("maskable", [[{"start": 9, "len": 2**32 - 1}]])), FIRST, "ends after 16"),
    (_rewritten(_column("row_key", [None])), FIRST, "has nulls"),
]  # fmt: skip


_SPAN = {"start": 3, "len": 4, "kind": 0}

# The same with a set whose rows have spans of their text.
FAULTS_OF_SPANS: list[tuple[Fault, str, str]] = [
    (_index(spans="lines"), FIRST, "metadata coda.spans is"),
    (_index(spans=None, format_version=1), FIRST, "has the columns"),
    (_index(spans=None), "index.json", "spans"),
    (_rewritten(_column("spans", [[{**_SPAN, "kind": 2}]])), FIRST, "a kind of spans is not below"),
    (_rewritten(_column("spans", [[{**_SPAN, "len": 2**32 - 1}]])), FIRST, "the text ends after"),
    (_rewritten(lambda t: t.drop_columns("spans")), FIRST, "has the columns"),
]


def _write(folder: Path, data: bytes) -> None:
    (folder / "index.json").write_bytes(data)


def _check_faults(frozen: Path, work: Path, faults: list[tuple[Fault, str, str]]) -> int:
    """Every fault is refused, at the latest when a row is read, with file, fact and hint."""
    for fault, file, words in faults:
        folder = work / "set"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(frozen, folder)
        fault(folder)
        try:
            ShardSet(folder)[0]
        except ShardError as error:
            told = str(error)
            holds(f"{told!r} names the file {file}", told.startswith(f"{folder / file}: "))
            holds(f"{told!r} says {words!r}", words in told)
            holds(f"{told!r} has a hint", "\nhint: " in told)
            same("another process's error", str(pickle.loads(pickle.dumps(error))), told)
        else:
            raise Difference(f"a set was opened though {words}")
    return len(faults)


def _check_flips(frozen: Path, work: Path) -> str:
    """With any bit of a shard flipped, rows are read or a ShardError says why not; nothing else."""
    shutil.copytree(frozen, work)
    path = work / FIRST
    whole = path.read_bytes()
    draw = random.Random(5)
    refused = 0
    for bit in draw.sample(range(8 * len(whole)), FLIPS):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            taken = ShardSet(work).take(range(5))
        except ShardError:
            refused += 1
            continue
        same(f"shape with bit {bit} flipped", taken.tokens.shape, (5, 16))
        holds(f"lengths with bit {bit} flipped", bool((taken.valid_len <= 16).all()))
        holds(f"ids with bit {bit} flipped", taken.segment_ids().dtype == np.int32)
    holds("some flips are refused, not all", 0 < refused < FLIPS)
    return f"of {FLIPS} flipped bits {refused} are refused by the quick reader, none upsets it"
