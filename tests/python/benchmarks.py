"""Benchmarks of the hub: Parquet files to JSON lines by `coda-ingest records`, and these to `coda-trainer eval code`.

The columns are those of openai/openai_humaneval, google-research-datasets/mbpp, evalplus/humanevalplus and
evalplus/mbppplus on the hub, the problems our own.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from coda_shards.difference import holds, same
from hub import COMMIT, serving

Record = dict[str, Any]
PASS, FAIL, TIMEOUT = "pass", "fail", "timeout"

#: How EvalPlus writes inputs and results out: our own words for it.
HEAD = "import numpy as np\n\ndef close(out, exp):\n    assert out == exp or np.allclose(out, exp, rtol=1e-7, atol=1e-6)\n\n"
MEAN = {
    "task_id": "HumanEval/950",
    "prompt": 'def mean(xs):\n    """The mean."""\n',
    "canonical_solution": "    return sum(xs) / len(xs)\n",
    "entry_point": "mean",
    "test": HEAD + "def check(candidate):\n    inputs = [[[1, 2]], [[3, 4, 5]], [[0.1, 0.2]]]\n"
    "    results = [1.5, 4.0, 0.15]\n    for inp, exp in zip(inputs, results):\n        close(candidate(*inp), exp)\n",
}
#: What takes the canonical solution 1.5 seconds gives others six.
SLOW = {
    "task_id": "HumanEval/951",
    "prompt": 'def slow(n):\n    """n."""\n',
    "canonical_solution": "    import time\n    time.sleep(1.5)\n    return n\n",
    "entry_point": "slow",
    "test": HEAD + "def check(candidate):\n    inputs = [[7]]\n    results = [7]\n    for inp, exp in zip(inputs, results):\n"
    "        close(candidate(*inp), exp)\n",
}
AREA = {
    "task_id": 9050,
    "code": "def area(a, b):\n    return a * b\n",
    "prompt": "Write a function to find the area.",
    "source_file": "of our own",
    "test_imports": ["import math"],
    "test_list": ["assert area(2, 3) == 6", "assert area(1, 1) == math.sqrt(1)"],
    "test": HEAD + "inputs = [(2, 3), (0, 9), (-1, 5)]\nresults = [6, 0, -5]\nfor inp, exp in zip(inputs, results):\n"
    "    close(area(*inp), exp)\n",
}
SOLUTIONS = {
    "humanevalplus": [
        (MEAN, "def mean(xs):\n    return sum(x / len(xs) for x in xs)", PASS),
        (MEAN, "def mean(xs):\n    return sum(xs) // len(xs)", FAIL),
        (SLOW, "import time\ndef slow(n):\n    time.sleep(3.3)\n    return n", PASS),
        (SLOW, "def slow(n):\n    while True: pass", TIMEOUT),
    ],
    "mbppplus": [
        (AREA, "def area(a, b): return b * a", [PASS, PASS]),
        (AREA, "def area(a, b): return abs(a * b)", [PASS, FAIL]),
        (AREA, "def area(a, b): return a + b", [FAIL, FAIL]),
    ],
}


def check_benchmarks(programs: Path, make: Path, work: Path) -> str:
    """Serves the benchmarks, reads and judges them; says what was seen."""
    work.mkdir(parents=True)
    sys.path.insert(0, str(make.parent))
    source = importlib.import_module("make")
    datasets = {
        "openai/openai_humaneval/openai_humaneval": [source.humaneval()[0]],
        "google-research-datasets/mbpp/full": [source.mbpp()[0][:1], source.mbpp()[0][1:]],
        "evalplus/humanevalplus/data": [[MEAN, SLOW]],
        "evalplus/mbppplus/data": [[AREA]],
    }
    for folder, splits in datasets.items():
        (work / "hub" / folder).mkdir(parents=True)
        for number, records in enumerate(splits):
            table = pa.Table.from_pylist(records)
            pq.write_table(table, work / "hub" / folder / f"{number}-00000-of-00001.parquet")
    names = []
    with serving(work / "hub") as endpoint:
        env = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(work / "home")}
        for folder, splits in datasets.items():
            name = folder.split("/")[1]
            names.append(name)
            address = f"hf://datasets/{folder}"
            command = ["records", address, "--out", f"{name}.jsonl", "--json", "--quiet"]
            told = json.loads(run(programs / "coda-ingest", command, work, env))
            wanted = [record for split in splits for record in split]
            found = [json.loads(line) for line in (work / f"{name}.jsonl").read_text().splitlines()]
            same(f"records of {name}", [told["records"], told["rejected"]], [len(wanted), 0])
            # Columns that a split has not are not there, those that a record has not are null.
            filled = [{key: value for key, value in one.items() if value is not None} for one in found]
            same(f"{name} from the hub", filled, wanted)
            holds("the revision is settled", all(f"@{COMMIT}/" in origin for origin in told["origins"]))
    # The hub is gone: what came once is in its cache.
    again = ["records", address, "--out", "again.jsonl", "--offline", "--quiet"]
    run(programs / "coda-ingest", again, work, env)
    same("the same without a network", (work / "again.jsonl").read_bytes(), (work / f"{name}.jsonl").read_bytes())
    for name in names:
        canonical = ["--data", f"{name}.jsonl", "--canonical", "--out", f"{name}.canonical"]
        same(f"canonical solutions of {name}", evaluate(programs, canonical, work)["base"]["1"], 1.0)
    for name, solutions in SOLUTIONS.items():
        judged(programs, work, name, solutions)
    bare = work / "bare"
    venv.create(bare, with_pip=False)
    told = run(
        programs / "coda-trainer",
        ["eval", "code", "--data", "mbppplus.jsonl", "--canonical", "--out", "none", "--python", f"{bare}/bin/python"],
        work,
        env,
        2,
    )
    holds("a missing numpy is named", "numpy" in told and "--python" in told)
    count = sum(len(split) for splits in datasets.values() for split in splits)
    return f"benchmarks: {count} problems of four datasets of the hub, read from Parquet and judged"


def judged(programs: Path, work: Path, name: str, solutions: Sequence[tuple[Record, str, Any]]) -> None:
    """Verdicts are those that the solutions deserve."""
    samples = [{"task_id": problem["task_id"], "solution": text} for problem, text, _ in solutions]
    (work / f"{name}.samples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in samples))
    arguments = ["--data", f"{name}.jsonl", "--samples", f"{name}.samples.jsonl", "--out", f"{name}.out"]
    results = evaluate(programs, arguments, work)
    same(f"the benchmark of {name}", results["evaluation"]["benchmark"], name.replace("plus", "+"))
    verdicts = {task["task_id"]: iter(task["verdicts"]) for task in results["tasks"]}
    for problem, text, expected in solutions:
        verdict = next(verdicts[str(problem["task_id"])])
        found = [verdict["base"], verdict["plus"]] if isinstance(expected, list) else verdict["base"]
        same(f"the verdict on {text!r} ({verdict})", found, expected)


def evaluate(programs: Path, arguments: Sequence[str], work: Path) -> Record:
    """Results of `eval code`, with an interpreter that has numpy."""
    command = ["eval", "code", *arguments, "--python", sys.executable, "--json", "--quiet"]
    results: Record = json.loads(run(programs / "coda-trainer", command, work, dict(os.environ)))
    return results


def run(program: Path, arguments: Sequence[str], work: Path, env: dict[str, str], code: int = 0) -> str:
    """What a program prints."""
    done = subprocess.run([program, *arguments], cwd=work, env=env, capture_output=True, check=False)
    told = done.stderr.decode()
    same(f"exit code of {' '.join(arguments)} ({told})", done.returncode, code)
    return done.stdout.decode() if code == 0 else told
