"""The outside judges: PyTorch, Hugging Face and plain Python on our numbers.

    run.py --programs target/release --work target/judges       all of them
    run.py … --only gradients,optimizers                        some

`cargo xtask judges` makes the environment and calls this. A judge is a module with
`judge(bench)`, which yields its verdicts and raises Difference.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import time
from pathlib import Path

from verdict import Bench, Difference

JUDGES = (
    "frozen", "gradients", "steps", "checkpoints", "sampling", "rendering", "torch_feed", "exports",
    "evaluating",
)  # fmt: skip


def main() -> int:
    """Runs the judges; 1 when one of them found a difference."""
    parser = argparse.ArgumentParser(description="Holds CODA's numbers against other people's code.")
    parser.add_argument("--programs", type=Path, required=True, help="folder of the programs")
    parser.add_argument("--work", type=Path, required=True, help="a folder of its own; it is emptied")
    parser.add_argument("--only", default=",".join(JUDGES), help=f"some of {', '.join(JUDGES)}")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    unknown = [name for name in wanted if name not in JUDGES]
    if unknown:
        parser.error(f"there is no judge {unknown[0]}, only {', '.join(JUDGES)}")
    shutil.rmtree(arguments.work, ignore_errors=True)
    failed = [name for name in wanted if not heard(name, arguments.programs, arguments.work)]
    verdict = f"{len(wanted) - len(failed)} agree, {len(failed)} do not"
    print(f"judges: {verdict}{': ' if failed else ''}{', '.join(failed)}")
    return 1 if failed else 0


def heard(name: str, programs: Path, work: Path) -> bool:
    """One judge; whether it agrees."""
    started = time.monotonic()
    folder = work.resolve() / name
    folder.mkdir(parents=True)
    try:
        for line in importlib.import_module(name).judge(Bench(programs.resolve(), folder)):
            print(f"{name}: {line}", file=sys.stderr)
    except Difference as difference:
        print(f"{name}: DIFFERS: {difference}", file=sys.stderr)
        return False
    print(f"{name}: agrees, {time.monotonic() - started:.0f} s", file=sys.stderr)
    return True


if __name__ == "__main__":
    sys.exit(main())
