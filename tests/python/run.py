"""Other people's readers on our files: pyarrow, numpy, tokenizers and BLAKE3 from PyPI.

Builds two small shard sets with the release programs, from zstd, Parquet and Arrow files of pyarrow,
and holds them, and the masks that `coda-curriculum draw` prints, against docs/shard-format.md.
Nothing here calls Rust but through the command line.

    run.py --programs target/release --work target/python-check/sets --browser target/chromium
    run.py --set shards/pretrain        only the files of a set that is there
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import check_benchmarks
from browser import prepare
from corpus import Corpus, packed_manifest, pairs_manifest, write_corpus
from coda_shards import ShardSet
from coda_shards.difference import Difference, same
from documents import check_packed, check_pairs
from drawn import CASES, WEIGHTS, check_case, check_drawn
from exports import check_exports
from feeding import check_feeding
from known_answers import check_known_answers
from noising import check_noise
from opening import check_opening
from package import check_package
from remote import check_remote
from page import check_page
from serving import check_serving
from published import check as check_published
from coda_shards.verify import verify

REPOSITORY = Path(__file__).resolve().parents[2]
FROZEN = REPOSITORY / "tests" / "compat" / "shards_v1"
FROZEN_WITH_SPANS = REPOSITORY / "tests" / "compat" / "shards_v2"
FIXTURES = REPOSITORY / "ingest" / "tests" / "fixtures" / "corpora"


class Programs:
    """The release programs, run in the work folder."""

    def __init__(self, folder: Path, work: Path) -> None:
        self._folder = folder.resolve()
        self._work = work

    def run(self, name: str, arguments: Sequence[str]) -> str:
        """What the program prints; a Difference when it does not end with 0."""
        command = [str(self._folder / name), *arguments]
        done = subprocess.run(command, cwd=self._work, capture_output=True, check=False)
        if done.returncode != 0:
            told = done.stderr.decode(errors="replace")
            raise Difference(f"`{' '.join(command)}` ended with {done.returncode}:\n{told}")
        return done.stdout.decode()

    def draw(self, arguments: Sequence[str]) -> str:
        """`coda-curriculum draw`."""
        return self.run("coda-curriculum", ["draw", *arguments])


def main() -> int:
    """Runs the checks; 1 when something differs."""
    parser = argparse.ArgumentParser(description="Holds shard sets and masks against Python.")
    parser.add_argument("--programs", type=Path, help="folder of the release programs")
    parser.add_argument("--work", type=Path, help="a folder to be made; it must not be there")
    parser.add_argument("--browser", type=Path, help="where the browser lies or is to lie")
    parser.add_argument("--set", type=Path, action="append", help="check only this set's files")
    arguments = parser.parse_args()
    needed = (arguments.programs, arguments.work, arguments.browser)
    if not arguments.set and None in needed:
        parser.error("--programs, --work and --browser are needed")
    try:
        check_known_answers()
        say("draws, keys and order give their known answers")
        same("fixtures that differ from what published.py writes", check_published(FIXTURES), [])
        say("the fixtures of published corpora hold what plain Python reads from them")
        for directory in arguments.set or [FROZEN, FROZEN_WITH_SPANS]:
            check_files(directory)
        if not arguments.set:
            check_built(arguments.programs, arguments.work)
            say(check_page(
                arguments.programs.resolve() / "coda-serve",
                prepare(arguments.browser.resolve()),
                arguments.work.resolve() / "page",
            ))  # fmt: skip
    except Difference as difference:
        print(f"python: {difference}", file=sys.stderr)
        return 1
    return 0


def say(text: str) -> None:
    """A line of progress."""
    print(f"python: {text}", file=sys.stderr)


def check_files(directory: Path) -> ShardSet:
    """Opens a set, which checks its files, and says so."""
    shards = verify(directory)
    count, name = len(shards.index["shards"]), directory.name
    say(f"{name}: {len(shards)} rows of {count} shards, mapped without a copy; all sums fit")
    return shards


def check_built(folder: Path, work: Path) -> None:
    """Builds the sets and checks everything about them."""
    corpus = write_corpus(REPOSITORY, work / "inputs")
    programs = Programs(folder, work.resolve())
    build(programs, work)
    packed, pairs = check_files(work / "packed"), check_files(work / "pairs")
    check_texts(packed, pairs, corpus)

    say(check_opening(FROZEN, FROZEN_WITH_SPANS, work / "opening"))
    package = REPOSITORY / "shards" / "python"
    say(check_package(package, (work / "packed").resolve(), (work / "package").resolve()))
    for directory in (packed.directory, pairs.directory):
        say(check_exports(programs, directory.resolve(), work.resolve() / f"{directory.name}-out"))
    program = folder.resolve() / "coda-ingest"
    say(check_remote(program, work.resolve(), packed, packed_manifest()))
    rows, positions = check_drawn(programs.draw, packed, pairs)
    say(check_feeding(packed, ShardSet(FROZEN)))
    say(check_noise(packed, pairs))
    say(f"draw: {rows} rows with {positions} masked positions are the same bit for bit")
    say(check_serving(folder.resolve() / "coda-serve", work.resolve() / "serving"))
    make = REPOSITORY / "tests" / "evaluation" / "make.py"
    say(check_benchmarks(folder.resolve(), make, work.resolve() / "benchmarks"))
    check_that_faults_show(programs, packed, corpus, work)
    say("faults put in on purpose are all named")


def build(programs: Programs, work: Path) -> None:
    """The tokenizer, the manifests and the two sets."""
    train = ["train-tokenizer", "--quiet", "--vocab-size", "2048", "--out", "tokenizer.json"]
    programs.run("coda-ingest", [*train, "--input", "inputs/code.jsonl.zst"])
    manifests: dict[str, dict[str, Any]] = {
        "packed.yaml": packed_manifest(),
        "weighted.yaml": packed_manifest(WEIGHTS),
        "pairs.yaml": pairs_manifest(),
    }
    for name, manifest in manifests.items():
        (work / name).write_text(json.dumps(manifest, indent=2))  # JSON is YAML
    for name in ("packed.yaml", "pairs.yaml"):
        programs.run("coda-ingest", ["--quiet", "--manifest", name])


def check_texts(packed: ShardSet, pairs: ShardSet, corpus: Corpus) -> None:
    """Every document and every pair, decoded, is the input."""
    for name, texts in corpus.texts.items():
        check_packed(packed, name, texts)
    for name, records in corpus.pairs.items():
        check_pairs(pairs, name, records)
    documents = sum(map(len, corpus.texts.values()))
    conversations = sum(map(len, corpus.pairs.values()))
    say(f"{documents} documents and {conversations} pairs decode to their input, byte for byte")


def check_that_faults_show(
    programs: Programs, shards: ShardSet, corpus: Corpus, work: Path
) -> None:
    """The checks themselves can fail: each fault is put in, and has to be found."""
    damaged = work / "damaged"
    shutil.copytree(shards.directory, damaged)
    shard = damaged / "shard-00001.arrow"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    must_differ("a flipped bit", "shard-00001.arrow: CRC-32C", lambda: verify(damaged))

    other = list(corpus.texts["code"])
    other[7] += "?"
    must_differ("another text", "code, document 7", lambda: check_packed(shards, "code", other))

    case = CASES[0]
    report = json.loads(programs.draw(case.arguments()))
    check_case(case, shards, report)
    moved = copy.deepcopy(report)
    row = next(row for row in moved["rows"] if row["masked"])
    row["masked"][-1] += 1
    place = f"row {row['row']}: masked"
    must_differ("a moved mask", place, lambda: check_case(case, shards, moved))
    nudged = copy.deepcopy(report)
    nudged["rows"][0]["sigma"] *= 1 + 2**-52
    must_differ("sigma off by a bit", "bits of sigma", lambda: check_case(case, shards, nudged))


def must_differ(fault: str, named: str, check: Callable[[], object]) -> None:
    """The check has to fail and to name the place."""
    try:
        check()
    except Difference as difference:
        same(f"{fault}: its report names {named!r} ({difference})", named in str(difference), True)
        return
    raise Difference(f"{fault} was not noticed")


if __name__ == "__main__":
    sys.exit(main())
