"""Small files with the schemas of the published corpora, their traps included, and what must come
out of them by an independent reading: plain Python over pyarrow, json and tarfile.

    published.py --write FOLDER     makes the files and FOLDER/expected.json
    published.py --check FOLDER     makes them again and says what differs

They lie in ingest/tests/fixtures/corpora, where the tests of `coda-ingest` read them.
"""

from __future__ import annotations

import argparse
import ast
import filecmp
import gzip
import io
import json
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ODD = ["plain\n", "Grüße, 世界 🙂", "a\r\nb\r\n", "<|im_end|> as text", "x" * 300]


@dataclass(frozen=True)
class Case:
    """A preset on its files: how they are written, and how a plain reader reads them."""

    preset: str
    paths: list[str]
    write: Callable[[Path], None]
    read: Callable[[Path], Iterator[str | tuple[str, str] | Counter[str]]]
    keys: dict[str, Any]
    """Keys besides the preset's."""


def lines(records: list[dict[str, Any]], last_feed: bool = True) -> bytes:
    text = "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    return (text + ("\n" if last_feed else "")).encode()


def zst(path: Path, parts: list[bytes]) -> None:
    """One frame after the other, and a line may go on in the next."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(pa.compress(part, "zstd", asbytes=True) for part in parts))


def gz(path: Path, parts: list[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(gzip.compress(part, 9, mtime=0) for part in parts))


def table(path: Path, columns: dict[str, Any], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)


def stream(path: Path, batches: list[pa.RecordBatch], codec: str | None) -> None:
    """As `datasets` saves a data set."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_stream(str(path), batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)


def rows(folder: Path, pattern: str) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob(pattern)):
        yield from pq.read_table(path).to_pylist()


# dclm-baseline-1.0: keys that come and go, a time stamp, frames that end inside a line, no last feed

def write_dclm(folder: Path) -> None:
    def record(number: int, text: str) -> dict[str, Any]:
        metadata = {
            "Content-Length": "1234", "Content-Type": "application/http; msgtype=response",
            "WARC-Date": "2016-12-03T19:19:18Z", "WARC-Record-ID": f"<urn:uuid:{number}>",
            "WARC-Target-URI": f"http://example.org/{number}", "WARC-Type": "response",
        }  # fmt: skip
        if number % 2:
            metadata["WARC-Truncated"] = "length"
        if number % 3:
            metadata["WARC-Identified-Payload-Type"] = "text/html"
        return {
            "bff_contained_ngram_count_before_dedupe": number,
            "language_id_whole_page_fasttext": {"en": 0.9},
            "metadata": metadata,
            "previous_word_count": 5,
            "text": text,
            "url": f"http://example.org/{number}",
            "warcinfo": "robots: classic\r\nhostname: ip-10\r\n",
            "fasttext_openhermes_reddit_eli5_vs_rw_v2_bigram_200k_train_prob": 0.08,
        }

    data = lines([record(n, text) for n, text in enumerate(ODD)], last_feed=False)
    inner = folder / "global-shard_01_of_10" / "local-shard_0_of_10"
    zst(inner / "shard_00000000_processed.jsonl.zst", [data[:700], data[700:]])
    zst(inner / "shard_00000001_processed.jsonl.zst", [lines([record(9, "second file")])])
    zst(inner / "shard_00000002_processed.jsonl.zst", [b""])


def read_dclm(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*.zst")):
        with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as file:
            for line in file.read().split(b"\n"):
                if line:
                    yield json.loads(line)["text"]


# redpajama: meta as an object and as text; json.gz of several members

def write_arxiv(folder: Path) -> None:
    meta = {"timestamp": "2023-03-08T15:00:01", "yymm": "2209", "arxiv_id": "2209.1",
            "language": "en", "url": "https://arxiv.org/abs/2209.1"}  # fmt: skip
    records = [{"text": text, "meta": meta} for text in ODD]
    records.append({"text": "meta as Python's text", "meta": str({**meta, "source": "it's"})})
    records.append({"text": "other language", "meta": str({**meta, "language": "fr"})})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "arxiv_0f3a.jsonl").write_bytes(lines(records))


def read_arxiv(folder: Path) -> Iterator[str | Counter[str]]:
    for line in (folder / "arxiv_0f3a.jsonl").read_text().split("\n"):
        if not line:
            continue
        record = json.loads(line)
        meta = record["meta"] if isinstance(record["meta"], dict) else ast.literal_eval(record["meta"])
        yield record["text"] if meta["language"] == "en" else Counter(language=1)


def write_redpajama2(folder: Path) -> None:
    def record(number: int, text: str) -> dict[str, Any]:
        return {"url": "http://example.org", "digest": f"sha1:{number}", "length": len(text),
                "raw_content": text, "language": "en", "perplexity": 123.5}  # fmt: skip

    first = lines([record(n, text) for n, text in enumerate(ODD)])
    gz(folder / "2023-06" / "0000" / "en_head.json.gz", [first, lines([record(7, "next member")])])


def read_redpajama2(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*.json.gz")):
        for line in gzip.decompress(path.read_bytes()).split(b"\n"):
            if line:
                yield json.loads(line)["raw_content"]


# tables of one text column

def write_math_web(folder: Path) -> None:
    columns = {"url": [f"http://example.org/{n}" for n in range(5)], "text": ODD,
               "date": ["2023-03-21 00:00:00"] * 5, "metadata": ['{"extraction_info": {}}'] * 5}
    table(folder / "data" / "train-00000-of-00001.parquet", columns, row_group_size=2,
          compression="zstd")  # fmt: skip


def write_wikipedia(folder: Path) -> None:
    columns = {"id": [str(n) for n in range(5)], "url": ["u"] * 5, "title": ["t"] * 5,
               "text": pa.array(ODD, pa.large_string())}  # fmt: skip
    table(folder / "train-00000-of-00041.parquet", columns, use_dictionary=["text"])


def write_project_gutenberg(folder: Path) -> None:
    table(folder / "data" / "en-00000-of-00052.parquet", {"id": ["1", "2"], "text": ["one", "two"]})


def read_text(folder: Path) -> Iterator[str]:
    return (row["text"] for row in rows(folder, "**/*.parquet"))


def write_gutenberg(folder: Path) -> None:
    columns = {"TEXT": [text.replace("\n", "\r\n") for text in ["A\n\nB\n", "one line"]],
               "SOURCE": ["http://example.org"] * 2,
               "METADATA": ['{"language": "en", "title": "It\\u0027s"}'] * 2}  # fmt: skip
    table(folder / "gutenberg_english-00000-of-00037.parquet", columns)


def read_gutenberg(folder: Path) -> Iterator[str]:
    return (row["TEXT"].replace("\r\n", "\n") for row in rows(folder, "*.parquet"))


# deepmind: alternating lines in a tarball; tables of Python's bytes

MODULES = {
    "mathematics_dataset-v1.0/train-easy/algebra__linear_1d.txt":
        "Solve 24 = 1601*c - 1605*c for c.\n-6\nSolve 657 = -220*t + 1086*t + 22307 for t.\n-25\n",
    "mathematics_dataset-v1.0/train-hard/comparison__sort.txt":
        "Sort 2, -1, 0.\r\n-1, 0, 2\r\nLast line without a feed?\r\nyes",
    "mathematics_dataset-v1.0/interpolate/algebra__linear_1d.txt": "A test.\n1\n",
    "mathematics_dataset-v1.0/train-medium/" + "long_" * 40 + "name.txt": "1 + 1\n2\n",
}  # fmt: skip


def write_deepmind(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(member("mathematics_dataset-v1.0/train-easy", None))
        for name, text in MODULES.items():
            archive.addfile(member(name, text), io.BytesIO(text.encode()))
    (folder / "mathematics_dataset-v1.0.tar.gz").write_bytes(
        gzip.compress(packed.getvalue(), 9, mtime=0)
    )


def member(name: str, text: str | None) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE if text is None else tarfile.REGTYPE
    info.size = 0 if text is None else len(text.encode())
    return info


def read_deepmind(folder: Path) -> Iterator[str]:
    with tarfile.open(folder / "mathematics_dataset-v1.0.tar.gz") as archive:
        for info in archive:
            if info.isfile() and "/train-" in info.name:
                content = archive.extractfile(info).read().decode().splitlines()  # type: ignore[union-attr]
                for question, answer in zip(content[::2], content[1::2]):
                    yield f"{question}\n{answer}"


def write_deepmind_hf(folder: Path) -> None:
    questions = ["Solve 0 = 4*b + b + 15 for b.", "What is 'it' in \"it's\"?", "Is € money?"]
    columns = {"question": [repr((q + "\n").encode()) for q in questions],
               "answer": [repr(b"-3\n"), repr(b'"it"\n'), repr(b"yes\n")]}  # fmt: skip
    table(folder / "algebra__linear_1d" / "train-00000-of-00001.parquet", columns)


def read_deepmind_hf(folder: Path) -> Iterator[str]:
    for row in rows(folder, "**/*.parquet"):
        texts = (ast.literal_eval(row[name]).decode().strip() for name in ("question", "answer"))
        yield "\n".join(texts)


# the Stack: flat rows with flags, and lists of files by repository

def write_stack_flat(folder: Path) -> None:
    """With its blobs' text beside the ids, as a fetch leaves it."""
    columns = {
        "blob_id": [str(n) for n in range(7)],
        "path": [f"/src/{n}.py" for n in range(7)],
        "detected_licenses": [["MIT"], [], ["MIT", "Apache-2.0"], ["GPL-3.0"], [], ["MIT"], []],
        "license_type": ["permissive", "no_license", "permissive", "non_permissive", "no_license",
                         "permissive", "permissive"],
        "language": pa.array(["Python"] * 6 + ["C"]).dictionary_encode(),
        "is_vendor": [False, False, True, False, None, False, False],
        "is_generated": [False, False, False, False, False, True, False],
        "content": [f"x = {n}\n" for n in range(7)],
    }  # fmt: skip
    table(folder / "data" / "Python" / "train-00000-of-00001.parquet", columns, row_group_size=3)


def kept(file: dict[str, Any], language: str | None) -> str | Counter[str]:
    """The text of a file, or the filter that drops it, in the order of the names."""
    if file["is_generated"]:
        return Counter(generated=1)
    if file["is_vendor"]:
        return Counter(vendor=1)
    if language is not None and file["language"] != language:
        return Counter(language=1)
    if file["license_type"] not in ("permissive", "no_license"):
        return Counter(license=1)
    return file["content"]


def read_stack_flat(folder: Path) -> Iterator[str | Counter[str]]:
    return (kept(row, "Python") for row in rows(folder, "**/*.parquet"))


REPOSITORIES: list[list[dict[str, Any]] | None] = [
    [{"path": "/a.py", "license_type": "permissive", "is_vendor": False, "is_generated": False,
      "content": "a = 1\n"},
     {"path": "/v/b.js", "license_type": "no_license", "is_vendor": True, "is_generated": False,
      "content": "b()"}],
    [],
    [{"path": "/c.c", "license_type": "permissive", "is_vendor": False, "is_generated": None,
      "content": "int c;\r\n"},
     {"path": "/d.c", "license_type": "non_permissive", "is_vendor": False, "is_generated": False,
      "content": "int d;"},
     {"path": "/e.rs", "license_type": "permissive", "is_vendor": False, "is_generated": True,
      "content": "e"}],
    [{"path": "/f.go", "license_type": "permissive", "is_vendor": None, "is_generated": False,
      "content": "package f // 世界\n"}],
]  # fmt: skip


def write_stack_nested(folder: Path) -> None:
    text = pa.string()
    file = pa.struct({
        "blob_id": text, "path": text, "content_id": text, "language": text,
        "length_bytes": pa.int64(), "detected_licenses": pa.list_(text), "license_type": text,
        "src_encoding": text, "is_vendor": pa.bool_(), "is_generated": pa.bool_(), "content": text,
    })  # fmt: skip
    files = [
        [{"blob_id": "0", "content_id": "0", "language": "X", "length_bytes": 1,
          "detected_licenses": ["MIT"], "src_encoding": "UTF-8", **f} for f in repository]
        for repository in REPOSITORIES if repository is not None
    ]  # fmt: skip
    columns = {
        "repo_name": [f"a/{n}" for n in range(len(files))],
        "visit_date": pa.array([1_700_000_000_000_000_000] * len(files), pa.timestamp("ns")),
        "num_files": [len(f) for f in files],
        "files": pa.array(files, pa.list_(file)),
    }
    table(folder / "data" / "train-00000-of-00001.parquet", columns, row_group_size=2)


def read_stack_nested(folder: Path) -> Iterator[str | Counter[str]]:
    for row in rows(folder, "**/*.parquet"):
        for file in row["files"]:
            yield kept(file, None)


def write_stack_v3(folder: Path) -> None:
    files = [[{"content_id": "1", "content": "fn main() {}\n", "path": "m.rs"}],
             [{"content_id": "2", "content": "x", "path": "x"},
              {"content_id": "3", "content": "y", "path": "y"}]]  # fmt: skip
    metadata = [{"stars": 1, "topics": ["a"]}, {"stars": 2, "topics": []}]
    columns = {"repo_path": ["a/b", "c/d"], "repo_id": [1, 2], "github_metadata": metadata,
               "num_files": [1, 2], "files": files}  # fmt: skip
    table(folder / "data" / "train-00000.parquet", columns)


def read_stack_v3(folder: Path) -> Iterator[str]:
    return (f["content"] for row in rows(folder, "**/*.parquet") for f in row["files"])


def write_python_edu(folder: Path) -> None:
    columns = {"blob_id": ["a", "b", "c"], "repo_name": ["r"] * 3, "path": ["/x.py"] * 3,
               "length_bytes": [5, 5, 5], "score": [3.2, 2.4, 4.0], "int_score": [3, 2, 4],
               "text": ["a = 1", "b = 2", "c = 3"]}  # fmt: skip
    table(folder / "python-edu" / "train-00000-of-00001.parquet", columns)


def read_python_edu(folder: Path) -> Iterator[str | Counter[str]]:
    for row in rows(folder, "**/*.parquet"):
        yield row["text"] if row["int_score"] >= 3 else Counter(filter=1)


# opc-annealing: Arrow IPC streams, compressed or not; the language under two names

PARTS = {"algorithmic_corpus": ("lang", "lz4"), "synthetic_code_snippet": ("lang", None),
         "synthetic_qa": ("program_lang", "zstd")}  # fmt: skip


def write_annealing(folder: Path) -> None:
    for part, (column, codec) in PARTS.items():
        languages = ["python", "java", "python", None]
        texts = [f"{part} {n} {ODD[n]}" for n in range(4)]
        schema = pa.schema({"text": pa.large_string(), column: pa.string()})
        both = zip((texts[:3], texts[3:]), (languages[:3], languages[3:]))
        batches = [pa.record_batch([pa.array(t, pa.large_string()), pa.array(l, pa.string())],
                                   schema=schema) for t, l in both]  # fmt: skip
        stream(folder / part / "data-00000-of-00001.arrow", batches, codec)


def read_annealing(folder: Path) -> Iterator[str | Counter[str]]:
    for part, (column, _) in PARTS.items():
        path = folder / part / "data-00000-of-00001.arrow"
        with pa.ipc.open_stream(str(path)) as reader:
            for row in reader.read_all().to_pylist():
                yield row["text"] if row[column] == "python" else Counter(language=1)


# opc-sft: subsets, twin folders of the history, extra columns

def write_sft1(folder: Path) -> None:
    columns = {"instruction": ["Add 1 and 1.", "Say hello."], "output": ["2", "Hello!"],
               "tag": ["a", "b"]}  # fmt: skip
    table(folder / "data" / "filtered_infinity_instruct-00000-of-00001.parquet", columns)
    table(folder / "data" / "realuser_instruct-00000-of-00001.parquet", columns)
    stale = {"instruction": ["stale"], "output": ["stale"], "tag": ["x"]}
    table(folder / "filtered-infinity-instruct" / "train-00000.parquet", stale)
    table(folder / "data" / "realuser-instruct-00000-of-00001.parquet", stale)


def read_sft1(folder: Path) -> Iterator[tuple[str, str]]:
    return ((row["instruction"], row["output"]) for row in rows(folder, "data/*_instruct-*"))


def write_sft2(folder: Path) -> None:
    educational = {
        "seq_id": pa.array([1, 2]), "instruction": ["Write f.", "Write g."],
        "output": ["```python\ndef f(): pass\n```", "def g(): pass"], "code": ["f", "g"],
        "entry_point": ["f", "g"], "testcase": [["assert f() is None"], []],
    }  # fmt: skip
    table(folder / "educational_instruct" / "train-00000-of-00001.parquet", educational)
    for name in ("evol_instruct", "mceval_instruct", "package_instruct"):
        columns = {"seq_id": [7], "instruction": [f"{name}?"], "output": [f"{name}!"]}
        table(folder / name / "train-00000-of-00001.parquet", columns)


def read_sft2(folder: Path) -> Iterator[tuple[str, str]]:
    return ((row["instruction"], row["output"]) for row in rows(folder, "*/*.parquet"))


PYTHON_ONLY = {"keep": {"lang|program_lang": ["python"]}}
CASES = [
    Case("dclm-baseline-1.0", ["**/*.jsonl.zst"], write_dclm, read_dclm, {}),
    Case("redpajama-arxiv", ["*.jsonl"], write_arxiv, read_arxiv,
         {"keep": {"meta.language": ["en"]}}),
    Case("redpajama-v2", ["**/*.json.gz"], write_redpajama2, read_redpajama2, {}),
    Case("open-web-math", ["**/*.parquet"], write_math_web, read_text, {}),
    Case("wikipedia", ["*.parquet"], write_wikipedia, read_text, {}),
    Case("project-gutenberg", ["data/en-*.parquet"], write_project_gutenberg, read_text, {}),
    Case("gutenberg-english", ["*.parquet"], write_gutenberg, read_gutenberg,
         {"keep": {"METADATA.language": ["en"]}}),
    Case("deepmind-mathematics", ["*.tar.gz"], write_deepmind, read_deepmind, {}),
    Case("deepmind-mathematics-hf", ["**/*.parquet"], write_deepmind_hf, read_deepmind_hf, {}),
    Case("the-stack-v2-python", ["data/Python/*.parquet"], write_stack_flat, read_stack_flat,
         {"text_field": "content"}),
    Case("the-stack-v2-train-smol-ids", ["data/*.parquet"], write_stack_nested, read_stack_nested,
         {"text_field": "files.content"}),
    Case("stack-v3-train", ["**/*.parquet"], write_stack_v3, read_stack_v3, {}),
    Case("smollm-python-edu", ["python-edu/*.parquet"], write_python_edu, read_python_edu,
         {"text_field": "text", "keep": {"int_score": {"min": 3}}}),
    Case("opc-annealing-corpus", ["**/*.arrow"], write_annealing, read_annealing, PYTHON_ONLY),
    Case("opc-sft-stage1", [""], write_sft1, read_sft1, {}),
    Case("opc-sft-stage2", ["**/*.parquet"], write_sft2, read_sft2, {}),
]  # fmt: skip


def write(folder: Path) -> None:
    """The files of every case, and what must come out."""
    expected: dict[str, Any] = {}
    for case in CASES:
        inner = folder / case.preset
        case.write(inner)
        documents: list[str | tuple[str, str]] = []
        drops: Counter[str] = Counter()
        for item in case.read(inner):
            if isinstance(item, Counter):
                drops += item
            else:
                documents.append(item)
        paths = [f"{case.preset}/{path}".rstrip("/") for path in case.paths]
        expected[case.preset] = {
            "source": {"paths": paths, **case.keys}, "documents": documents, "drops": dict(drops),
        }  # fmt: skip
    text = json.dumps(expected, indent=1, ensure_ascii=False, sort_keys=True)
    (folder / "expected.json").write_text(text + "\n")


def check(folder: Path) -> list[str]:
    """Files of a folder that are not what this script writes."""
    with tempfile.TemporaryDirectory() as made:
        write(Path(made))
        names = {
            path.relative_to(root).as_posix()
            for root in (folder, Path(made)) for path in root.rglob("*") if path.is_file()
        }  # fmt: skip
        _, differ, missing = filecmp.cmpfiles(made, folder, sorted(names), shallow=False)
        # Deflate gives other bytes with another zlib.
        pairs = [(name, Path(made, name), folder / name) for name in differ]
        return missing + [name for name, a, b in pairs if unpacked(a) != unpacked(b)]


def unpacked(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def main() -> int:
    parser = argparse.ArgumentParser(description="Fixtures with the schemas of published corpora.")
    parser.add_argument("--write", type=Path, help="make the files in this folder")
    parser.add_argument("--check", type=Path, help="compare this folder with what would be made")
    arguments = parser.parse_args()
    if arguments.write:
        write(arguments.write)
    if arguments.check:
        for name in (wrong := check(arguments.check)):
            print(f"published: {name} is not what the script writes", file=sys.stderr)
        return 1 if wrong else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
