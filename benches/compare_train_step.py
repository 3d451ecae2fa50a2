"""Runs train_step and torch_step.py in turns and prints the medians and their ratio.

    cargo build --release -p coda-benches
    python3 benches/compare_train_step.py [--python PYTHON_WITH_TORCH] [--rounds 5]
    python3 benches/compare_train_step.py --table       widths 256 to 1024, rows of 128 to 2048

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


def run(command: list[str], sizes: list[str], warm_up: int) -> list[dict]:
    done = subprocess.run([*command, *sizes], check=True, capture_output=True)
    return [json.loads(line) for line in done.stdout.splitlines()][warm_up:]


def compare(sides: dict[str, list[str]], rounds: int, sizes: list[str], warm_up: int) -> dict:
    """Medians of both sides, which run in turns, and their ratios."""
    results: dict[str, list[dict]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, command in sides.items():
            results[name] += run(command, sizes, warm_up)
            last = results[name][-1]
            print(
                f"round {number} {name}: {last['wall']:.3f} s, loss {last['loss']:.3f}",
                file=sys.stderr,
            )
    medians = {
        name: {key: statistics.median(step[key] for step in steps) for key in ("wall", "cpu")}
        | {"least_wall": min(step["wall"] for step in steps)}
        for name, steps in results.items()
    }
    ratios = {key: medians["coda"][key] / medians["torch"][key] for key in medians["coda"]}
    return {"medians": medians, "coda_over_torch": ratios}


def table(sides: dict[str, list[str]], threads: int) -> None:
    """A row of Markdown for every size: seconds a step, and the ratio."""
    print("| width | row length | head | coda s | PyTorch s | wall | CPU |")
    print("|---|---|---|---|---|---|---|")
    cells = [(width, length, "tied") for width in (256, 512, 1024) for length in (128, 512, 2048)]
    for width, length, head in [*cells, (256, 256, "untied"), (512, 512, "untied")]:
        sizes = ["5" if width > 512 else "7", str(threads), str(width), str(length), head]
        found = compare(sides, 2, sizes, 2)
        wall = [found["medians"][name]["wall"] for name in ("coda", "torch")]
        ratios = [found["coda_over_torch"][key] for key in ("wall", "cpu")]
        print(
            f"| {width} | {length} | {head} | {wall[0]:.3f} | {wall[1]:.3f} | {ratios[0]:.2f} "
            f"| {ratios[1]:.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", help="an interpreter that has torch")
    parser.add_argument("--program", default=str(ROOT / "target" / "release" / "train_step"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=13)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="a table over sizes, in Markdown")
    args = parser.parse_args()
    sides = {
        "coda": [args.program],
        "torch": [args.python or torch_python(), str(ROOT / "benches" / "torch_step.py")],
    }
    if args.table:
        table(sides, args.threads)
        return
    sizes = [str(args.steps), str(args.threads)]
    print(json.dumps(compare(sides, args.rounds, sizes, WARM_UP), indent=2))


if __name__ == "__main__":
    main()
