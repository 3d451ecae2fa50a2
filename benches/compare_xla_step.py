"""Runs xla_step, jax_step.py and torch_step.py in turns and prints the medians and their ratios.

    cargo build --release -p coda-benches
    python3 benches/compare_xla_step.py [--rounds 3] [--torch PYTHON_WITH_TORCH]

JAX comes from PyPI into target/venv-jax. Its program runs as a scan over layers and layer by layer; what
counts is the faster. Without --torch there is no PyTorch in it. Every program is held to two cores.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
WARM_UP = 2
JAX = "jax==0.10.2"


def jax_python() -> str:
    venv = ROOT / "target" / "venv-jax"
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", JAX], check=True)
    return str(python)


def plugin() -> str:
    command = ["cargo", "xtask", "plugin"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip()


def run(command: list[str]) -> list[dict]:
    cores = sorted(os.sched_getaffinity(0))[:2]
    pinned = lambda: os.sched_setaffinity(0, cores)
    # PyTorch's threads would otherwise burn the time in which they wait for each other.
    env = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, check=True, capture_output=True, preexec_fn=pinned, env=env)
    return [json.loads(line) for line in done.stdout.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", help="an interpreter that has torch")
    parser.add_argument("--program", default=str(ROOT / "target" / "release" / "xla_step"))
    parser.add_argument("--plugin", help="the CPU plugin; without it: cargo xtask plugin")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    steps, jax = str(args.steps), str(ROOT / "benches" / "jax_step.py")
    sides = {
        "coda": [args.program, args.plugin or plugin(), steps],
        "jax scan": [jax_python(), jax, steps, "scan", "keep", "scored"],
        "jax unrolled": [jax_python(), jax, steps, "unroll", "keep", "scored"],
    }
    if args.torch:
        sides["torch"] = [args.torch, str(ROOT / "benches" / "torch_step.py"), steps, "2"]
    seen: dict[str, list[dict]] = {name: [] for name in sides}
    first: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(args.rounds):
        for name, command in sides.items():
            found = run(command)
            first[name].append(found[0]["cpu"])
            seen[name] += found[WARM_UP:]
            last = found[-1]
            print(f"round {number} {name}: {last['wall']:.3f} s, loss {last['loss']:.3f}", file=sys.stderr)
    print("| | wall s, median | least | CPU s, median | least | first step, CPU s |")
    print("|---|---|---|---|---|---|")
    for name, found in seen.items():
        columns = [
            f(step[key] for step in found) for key in ("wall", "cpu") for f in (statistics.median, min)
        ]
        columns.append(statistics.median(first[name]))
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in columns) + " |")


main()
