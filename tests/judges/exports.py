"""Exports in the hands of those that they are for: megatron-core, `datasets`, `huggingface_hub`.

A set of this repository's own pages and sources goes out to Megatron and `datasets` and is read by
their readers; a pair of files that Megatron's own builder wrote comes in. (OLMo-core cannot be
installed beside this environment's PyTorch; numpy reads its format in tests/python.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from datasets import load_dataset, load_from_disk
from huggingface_hub import DatasetCard
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder
from verdict import Bench, same

REPOSITORY = Path(__file__).resolve().parents[2]
IDS = ["--eos", "<|im_end|>", "--pad", "<|endoftext|>", "--mask", "<|mask|>"]


def judge(bench: Bench) -> Iterator[str]:
    """The verdicts, one by one."""
    build(bench)
    yield outward(bench)
    yield rows(bench)
    yield inward(bench)


def build(bench: Bench) -> None:
    """A small set of two sources."""
    docs, code = REPOSITORY / "docs", REPOSITORY / "shards" / "src"
    train = ["train-tokenizer", "-q", "--vocab-size", "2048", "--out", "tokenizer.json"]
    bench.run("coda-ingest", [*train, "--input", docs])
    manifest = {
        "version": 1,
        "name": "exports",
        "stage": "pre",
        "allowed_roots": [str(REPOSITORY)],
        "tokenizer": {"path": "tokenizer.json"},
        "data": {
            "out": "set",
            "row_length": 128,
            "rows_per_shard": 300,
            "sources": [
                {"name": "docs", "license": "MIT", "format": "text", "paths": [f"{docs}/*.md"]},
                {"name": "code", "format": "code", "paths": [f"{code}/**/*.rs"]},
            ],
        },
    }
    (bench.work / "manifest.yaml").write_text(json.dumps(manifest))
    bench.run("coda-ingest", ["--manifest", "manifest.yaml", "-q"])


def export(bench: Bench, form: str) -> Path:
    """The set in a format."""
    bench.run("coda-ingest", ["export", "set", "--to", form, "--out", form, "-q"])
    return bench.work / form


def outward(bench: Bench) -> str:
    """Megatron's reader gives the documents of the flat export, which end with their end tokens."""
    flat = export(bench, "flat")
    meta = json.loads((flat / "meta.json").read_text())
    ids = np.memmap(flat / "tokens.bin", np.dtype(meta["dtype"]), "r")
    ends = (ids == meta["eos"]).nonzero()[0] + 1
    read = IndexedDataset(str(export(bench, "megatron") / "tokens"))
    same("documents by megatron-core", len(read), len(ends))
    same("end of its documents", read.document_indices.tolist(), list(range(len(ends) + 1)))
    for number, document in enumerate(np.split(ids, ends)[:-1]):
        same(f"document {number} by megatron-core", read[number].tolist(), document.tolist())
    return f"megatron-core reads {len(read)} documents, {len(ids)} tokens"


def rows(bench: Bench) -> str:
    """`datasets` opens the folder of its own kind, Parquet, and the shards themselves by the card."""
    read = load_from_disk(str(export(bench, "hf")))
    files = str(export(bench, "parquet") / "*.parquet")
    cache = str(bench.work / "cache")
    parquet = load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
    card = DatasetCard(bench.run("coda-ingest", ["card", "set"]))
    (path,) = [entry["path"] for entry in card.data.configs[0]["data_files"]]
    files = str(bench.work / "set" / path)
    shards = load_dataset("arrow", data_files=files, split="train", cache_dir=cache)
    same("licences of the card", card.data.license, ["mit", "unknown"])
    same("rows", (len(read), len(parquet)), (len(shards), len(shards)))
    for name in ("segments", "prefix_len", "valid_len", "row_key", "maskable"):
        same(f"{name} by load_from_disk", read[:][name], shards[:][name])
        same(f"{name} by parquet", parquet[:][name], shards[:][name])
    same("ids by load_from_disk", read[:]["input_ids"], shards[:]["tokens"])
    same("ids by parquet", parquet[:]["input_ids"], shards[:]["tokens"])
    batch = read.with_format("torch")[:4]["input_ids"]
    same("a batch for torch", (batch.shape, batch.dtype), (torch.Size([4, 128]), torch.int64))
    return f"datasets reads {len(read)} rows, as its own folder, as Parquet and by the card"


def inward(bench: Bench) -> str:
    """What Megatron's builder writes comes in: documents of several sequences, without end tokens."""
    draws = np.random.default_rng(17)
    sizes = [[int(n) for n in draws.integers(1, 90, draws.integers(1, 4))] for _ in range(60)]
    builder = IndexedDatasetBuilder(str(bench.work / "theirs.bin"), dtype=np.int32)
    documents = []
    for lengths in sizes:
        # 4 and above: no control token.
        ids = draws.integers(4, 2000, sum(lengths))
        builder.add_document(torch.from_numpy(ids), lengths)
        documents.append(ids.tolist())
    builder.finalize(str(bench.work / "theirs.idx"))
    args = ["import", "theirs", "--from", "megatron", "--tokenizer", "tokenizer.json", *IDS, "-q"]
    args += ["--row-length", "64", "--name", "theirs", "--out", "imported", "--json"]
    told = json.loads(bench.run("coda-ingest", args))
    same("documents that got an end token", told["ends_added"], len(documents))
    bench.run("coda-ingest", ["verify", "imported"])
    bench.run("coda-ingest", ["export", "imported", "--to", "megatron", "--out", "back", "-q"])
    back = IndexedDataset(str(bench.work / "back" / "tokens"))
    same("documents that came back", [d.tolist()[:-1] for d in back], documents)
    return f"{len(documents)} documents of Megatron's own builder come in and go out unchanged"
