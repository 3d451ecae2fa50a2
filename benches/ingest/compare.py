"""Ingest beside the tools that a user would pick instead, all in one run, in turns.

    cargo build --release -p coda-ingest -p coda-bench-ingest
    python3 benches/ingest/compare.py --corpora DIR --tokenizer tokenizer.json [--rounds 3] [--only PART]

DIR holds `dclm-like/*.jsonl.zst` with a key `text` and `stack-v2-like/*.parquet` with a column `content`.
Parts: `tokenize` (text in memory to ids), `build` (files to finished, hashed rows of 8192 tokens, on
one and two cores), `read` (random rows in batches of 64). Prints tables in Markdown; rates are megabytes of text
(10^6 bytes) or rows per second of user and system time. The peers are installed into
`target/venv-bench-*` (Megatron's reader needs PyTorch: 5.6 GB).
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PROGRAMS = ROOT / "target" / "release"
WORK = ROOT / "target" / "bench-ingest"
CORPORA = {
    "prose, jsonl.zst": ("dclm-like/*.jsonl.zst", "text"),
    "code, parquet": ("stack-v2-like/*.parquet", "content"),
}
READERS = {
    "peers": ("numpy", "pyarrow", "datasets"),
    "streaming": ("streaming",),
    "megatron": ("megatron",),
}
MANIFEST = """\
version: 1
name: bench
stage: pre
allowed_roots: [{roots}]
tokenizer: {{path: {tokenizer}}}
data:
  out: {out}
  row_length: 8192
  max_reject_rate: 0.1
  sources: [{{name: bench, paths: ["{paths}"], text_field: {field}}}]
"""


def environment(name: str) -> str:
    """The interpreter with the packages of `NAME.txt`. Not all peers can live together."""
    venv = ROOT / "target" / f"venv-bench-{name}"
    packages = HERE / f"{name}.txt"
    wanted = packages.read_text()
    stamp = venv / "requirements.txt"
    python = venv / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "-r", packages]
        subprocess.run(pip, check=True)
        stamp.write_text(wanted)
    return str(python)


def run(command: list[str], cores: int | None = None) -> dict:
    """Runs a command to its end: what it printed, its CPU and wall seconds, its peak memory.

    With `cores` it is held to so many of them, whatever the number of its threads.
    """
    start = time.perf_counter()
    child = subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores]),
    )
    assert child.stdout
    printed = child.stdout.read().decode()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{command[0]} ended with {child.returncode}")
    return {
        "printed": printed,
        "cpu": usage.ru_utime + usage.ru_stime,
        "wall": time.perf_counter() - start,
        "memory": usage.ru_maxrss * 1024,
    }


def table(head: list[str], rows: list[list[str]]) -> None:
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def tokenize(args: argparse.Namespace) -> None:
    rows = []
    for corpus, (paths, field) in CORPORA.items():
        files = sorted(args.corpora.glob(paths))
        rates: dict[tuple[str, int], list[list[float]]] = {}
        for _ in range(args.rounds):
            for threads in (1, 2):
                for engine in ("coda", "fastokens"):
                    command = [PROGRAMS / "tokenize", engine, "--tokenizer", args.tokenizer]
                    command += ["--field", field, "--threads", threads, *files]
                    passes = json.loads(run(command)["printed"])["passes"]
                    rate = [one["mb_per_cpu_second"] for one in passes]
                    rates.setdefault((engine, threads), []).append(rate)
        for (engine, threads), found in rates.items():
            cold, warm = (statistics.median(values) for values in zip(*found))
            rows.append([corpus, engine, str(threads), f"{cold:.0f}", f"{warm:.0f}"])
    table(["corpus", "engine", "threads", "cold MB/CPU-s", "warm MB/CPU-s"], rows)


def build(args: argparse.Namespace) -> None:
    rows = []
    for corpus, (paths, field) in CORPORA.items():
        out = WORK / "set"
        manifest = WORK / "bench.yaml"
        roots = ", ".join(f'"{p}"' for p in (args.corpora, args.tokenizer.parent, WORK))
        manifest.write_text(
            MANIFEST.format(
                roots=roots, tokenizer=args.tokenizer, out=out,
                paths=args.corpora / paths, field=field,
            )
        )
        coda = [PROGRAMS / "coda-ingest", "--manifest", manifest, "--json", "--quiet", "--jobs"]
        giga = [environment("peers"), HERE / "gigatoken_build.py", args.tokenizer, args.corpora / paths, field, WORK]
        found: dict[str, list[dict]] = {}
        size = 0
        for _ in range(args.rounds):
            for name, command, cores in (
                ("coda, 1 core", [*coda, "1"], 1),
                ("coda, 2 cores", [*coda, "2"], 2),
                ("gigatoken, 2 cores", giga, 2),
            ):
                if name.startswith("coda"):
                    shutil.rmtree(out, ignore_errors=True)
                result = run(command, cores)
                if name.startswith("coda"):
                    size = json.loads(result["printed"])["input_bytes"]
                found.setdefault(name, []).append(result)
        for name, results in found.items():
            middle = {k: statistics.median(r[k] for r in results) for k in ("cpu", "wall", "memory")}
            rows.append([
                corpus, name, f"{size / 1e6 / middle['cpu']:.1f}", f"{size / 1e6 / middle['wall']:.1f}",
                f"{middle['memory'] / 2**20:.0f}",
            ])
    table(["corpus", "tool", "MB/CPU-s", "MB/s", "peak MiB"], rows)


def read(args: argparse.Namespace) -> None:
    shards = WORK / "set"
    if not (shards / "index.json").exists():
        sys.exit("read: run the part `build` first")
    ours = json.loads(run([PROGRAMS / "rows", shards, "--rounds", str(args.rounds)])["printed"])
    peers = {}
    for name, readers in READERS.items():
        command = [environment(name), HERE / "readers.py", shards, WORK, str(args.rounds), *readers]
        peers |= json.loads(run(command)["printed"])
    memcpy = ours["memcpy_of_the_rows_rows_per_cpu_second"]
    rates = {
        "memcpy of the same rows": memcpy,
        "memcpy of 64 rows in a stretch": ours["memcpy_rows_per_cpu_second"],
        "coda, copied out": ours["copied_rows_per_cpu_second"],
        "coda, borrowed": ours["borrowed_rows_per_cpu_second"],
    } | peers
    rows = [[name, f"{rate:,.0f}", f"{rate / memcpy:.2f}"] for name, rate in rates.items()]
    table(["reader", "rows/CPU-s", "of memcpy"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", type=pathlib.Path, required=True)
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("tokenize", "build", "read"))
    args = parser.parse_args()
    args.corpora, args.tokenizer = args.corpora.resolve(), args.tokenizer.resolve()
    WORK.mkdir(parents=True, exist_ok=True)
    if args.only in (None, "tokenize"):
        tokenize(args)
    if args.only in (None, "build"):
        build(args)
    if args.only in (None, "read"):
        read(args)


if __name__ == "__main__":
    main()
