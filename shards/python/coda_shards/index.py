"""index.json, as far as a reader needs it to find its way: sizes, sources, special ids.

Opening a set must not take longer than reading this file and asking each shard for its length;
`verify` holds all of it, sums included, against the format.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from coda_shards.errors import ShardError
from coda_shards.spans import kinds_of

FORMAT, VERSIONS = "coda-shards", (1, 2)
BATCH_TOKENS = 2**21

_DAMAGED = "the file is damaged or was edited: build the set again, or copy it again and whole"


class Specials(NamedTuple):
    """The ids with a meaning of their own."""

    eos: int
    pad: int
    mask: int


@dataclass(frozen=True)
class Source:
    """One corpus of the set; its rows are contiguous."""

    name: str
    license: str | None
    first_row: int
    rows: int
    documents: int
    tokens: int


@dataclass(frozen=True)
class ShardEntry:
    """What the index says about a shard."""

    file: str
    first_row: int
    rows: int
    bytes: int


@dataclass(frozen=True)
class Index:
    """index.json; `raw` has every key of it."""

    raw: dict[str, Any]
    row_length: int
    rows: int
    rows_per_shard: int
    rows_per_batch: int
    specials: Specials
    spans: tuple[str, ...]
    """The kinds of spans that rows have; none in a set of version 1."""
    sources: tuple[Source, ...]
    shards: tuple[ShardEntry, ...]

    @property
    def fingerprint(self) -> str:
        """Names the set: the hash of all that decides its bytes."""
        return str(self.raw["fingerprint"])


def read_index(directory: Path) -> Index:
    """The index of a finished set.

    Raises ShardError when there is none, when it is of another format, or when its numbers cannot
    all be true.
    """
    path = directory / "index.json"
    if not directory.is_dir():
        raise ShardError(directory, "is not a directory", "give the folder that `data.out` names")
    try:
        raw = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ShardError(path, "is not there, so the set is not finished", _unfinished(directory)) \
            from None  # fmt: skip
    except ValueError as error:  # not JSON, or not UTF-8
        raise ShardError(path, f"is not JSON: {error}", _DAMAGED) from None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise ShardError(path, f'has no "format": "{FORMAT}"', "is this the index of a shard set?")
    if raw.get("format_version") not in VERSIONS:
        problem = f"format_version is {raw.get('format_version')!r}, this reader knows 1 and 2"
        raise ShardError(path, problem, "install the coda_shards of the toolkit that wrote the set")
    try:
        index = _typed(raw)
    except (KeyError, TypeError, ValueError) as error:
        raise ShardError(path, f"a key is missing or no number: {error!r}", _DAMAGED) from None
    contradiction = _contradiction(index)
    if contradiction:
        raise ShardError(path, contradiction, _DAMAGED)
    return index


def _unfinished(directory: Path) -> str:
    if (directory / ".progress.json").exists():
        return "a build was stopped here: run the same `coda-ingest` command again, it goes on"
    return "give the folder that holds index.json and shard-00000.arrow"


def _number(entry: dict[str, Any], key: str) -> int:
    value = entry[key]
    if type(value) is not int or value < 0:
        raise ValueError(f"{key} is {value!r}")
    return value


def _typed(raw: dict[str, Any]) -> Index:
    specials = Specials(*(_number(raw["specials"], key) for key in Specials._fields))
    sources = tuple(
        Source(
            str(entry["name"]),
            entry["license"],
            *(_number(entry, key) for key in ("first_row", "rows", "documents", "tokens")),
        )
        for entry in raw["sources"]
    )
    shards = tuple(
        ShardEntry(
            str(entry["file"]), *(_number(entry, key) for key in ("first_row", "rows", "bytes"))
        )
        for entry in raw["shards"]
    )
    for text in (
        raw["manifest_hash"],
        raw["fingerprint"],
        raw["files"]["tokenizer.json"]["blake3"],
    ):
        if type(text) is not str:
            raise ValueError(f"a hash is {text!r}")
    spans = kinds_of(raw["spans"]) if raw["format_version"] == 2 or "spans" in raw else ()
    if raw["format_version"] != (2 if spans else 1):
        raise ValueError(f"format_version {raw['format_version']} does not fit spans {spans}")
    return Index(
        raw,
        row_length=_number(raw, "row_length"),
        rows=_number(raw, "rows"),
        rows_per_shard=_number(raw, "rows_per_shard"),
        rows_per_batch=_number(raw, "rows_per_batch"),
        specials=specials,
        spans=spans,
        sources=sources,
        shards=shards,
    )


def _contradiction(index: Index) -> str | None:
    """The first thing that the numbers contradict each other in."""
    if not 1 <= index.row_length <= 2**24:
        return f"row_length is {index.row_length}, expected 1..=2^24"
    per_batch = max(1, BATCH_TOKENS // index.row_length)
    if index.rows_per_batch != per_batch:
        return f"rows_per_batch is {index.rows_per_batch}, expected {per_batch}"
    first = 0
    for number, shard in enumerate(index.shards):
        if shard.file != f"shard-{number:05}.arrow":  # never a path that leads elsewhere
            return f"shard {number} is called {shard.file!r}, expected shard-{number:05}.arrow"
        last = number + 1 == len(index.shards)
        full = shard.rows == index.rows_per_shard or (last and shard.rows < index.rows_per_shard)
        if shard.first_row != first or shard.rows == 0 or not full:
            return f"{shard.file} has rows {shard.first_row}+{shard.rows}, expected {first}+…"
        first += shard.rows
    if first != index.rows:
        return f"rows is {index.rows}, but the shards have {first}"
    first = 0
    for source in index.sources:
        if source.first_row != first:
            return f"source {source.name} begins at row {source.first_row}, expected {first}"
        first += source.rows
    if first != index.rows:
        return f"rows is {index.rows}, but the sources have {first}"
    return None
