"""Runs train_step and torch_step.py in turns and prints the medians and their ratio.

    cargo build --release -p coda-benches
    python3 benches/compare_train_step.py [--python PYTHON_WITH_TORCH] [--rounds 5]

Without --python it makes target/venv-torch with PyTorch from PyPI (several GB).
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
WARM_UP = 3


def torch_python() -> str:
    venv = ROOT / "target" / "venv-torch"
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "torch", "numpy"], check=True)
    return str(python)


def run(command: list[str], steps: int, threads: int) -> list[dict]:
    done = subprocess.run([*command, str(steps), str(threads)], check=True, capture_output=True)
    return [json.loads(line) for line in done.stdout.splitlines()][WARM_UP:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", help="an interpreter that has torch")
    parser.add_argument("--program", default=str(ROOT / "target" / "release" / "train_step"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=13)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    sides = {
        "coda": [args.program],
        "torch": [args.python or torch_python(), str(ROOT / "benches" / "torch_step.py")],
    }
    results: dict[str, list[dict]] = {name: [] for name in sides}
    for number in range(args.rounds):
        for name, command in sides.items():
            results[name] += run(command, args.steps, args.threads)
            last = results[name][-1]
            print(f"round {number} {name}: {last['wall']:.3f} s, loss {last['loss']:.3f}", file=sys.stderr)
    medians = {
        name: {key: statistics.median(step[key] for step in steps) for key in ("wall", "cpu")}
        | {"least_wall": min(step["wall"] for step in steps)}
        for name, steps in results.items()
    }
    ratios = {key: medians["coda"][key] / medians["torch"][key] for key in medians["coda"]}
    print(json.dumps({"medians": medians, "coda_over_torch": ratios}, indent=2))


main()
