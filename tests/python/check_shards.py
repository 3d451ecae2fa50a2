"""Holds a shard set against other people's readers, and our draws against plain numpy.

Builds small shard sets with `coda-ingest`, then checks, sharing no code with the Rust side:

* pyarrow maps the shards without a copy and sees exactly the documented types;
* Hugging Face `tokenizers` gives the same ids for every document, and the rows decode to the input;
* hashes of `index.json`, row keys, row order and mask plans follow docs/shard-format.md.

Called by `cargo xtask test`.
"""

import argparse
import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
from blake3 import blake3
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
ROW_LENGTH = 64
SEED = 17
HELD_OUT = 0.05
M32 = 0xFFFFFFFF
ROW_ORDER, SIGMA, PREFIX_GATE, PREFIX_CUT, SUFFIX_GATE, SUFFIX_CUT = 1, 3, 4, 5, 6, 7
BLOCK_GATE, BLOCK_SIZE, BLOCK_START, TOKEN_MASK = 8, 9, 10, 11

MANIFEST = f"""
version: 1
name: python-check
stage: pre
seed: {SEED}
tokenizer: {{path: tokenizer.json, eos: "<|im_end|>", pad: "<|endoftext|>", mask: "<|mask|>"}}
data:
  out: shards
  row_length: {ROW_LENGTH}
  rows_per_shard: 50
  held_out: {HELD_OUT}
  sources:
    - {{name: docs, paths: [docs.jsonl], format: jsonl}}
    - {{name: more, paths: [more.jsonl], format: jsonl}}
curriculum: {{p1: 0.3, p2: 0.3, p3: 0.5, block_sizes: [2, 4]}}
train: {{steps: 100, global_batch: 8, optimizer: {{kind: adafactor}}, lr: {{peak: 1e-3}}}}
"""


def philox(counter, key):
    """Philox4x32-10 on one counter."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & M32, (p0 >> 32) ^ c3 ^ k1, p0 & M32
        k0, k1 = (k0 + 0x9E3779B9) & M32, (k1 + 0xBB67AE85) & M32
    return c0, c1, c2, c3


def philox_numpy(counters, key):
    """The same on an array of counters [n, 4], in numpy's own integers."""
    c0, c1, c2, c3 = (counters[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = np.uint64(key[0]), np.uint64(key[1])
    low = np.uint64(M32)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        shift = np.uint64(32)
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ k0, p1 & low, (p0 >> shift) ^ c3 ^ k1, p0 & low
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def stream(row_key, epoch, purpose, count):
    """The first `count` draws of a stream."""
    blocks = (count + 3) // 4
    counters = np.zeros((blocks, 4), np.uint32)
    counters[:, 0] = np.arange(blocks)
    counters[:, 1] = epoch | purpose << 24
    counters[:, 2], counters[:, 3] = row_key & M32, row_key >> 32
    return philox_numpy(counters, (SEED & M32, SEED >> 32)).reshape(-1)[:count]


def permutation(domain, epoch, n, i):
    """Where the keyed bijection of 0..n sends i."""
    half = 1
    while 4**half < n:
        half += 1
    mask = (1 << half) - 1
    while True:
        left, right = i >> half, i & mask
        for r in range(8):
            word = philox((right, epoch | ROW_ORDER << 24, domain, r), (SEED & M32, SEED >> 32))[0]
            left, right = right, left ^ (word & mask)
        i = left << half | right
        if i < n:
            return i


def survival(keep, k):
    def fits(s):
        result, square, rest = 1.0, s / 2**32, k
        while rest:
            if rest & 1:
                result *= square
            square *= square
            rest >>= 1
        return result <= keep

    low, high = 0, 2**32
    if fits(high):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def plan(row, epoch, p1, p2, p3, sizes, eps):
    """The mask plan of a packed row (no prompt, one maskable span), profile coda-paper."""
    key, length = row["row_key"], ROW_LENGTH
    first = lambda purpose: int(stream(key, epoch, purpose, 1)[0])
    threshold = lambda p: math.floor(p * 2**32)
    sigma = eps + (1 - eps) * (first(SIGMA) / 2**32)
    s1 = first(PREFIX_GATE) < threshold(p1)
    s2 = not s1 and first(SUFFIX_GATE) < threshold(p2)
    s3 = first(BLOCK_GATE) < threshold(p3)
    start = 1 + (first(PREFIX_CUT) * (length - 1) >> 32) if s1 else 0
    end = (
        min(row["valid_len"], 1 + (first(SUFFIX_CUT) * (length - 1) >> 32))
        if s2
        else row["valid_len"]
    )
    masked = set()
    if s3:
        k = sizes[first(BLOCK_SIZE) * len(sizes) >> 32]
        draws, limit = stream(key, epoch, BLOCK_START, length), survival(1 - sigma, k)
        for i in range(start, end - k + 1):
            if int(draws[i]) >= limit:
                masked.update(range(i, i + k))
    else:
        draws, limit = stream(key, epoch, TOKEN_MASK, length), threshold(sigma)
        masked = {i for i in range(start, end) if int(draws[i]) < limit}
    strategies = [name for name, on in (("s1", s1), ("s2", s2), ("s3", s3)) if on]
    return sigma, strategies, sorted(masked)


def documents():
    """Texts with what is hard: empty lines, other scripts, control tokens spelled out."""
    texts = []
    for page in sorted((ROOT / "docs").glob("*.md")):
        texts += page.read_text(encoding="utf-8").split("\n\n")
    for source in sorted((ROOT / "random" / "src").glob("*.rs")):
        texts.append(source.read_text(encoding="utf-8"))
    texts += [
        "naïve façade, 数据, данные, 🦀\u200d",
        "not a token: <|im_end|> nor <|mask|>\n",
        "\t\n  x",
    ]
    return [text for text in texts if text.strip()]


def run(program, *args):
    done = subprocess.run([program, *map(str, args)], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(f"{program.name} {' '.join(map(str, args))} ended with {done.returncode}")
    return done.stdout


def read_set(folder):
    """All rows, mapped without a copy."""
    index = json.loads((folder / "index.json").read_text())
    kinds = {
        "tokens": pa.list_(pa.field("item", pa.uint32(), nullable=False), ROW_LENGTH),
        "segments": pa.list_(pa.field("item", pa.uint32(), nullable=False)),
        "row_key": pa.uint64(),
        "source": pa.uint16(),
        "prefix_len": pa.uint32(),
        "valid_len": pa.uint32(),
        "maskable": pa.list_(
            pa.field(
                "item",
                pa.struct(
                    [
                        pa.field("start", pa.uint32(), nullable=False),
                        pa.field("len", pa.uint32(), nullable=False),
                    ]
                ),
                nullable=False,
            )
        ),
    }
    rows = []
    for shard in index["shards"]:
        path = folder / shard["file"]
        content = path.read_bytes()
        assert len(content) == shard["bytes"] and blake3(content).hexdigest() == shard["blake3"]
        del content
        before = pa.total_allocated_bytes()
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        tokens = [c.values.to_numpy(zero_copy_only=True) for c in table["tokens"].chunks]
        assert pa.total_allocated_bytes() == before, "pyarrow copied something"
        assert sum(map(len, tokens)) == shard["rows"] * ROW_LENGTH
        assert table.schema.names == list(kinds), table.schema
        for name, kind in kinds.items():
            field = table.schema.field(name)
            assert field.type == kind and not field.nullable, f"{name}: {field}"
        rows += table.to_pylist()
    copy = {**index, "fingerprint": ""}
    text = (json.dumps(copy, indent=2, ensure_ascii=False) + "\n").encode()
    assert blake3(text).hexdigest() == index["fingerprint"], (
        "the fingerprint does not follow the page"
    )
    return index, rows


def check_text(index, rows, texts, tokenizer):
    """The rows of each source, joined and cut at EOS, are the documents' own ids."""
    eos = index["specials"]["eos"]
    for number, source in enumerate(index["sources"]):
        ids = [
            i for row in rows if row["source"] == number for i in row["tokens"][: row["valid_len"]]
        ]
        found, document = [], []
        for token in ids:
            if token == eos:
                found.append(document)
                document = []
            else:
                document.append(token)
        assert not document, "the last document has no end"
        wanted = texts[source["name"]]
        assert len(found) == len(wanted) == source["documents"]
        for ids_of_one, text in zip(found, wanted, strict=True):
            assert ids_of_one == tokenizer.encode(text, add_special_tokens=False).ids, repr(
                text[:60]
            )
            decoded = tokenizer.decode(ids_of_one, skip_special_tokens=False)
            assert decoded == text, f"{decoded[:60]!r} is not {text[:60]!r}"


def check_keys(index, rows):
    for number, row in enumerate(rows):
        source = index["sources"][row["source"]]
        ordinal = struct.pack("<Q", number - source["first_row"])
        digest = blake3(b"coda row 1\0" + source["name"].encode() + b"\0" + ordinal).digest()
        assert row["row_key"] == struct.unpack("<Q", digest[:8])[0], f"row {number}"


def check_draws(index, rows, curriculum, work):
    """The batch of a step: the rows that the order deals, with the masks that the page says."""
    training = []
    for source in index["sources"]:
        kept = source["rows"] - math.ceil(HELD_OUT * source["rows"])
        training += range(source["first_row"], source["first_row"] + kept)
    n, checked = len(training), 0
    for step in (0, 1, n // 8 + 1):
        drawn = json.loads(
            run(
                curriculum,
                "draw",
                "--manifest",
                work / "check.yaml",
                "--shards",
                work / "shards",
                "--step",
                step,
                "--json",
            )
        )["rows"]
        assert len(drawn) == 8
        for place, got in enumerate(drawn):
            position = step * 8 + place
            epoch = position // n
            number = training[permutation(0, epoch, n, position % n)]
            assert (got["row"], got["epoch"]) == (number, epoch), (
                f"position {position}: {got['row']}"
            )
            row = rows[number]
            assert int(got["key"], 16) == row["row_key"]
            sigma, strategies, masked = plan(row, epoch, 0.3, 0.3, 0.5, [2, 4], 0.001)
            assert got["sigma"] == sigma, f"row {number}: sigma {got['sigma']} is not {sigma}"
            assert [s.lower() for s in got["strategies"]] == strategies, (
                f"row {number}: {got['strategies']}"
            )
            assert got["masked"] == masked, f"row {number}: {got['masked']} is not {masked}"
            checked += 1
    return checked


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=Path, required=True, help="folder of the built programs")
    parser.add_argument("--work", type=Path, required=True, help="folder to work in; made anew")
    args = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = "2"
    work, ingest = args.work, args.programs / "coda-ingest"
    work.mkdir(parents=True)

    assert philox((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    ones = np.full((1, 4), M32, np.uint32)
    known = (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    assert tuple(int(word) for word in philox_numpy(ones, (M32, M32))[0]) == known

    all_texts = documents()
    texts = {"docs": all_texts[::2], "more": all_texts[1::2]}
    for name, some in texts.items():
        lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in some)
        (work / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (work / "check.yaml").write_text(MANIFEST)
    run(
        ingest,
        "train-tokenizer",
        "--input",
        work / "docs.jsonl",
        work / "more.jsonl",
        "--vocab-size",
        700,
        "--out",
        work / "tokenizer.json",
    )
    run(ingest, "--manifest", work / "check.yaml", "-q")

    index, rows = read_set(work / "shards")
    assert len(rows) == index["rows"]
    tokenizer = Tokenizer.from_file(str(work / "shards" / "tokenizer.json"))
    # Control tokens spelled in a document are plain text: as if the tokenizer had none.
    tokenizer.encode_special_tokens = True
    check_text(index, rows, texts, tokenizer)
    check_keys(index, rows)
    plans = check_draws(index, rows, args.programs / "coda-curriculum", work)
    print(
        f"python: {len(index['shards'])} shards mapped without a copy, {index['totals']['documents']} "
        f"documents decode to the input, {len(rows)} row keys and {plans} mask plans agree"
    )


if __name__ == "__main__":
    main()
