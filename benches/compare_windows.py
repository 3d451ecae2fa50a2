"""Runs windows and torch_windows.py in turns; prints medians of whole rows' forwards and their ratio, in Markdown.

    cargo build --release --locked -p coda-benches
    python3 benches/compare_windows.py [--python PYTHON_WITH_TORCH] [--rounds 3]

Without --python it makes target/venv-torch with PyTorch from PyPI (several GB).
"""

import argparse
import statistics
from collections import defaultdict

from compare_train_step import ROOT, run, torch_python

WIDTHS = (256, 512, 1024, 2048)
# As many forwards as windows.rs does, on its two threads.
FORWARDS, THREADS = "20", "2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", help="an interpreter that has torch")
    parser.add_argument("--program", default=str(ROOT / "target" / "release" / "windows"))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    twin = [args.python or torch_python(), str(ROOT / "benches" / "torch_windows.py")]
    ours, theirs = defaultdict(list), defaultdict(list)
    for _ in range(args.rounds):
        for width in WIDTHS:
            for line in run([args.program], [str(width)], 0):
                size = (width, line["positions"])
                ours[size].append(line["row_ms"])
                found = run(twin, [FORWARDS, THREADS, *map(str, size)], 0)
                theirs[size].append(found[0]["row_ms"])
    print("| width | positions | coda ms | PyTorch ms | ratio |\n|---|--:|--:|--:|--:|")
    for size in ours:
        coda, torch = statistics.median(ours[size]), statistics.median(theirs[size])
        print(f"| {size[0]} | {size[1]} | {coda:.2f} | {torch:.2f} | {coda / torch:.2f} |")


main()
