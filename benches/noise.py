"""How fast rows are noised in Python: the batch at once, and row by row as the oracle does it.

    PYTHONPATH=shards/python python3 benches/noise.py

Rows of 8192 tokens, 64 in a batch, one thread; rows per CPU-second, the best of several rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from coda_shards import Batch, Bd3lm, Coda, Llada, Mdlm, Noise, Rows
from coda_shards.index import Specials
from coda_shards.masks import Settings, Shape, plan

LENGTH, ROWS, ROUNDS = 8192, 64, 5


def rate(work: Callable[[], object]) -> float:
    """Rows per CPU-second."""
    least = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        least = min(least, time.process_time() - start)
    return ROWS / least


def batch() -> Batch:
    """Rows without prompt and pads."""
    draw = np.random.default_rng(0)
    rows = Rows(
        number=np.arange(ROWS),
        tokens=draw.integers(0, 150_000, (ROWS, LENGTH), dtype=np.uint32),
        row_key=draw.integers(0, 2**63, ROWS, dtype=np.uint64),
        source=np.zeros(ROWS, dtype=np.uint16),
        prefix_len=np.zeros(ROWS, dtype=np.uint32),
        valid_len=np.full(ROWS, LENGTH, dtype=np.uint32),
        segments=[np.zeros(1, dtype=np.uint32)] * ROWS,
        maskable=[np.array([[0, LENGTH]], dtype=np.uint32)] * ROWS,
    )
    zeros = np.zeros(ROWS, dtype=np.int64)
    return Batch(rows, zeros, np.arange(ROWS), ROWS, 0, 0, 17, Specials(1, 2, 3), ("all",))


def main() -> None:
    """Prints the rows of the table in docs/benchmarks.md."""
    rows = batch()
    shapes = [Shape(LENGTH, int(key), 0, LENGTH, [(0, LENGTH)]) for key in rows.rows.row_key]
    words = rate(lambda: rows.streams.words("TokenMask", LENGTH))
    print(f"draws alone: {words:.0f}")
    kinds: list[Noise] = [Coda(p1=0.2, p2=0.2, p3=p3) for p3 in (0.0, 0.5, 1.0)]
    for noise in [*kinds, Llada(), Mdlm(), Bd3lm(32)]:
        print(f"{noise}: {rate(lambda noise=noise: noise(rows)):.0f}")
    for p3 in (0.0, 0.5, 1.0):
        settings = Settings("coda-paper", 17, 0, 0.2, 0.2, p3, (2, 4, 8), 1e-3, 1.0, True)
        found = rate(lambda s=settings: [plan(s, shape, 0) for shape in shapes])
        print(f"row by row, p3 {p3}: {found:.0f}")


if __name__ == "__main__":
    main()
