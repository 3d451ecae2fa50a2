"""Small inputs of every container, made of this repository's own files, and manifests over them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

SEED = 17
HELD_OUT = 0.02
GLOBAL_BATCH = 16
STEPS = 400
SPAN_RATIO = 0.5

# Texts that a reader of bytes, of JSON or of control tokens could get wrong.
ODD_TEXTS = [
    "a",
    "\n",
    "no line feed at the end",
    "tabs\tand\r\ncarriage returns\r\n\r\n  spaces  \n",
    "control tokens as text: <|im_end|><|endoftext|> <|mask|> <think></think> <|im_start|>user",
    'zero \0 byte, escape \x1b[0m, \\u0041 and "quotes"',
    "Grüße, 世界, שלום, 🙂👩‍👩‍👧, \U0001d54f, \ufeff",
    "decomposed: e\u0301 o\u0308 become one character each",
    "x" * 5000,
    " " * 3000 + "end",
    "12345678901234567890 " * 40,
]


@dataclass(frozen=True)
class Pair:
    """A question and its answer."""

    instruction: str
    output: str


@dataclass(frozen=True)
class Corpus:
    """What the inputs say: sources by name."""

    texts: dict[str, list[str]]
    pairs: dict[str, list[Pair]]


def write_corpus(repository: Path, folder: Path) -> Corpus:
    """Writes the inputs to a new folder."""
    folder.mkdir(parents=True)
    code = _read(repository, "*/src/**/*.rs")
    prose = _read(repository, "docs/**/*.md") + _read(repository, "*.md")
    with pa.CompressedOutputStream(str(folder / "code.jsonl.zst"), "zstd") as stream:
        stream.write(_lines([{"path": p, "text": t} for p, t in code]))
    # Row groups of three: documents have to stay in order across them.
    columns = {"path": [p for p, _ in prose], "content": [t for _, t in prose]}
    pyarrow.parquet.write_table(pa.table(columns), folder / "prose.parquet", row_group_size=3)
    odd = pa.table({"text": ODD_TEXTS})
    with pa.ipc.new_file(str(folder / "odd.arrow"), odd.schema) as writer:
        writer.write_table(odd, max_chunksize=4)

    # An answer that spells a think block is taken apart by the chat template: not tested here.
    plain = [(p, t) for p, t in code if len(t) < 12_000 and "</think>" not in t]
    pairs = [Pair(f"Write the file {p}", t) for p, t in plain]
    pairs += [Pair(text, text[::-1]) for text in ODD_TEXTS if text.strip() and text.isascii()]
    (folder / "pairs.jsonl").write_bytes(_lines([asdict(pair) for pair in pairs]))
    texts = {"code": [t for _, t in code], "prose": [t for _, t in prose], "odd": ODD_TEXTS}
    return Corpus(texts=texts, pairs={"pairs": pairs})


def _read(repository: Path, pattern: str) -> list[tuple[str, str]]:
    """The files that match, by name; not those that say nothing."""
    files = sorted(path for path in repository.glob(pattern) if "target" not in path.parts)
    named = ((path.relative_to(repository).as_posix(), path.read_text("utf-8")) for path in files)
    return [(name, text) for name, text in named if text]


def _lines(records: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def packed_manifest(weights: tuple[float, float, float] | None = None) -> dict[str, Any]:
    """Three packed sources in rows of 256, several shards."""
    sources: list[dict[str, Any]] = [
        {"name": "code", "paths": ["inputs/code.jsonl.zst"], "license": "Apache-2.0"},
        {"name": "prose", "paths": ["inputs/prose.parquet"], "text_field": "content"},
        {"name": "odd", "paths": ["inputs/odd.arrow"], "format": "arrow"},
    ]
    if weights is not None:
        for source, weight in zip(sources, weights):
            source["weight"] = weight
    data = {"out": "packed", "row_length": 256, "rows_per_shard": 512, "sources": sources}
    data["spans"] = ["lines", "brackets"]
    return _manifest("mid", data, {})


def pairs_manifest() -> dict[str, Any]:
    """One source of pairs in rows so long that a shard has several record batches."""
    fields = {"instruction": "instruction", "output": "output"}
    source = {"name": "pairs", "paths": ["inputs/pairs.jsonl"], "kind": "sft", "fields": fields}
    data = {"out": "pairs", "row_length": 32768, "rows_per_shard": 100, "sources": [source]}
    data["overlong"] = "drop"
    return _manifest("post", data, {"conditioned_span": {"ratio": SPAN_RATIO}})


def _manifest(stage: str, data: dict[str, Any], curriculum: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": 1,
        "name": f"python-check-{stage}",
        "stage": stage,
        "seed": SEED,
        "tokenizer": {"path": "tokenizer.json"},
        "data": {**data, "held_out": HELD_OUT},
        "curriculum": curriculum,
        "train": {"out": "run", "steps": STEPS, "global_batch": GLOBAL_BATCH},
    }
