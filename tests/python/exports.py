"""Exports of a built set, read by numpy and pyarrow, and the card's front matter by PyYAML.

What the documents of a set are is worked out here once more, from the columns of its shards as
pyarrow gives them. docs/export.md says the rule.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import yaml
from coda_shards.difference import Difference, same

MAGIC = b"MMIDIDX\x00\x00"
MEGATRON_TYPES = {4: np.dtype("<i4"), 8: np.dtype("<u2")}
COLUMNS = ["segments", "prefix_len", "valid_len", "row_key", "maskable"]


class Runs(Protocol):
    """Runs one of our programs and gives what it prints."""

    def run(self, name: str, arguments: list[str]) -> str: ...


def table_of(directory: Path) -> pa.Table:
    """All rows of a set."""
    shards = sorted(directory.glob("shard-*.arrow"))
    return pa.concat_tables(pa.ipc.open_file(pa.memory_map(str(s))).read_all() for s in shards)


def documents_of(directory: Path) -> Iterator[tuple[str, list[int]]]:
    """The documents of a set with their sources: pads left out, joined over rows without gaps."""
    index = json.loads((directory / "index.json").read_text())
    length, eos = index["row_length"], index["specials"]["eos"]
    rows = table_of(directory).to_pylist()
    for source in index["sources"]:
        own = rows[source["first_row"] : source["first_row"] + source["rows"]]
        gapless = all(row["valid_len"] == length for row in own[:-1])
        open_document: list[int] = []
        for number, row in enumerate(own):
            bounds = [*row["segments"], row["valid_len"]]
            for start, end in zip(bounds, bounds[1:]):
                open_document += row["tokens"][start:end]
                last = end == row["valid_len"]
                follows = number + 1 < len(own) and own[number + 1]["prefix_len"] == 0
                full = row["valid_len"] == length and row["prefix_len"] == 0
                if last and gapless and follows and full and open_document[-1] != eos:
                    continue
                yield source["name"], open_document
                open_document = []


def labels_of(directory: Path) -> list[bool]:
    """Of every token of a set, pads left out: whether a model is to learn it."""
    labels = []
    for row in table_of(directory).to_pylist():
        spans = [(span["start"], span["start"] + span["len"]) for span in row["maskable"]]
        for place in range(row["valid_len"]):
            inside = any(start <= place < end for start, end in spans)
            labels.append(inside and place >= row["prefix_len"])
    return labels


def read_label_mask(path: Path, ids: int) -> list[bool]:
    """A label mask as OLMo-core takes it: raw booleans, as many as there are ids."""
    mask = np.memmap(path, np.bool_, "r")
    same("bytes of the label mask", mask.view(np.uint8).max() <= 1, True)
    same("length of the label mask", len(mask), ids)
    return mask.tolist()


def read_megatron(prefix: Path) -> list[list[int]]:
    """A pair of files, by the layout of Megatron's index."""
    index = prefix.with_suffix(".idx").read_bytes()
    same(f"magic of {prefix}.idx", index[:9], MAGIC)
    version, code, sequences, entries = struct.unpack_from("<QBQQ", index, 9)
    same("version of the index", version, 1)
    dtype = MEGATRON_TYPES[code]
    lengths = np.frombuffer(index, "<i4", sequences, 34)
    pointers = np.frombuffer(index, "<i8", sequences, 34 + 4 * sequences)
    firsts = np.frombuffer(index, "<i8", entries, 34 + 12 * sequences)
    same("bytes of the index", len(index), 34 + 12 * sequences + 8 * entries)
    same("sequences of the documents", firsts.tolist(), list(range(sequences + 1)))
    ids = np.memmap(prefix.with_suffix(".bin"), dtype, "r")
    starts = pointers // dtype.itemsize
    return [ids[s : s + n].tolist() for s, n in zip(starts.tolist(), lengths.tolist())]


def read_flat(path: Path) -> np.ndarray:
    """A flat file, with the type that its meta.json names."""
    meta = json.loads((path.parent / "meta.json").read_text())
    same("the file that meta.json is about", meta["file"], path.name)
    return np.memmap(path, np.dtype(meta["dtype"]), "r")


def read_olmo(path: Path) -> list[list[int]]:
    """A raw array with the table of its documents."""
    ids = read_flat(path)
    with gzip.open(path.with_suffix(".csv.gz"), "rt") as table:
        bounds = [tuple(map(int, line.split(",")[:2])) for line in table]
    return [ids[start:end].tolist() for start, end in bounds]


def front_matter(card: str) -> dict[str, Any]:
    """What stands between the marks."""
    head, mark, _ = card.removeprefix("---\n").partition("\n---\n")
    same("the card begins with front matter", card.startswith("---\n") and mark != "", True)
    found: dict[str, Any] = yaml.safe_load(head)
    return found


def check_exports(programs: Runs, directory: Path, out: Path) -> str:
    """Every format of one set; a line that says what was read."""
    documents = list(documents_of(directory))
    ids = [document for _, document in documents]

    def export(form: str, *more: str) -> Path:
        arguments = ["export", str(directory), "--to", form, "--out", str(out / form), "--quiet"]
        told = json.loads(programs.run("coda-ingest", [*arguments, "--json", *more]))
        found = sorted(path.name for path in (out / form).iterdir())
        same(f"files of the export to {form}", sorted(told["files"]), found)
        if told["documents"] is not None:
            same(f"documents of the export to {form}", told["documents"], len(documents))
        return out / form

    same("documents by megatron", read_megatron(export("megatron") / "tokens"), ids)
    flat = read_flat(export("flat") / "tokens.bin")
    same("ids by flat", flat.tolist(), [token for document in ids for token in document])
    olmo = export("olmo", "--label-mask")
    same("documents by olmo", read_olmo(olmo / "tokens.npy"), ids)
    labels = read_label_mask(olmo / "tokens.label_mask", len(flat))
    same("labels by olmo", labels, labels_of(directory))
    meta = json.loads((olmo / "meta.json").read_text())
    same("labels of meta.json", meta["labels"], sum(labels))

    index = json.loads((directory / "index.json").read_text())
    names = [source["name"] for source in index["sources"]]
    rows = table_of(directory)
    streams = sorted(export("hf").glob("data-*.arrow"))
    by_hf = pa.concat_tables(pa.ipc.open_stream(pa.memory_map(str(s))).read_all() for s in streams)
    by_parquet = pa.parquet.read_table(export("parquet"))
    for name, table in (("hf", by_hf), ("parquet", by_parquet)):
        same(f"columns of {name}", table.column_names[0:3], ["input_ids", "segments", "source"])
        same(f"ids of {name}", table["input_ids"].to_pylist(), rows["tokens"].to_pylist())
        sources = [names[number] for number in rows["source"].to_pylist()]
        same(f"sources of {name}", table["source"].to_pylist(), sources)
        own = [*COLUMNS, "spans"] if "spans" in index else COLUMNS
        same(f"all columns of {name}", len(table.column_names), 2 + len(own))
        for column in own:
            ours, theirs = table[column].to_pylist(), rows[column].to_pylist()
            if ours != theirs:
                raise Difference(f"{name}: the column {column} is not that of the set")

    card = programs.run("coda-ingest", ["card", str(directory), "--language", "en"])
    front = front_matter(card)
    same("title of the card", front["pretty_name"], directory.name)
    path = front["configs"][0]["data_files"][0]["path"]
    same("files of the card", len(list(directory.glob(path))), len(index["shards"]))
    same("languages of the card", front["language"], ["en"])
    count = f"{len(documents)} documents as megatron, flat and olmo ({sum(labels)} labels)"
    return f"{directory.name}: {count}, {len(rows)} rows as hf and parquet are the set's own"
