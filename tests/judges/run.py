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
import subprocess
import sys
import time
from pathlib import Path

from verdict import Bench, Difference

JUDGES = (
    "frozen", "gradients", "steps", "checkpoints", "sampling", "rendering", "torch_feed", "exports",
    "evaluating",
)  # fmt: skip

# In a process of its own, which inherits nothing: the programs that are judged there write to every descriptor
# that they find, such as the one by which other judges' workers talk to Python's resource tracker.
APART = ("evaluating",)


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
    failed = []
    for name in wanted:
        hear = heard_apart if name in APART and len(wanted) > 1 else heard
        if not hear(name, arguments.programs, arguments.work):
            failed.append(name)
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


def heard_apart(name: str, programs: Path, work: Path) -> bool:
    """As `heard`, by this program, called anew."""
    command: list[str | Path] = [sys.executable, __file__, "--programs", programs, "--work", work / "apart"]
    # What it counts is one judge.
    done = subprocess.run([*command, "--only", name], stdout=subprocess.DEVNULL, check=False)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
