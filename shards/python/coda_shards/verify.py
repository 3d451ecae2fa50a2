"""The full check of a set, from docs/shard-format.md alone: sums, schema, columns, keys.

It shares no code with the Rust side and takes no shortcut through `ShardSet`, which it judges too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from blake3 import blake3
from crc32c import crc32c
from numpy.typing import NDArray

from coda_shards.difference import Difference, holds, same, same_sequence
from coda_shards.keys import row_key
from coda_shards.masks import Shape
from coda_shards.rows import Row
from coda_shards.shard_set import ShardSet
from coda_shards.spans import KINDS, kinds_of, spans_of, token_bytes

BLOCK = 2**20
BATCH_TOKENS = 2**21

INDEX_KEYS = (
    "format format_version fingerprint manifest_hash row_length id_bits rows rows_per_shard"
    " rows_per_batch specials totals sources shards files"
).split()
SOURCE_KEYS = (
    "name license documents tokens padding_tokens rows first_row input_bytes rejects"
).split()


def verify(directory: str | os.PathLike[str]) -> ShardSet:
    """The set, after every sum and every column of it was held against docs/shard-format.md.

    Reads all files. Raises Difference, which names the place, or ShardError where the set cannot
    even be opened.
    """
    path = Path(directory)
    shards = ShardSet(path)
    index = _index(path)
    rows: list[_Found] = []
    for entry in index["shards"]:
        _check_bytes(path / entry["file"], entry)
        same(f"{entry['file']}: first_row", entry["first_row"], len(rows))
        table = _map(path / entry["file"], index, entry["rows"])
        rows.extend(_rows(table, len(rows)))
    same(f"{path}: rows", len(rows), index["rows"])
    table_of = _token_bytes(path, index)
    for found in rows:
        _check_row(found, index)
        _check_spans(found, index, table_of)
        _check_reader(found, shards[found.number])
    _check_sources(rows, index)
    return shards


@dataclass(frozen=True)
class _Found:
    """One row as pyarrow tells it, by another way than the reader goes."""

    number: int
    tokens: NDArray[np.uint32]
    segments: list[int]
    source: int
    shape: Shape


def _check_reader(found: _Found, row: Row) -> None:
    """The quick reader says the same about a row."""
    where = f"row {found.number} through ShardSet"
    same(f"{where}: number", row.number, found.number)
    same(f"{where}: segments", row.segments.tolist(), found.segments)
    same(f"{where}: source", row.source, found.source)
    same(f"{where}: shape", row.shape, found.shape)
    holds(f"{where}: tokens", np.array_equal(row.tokens, found.tokens))


def _index(directory: Path) -> dict[str, Any]:
    """index.json, after its own rules."""
    data = (directory / "index.json").read_bytes()
    index: dict[str, Any] = json.loads(data)
    where = f"{directory / 'index.json'}"
    version = 2 if "spans" in index else 1
    same(f"{where}: format", (index["format"], index["format_version"]), ("coda-shards", version))
    keys = list(INDEX_KEYS)
    if version == 2:
        keys.insert(keys.index("specials") + 1, "spans")
        kinds = list(kinds_of(index["spans"]))
        same(f"{where}: spans", index["spans"], kinds if len(kinds) > 1 else kinds[0])
    same(f"{where}: keys", list(index), keys)
    canonical = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
    holds(f"{where}: the bytes are canonical", data == canonical.encode())
    blank = data.replace(index["fingerprint"].encode(), b"", 1)
    same(f"{where}: fingerprint", index["fingerprint"], blake3(blank).hexdigest())
    same(f"{where}: id_bits", index["id_bits"], 32)
    per_batch = max(1, BATCH_TOKENS // index["row_length"])
    same(f"{where}: rows_per_batch", index["rows_per_batch"], per_batch)

    sources = index["sources"]
    for source in sources:
        has = SOURCE_KEYS + [key for key in ("drops", "origins") if source.get(key)]
        same(f"{where}: keys of a source", list(source), has)
    totals = {
        key: sum(source[key] for source in sources)
        for key in ("documents", "tokens", "padding_tokens")
    }
    totals["rejected"] = sum(sum(source["rejects"].values()) for source in sources)
    totals["input_bytes"] = sum(source["input_bytes"] for source in sources)
    same(f"{where}: totals", index["totals"], totals)

    same(f"{where}: files", list(index["files"]), ["README.md", "rejects.jsonl", "tokenizer.json"])
    for name, entry in index["files"].items():
        found = (directory / name).read_bytes()
        same(f"{directory / name}: bytes", len(found), entry["bytes"])
        same(f"{directory / name}: BLAKE3", blake3(found).hexdigest(), entry["blake3"])
    rejected = (directory / "rejects.jsonl").read_text().splitlines()
    same(f"{directory / 'rejects.jsonl'}: lines", len(rejected), totals["rejected"])

    shards = index["shards"]
    names = [f"shard-{number:05}.arrow" for number in range(len(shards))]
    same(f"{where}: names of the shards", [shard["file"] for shard in shards], names)
    for shard in shards[:-1]:
        same(f"{where}: rows of {shard['file']}", shard["rows"], index["rows_per_shard"])
    listed = {"index.json", *names, *index["files"]}
    same(f"{directory}: files", sorted(p.name for p in directory.iterdir()), sorted(listed))
    return index


def _check_bytes(path: Path, entry: dict[str, Any]) -> None:
    """Length and checksums of a shard, block by block."""
    data = path.read_bytes()
    same(f"{path}: bytes", len(data), entry["bytes"])
    sums = [crc32c(data[start : start + BLOCK]) for start in range(0, len(data), BLOCK)]
    same_sequence(f"{path}: CRC-32C of the blocks", sums, entry["crc32c"])
    same(f"{path}: BLAKE3", blake3(data).hexdigest(), entry["blake3"])


def _map(path: Path, index: dict[str, Any], rows: int) -> pa.Table:
    """The table of a shard, with the proof that every buffer of it lies in the mapped file."""
    allocated = pa.total_allocated_bytes()
    file = pa.memory_map(str(path))
    whole = file.read_buffer()
    reader = pa.ipc.open_file(file)
    table = reader.read_all()
    same(f"{path}: bytes allocated by reading", pa.total_allocated_bytes() - allocated, 0)

    seen = 0
    for column in table.columns:
        for chunk in column.chunks:
            for buffer in filter(None, chunk.buffers()):
                if buffer.size == 0:
                    continue
                offset = buffer.address - whole.address
                inside = 0 <= offset and offset + buffer.size <= whole.size
                holds(f"{path}: a buffer of {buffer.size} bytes lies in the mapped file", inside)
                same(f"{path}: alignment of the buffer at {offset}", offset % 8, 0)
                seen += buffer.size
    holds(f"{path}: the buffers hold the ids", seen >= 4 * rows * index["row_length"])

    _check_schema(path, table.schema, index)
    per_batch = index["rows_per_batch"]
    sizes = [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)]
    wanted = [min(per_batch, rows - start) for start in range(0, rows, per_batch)]
    same_sequence(f"{path}: rows of the record batches", sizes, wanted)
    return table


def _check_schema(path: Path, schema: pa.Schema, index: dict[str, Any]) -> None:
    def item(kind: pa.DataType) -> pa.Field:
        return pa.field("item", kind, nullable=False)

    word = pa.uint32()
    span = pa.struct([pa.field(name, word, nullable=False) for name in ("start", "len")])
    wanted = {
        "tokens": pa.list_(item(word), index["row_length"]),
        "segments": pa.list_(item(word)),
        "row_key": pa.uint64(),
        "source": pa.uint16(),
        "prefix_len": word,
        "valid_len": word,
        "maskable": pa.list_(item(span)),
    }
    if "spans" in index:
        kind = pa.field("kind", pa.uint8(), nullable=False)
        wanted["spans"] = pa.list_(item(pa.struct([*span, kind])))
    # As text: Arrow's own equality forgives the names of list items.
    columns = [str(pa.field(name, kind, nullable=False)) for name, kind in wanted.items()]
    same_sequence(f"{path}: columns", [str(field) for field in schema], columns)
    specials = index["specials"]
    metadata = {
        "coda.format_version": str(index["format_version"]),
        "coda.id_bits": "32",
        "coda.row_length": str(index["row_length"]),
        "coda.tokenizer": index["files"]["tokenizer.json"]["blake3"],
        "coda.eos": str(specials["eos"]),
        "coda.pad": str(specials["pad"]),
        "coda.mask": str(specials["mask"]),
        "coda.manifest_hash": index["manifest_hash"],
    }
    if "spans" in index:
        metadata["coda.spans"] = ",".join(kinds_of(index["spans"]))
    found = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    same(f"{path}: metadata of the schema", found, metadata)


def _rows(table: pa.Table, first: int) -> Iterator[_Found]:
    """The rows of a mapped shard."""
    number = first
    for batch in table.to_batches():
        for column in batch.columns:
            same(f"nulls in the batch of row {number}", column.null_count, 0)
        length = batch.column("tokens").type.list_size
        ids = batch.column("tokens").flatten().to_numpy(zero_copy_only=True).reshape(-1, length)
        names = ("segments", "row_key", "source", "prefix_len", "valid_len", "maskable")
        columns = [batch.column(name).to_pylist() for name in names]
        has_spans = "spans" in batch.schema.names
        texts = batch.column("spans").to_pylist() if has_spans else [[]] * batch.num_rows
        for tokens, segments, key, source, prefix_len, valid_len, maskable, text in zip(
            ids, *columns, texts
        ):
            spans = [(span["start"], span["len"]) for span in maskable]
            found = [(span["start"], span["len"], span["kind"]) for span in text]
            shape = Shape(length, key, prefix_len, valid_len, spans, found)
            yield _Found(number, tokens, segments, source, shape)
            number += 1


def _check_row(row: _Found, index: dict[str, Any]) -> None:
    """The rules of the columns."""
    where, shape = f"row {row.number}", row.shape
    source = index["sources"][row.source]
    same(f"{where}: key", shape.row_key, row_key(source["name"], row.number - source["first_row"]))
    holds(f"{where}: valid_len in 1..=L", 1 <= shape.valid_len <= shape.length)
    holds(f"{where}: prefix_len <= valid_len", shape.prefix_len <= shape.valid_len)
    pads = row.tokens[shape.valid_len :]
    holds(f"{where}: pads from valid_len on", bool((pads == index["specials"]["pad"]).all()))
    same(f"{where}: first segment", row.segments[:1], [0])
    ascending = all(a < b for a, b in zip(row.segments, [*row.segments[1:], shape.valid_len]))
    holds(f"{where}: segments ascend below valid_len", ascending)
    end = 0
    for start, length in shape.maskable:
        holds(f"{where}: span {start}+{length} of maskable", start >= end and length > 0)
        end = start + length
    holds(f"{where}: maskable lies within the row", end <= shape.length)


def _token_bytes(directory: Path, index: dict[str, Any]) -> dict[int, bytes] | None:
    """The bytes of the tokens; none for a set without spans, and for one whose tokenizer has no
    vocabulary, as those of some tests."""
    tokenizer = json.loads((directory / "tokenizer.json").read_bytes())
    if "spans" not in index or "model" not in tokenizer:
        return None
    return token_bytes(tokenizer)


def _check_spans(row: _Found, index: dict[str, Any], table: dict[int, bytes] | None) -> None:
    """The spans of a row are those of its text."""
    where, shape = f"row {row.number}: spans of the text", row.shape
    ordered = sorted(shape.spans, key=lambda span: (span[0], -span[1], span[2]))
    same(f"{where} are in order", list(shape.spans), ordered)
    for start, length, kind in shape.spans:
        fits = length >= 2 and start + length <= shape.valid_len
        holds(f"{where}: {start}+{length} has two tokens or more before the padding", fits)
        named = kinds_of(index["spans"])
        holds(f"{where}: kind {kind}", kind < len(KINDS) and KINDS[kind] in named)
    if table is not None:
        tokens = row.tokens[: shape.valid_len].tolist()
        wanted = spans_of(tokens, row.segments, kinds_of(index["spans"]), table)
        same_sequence(where, list(shape.spans), wanted)


def _check_sources(rows: list[_Found], index: dict[str, Any]) -> None:
    """The counts of each source."""
    start = 0
    for number, source in enumerate(index["sources"]):
        where = f"source {source['name']}"
        same(f"{where}: first_row", source["first_row"], start)
        mine = rows[start : start + source["rows"]]
        start += source["rows"]
        if {row.source for row in mine} - {number}:
            raise Difference(f"{where}: holds a row of another source")
        tokens = sum(row.shape.valid_len for row in mine)
        same(f"{where}: tokens", source["tokens"], tokens)
        padding = len(mine) * index["row_length"] - tokens
        same(f"{where}: padding_tokens", source["padding_tokens"], padding)
    same("rows of all sources", start, len(rows))
