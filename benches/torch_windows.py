"""The twin of the whole rows of src/bin/windows.rs in eager PyTorch.

    python3 benches/torch_windows.py ROUNDS THREADS WIDTH POSITIONS

Prints the least milliseconds of a forward of one row of so many positions, one output of it through the head.
"""

import json
import time

import torch
import torch.nn.functional as F

# Reads the arguments: the shape follows from the width.
from torch_step import D, LAYERS, MASK, STEPS, THREADS, V, L, Layer, rms_norm, rotary


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(THREADS)
    torch.manual_seed(7)
    embedding, norm = torch.randn(V, D) * 0.02, torch.ones(D)
    layers = [Layer() for _ in range(LAYERS)]
    cos, sin = rotary(L)
    ids, least = torch.randint(0, MASK, (1, L)), float("inf")
    for _ in range(STEPS):
        started = time.perf_counter()
        x = F.embedding(ids, embedding)
        for layer in layers:
            x = layer(x, cos, sin)
        _ = rms_norm(x[0, 1:2], norm) @ embedding.T
        least = min(least, time.perf_counter() - started)
    print(json.dumps({"width": D, "positions": L, "row_ms": least * 1e3}))


main()
